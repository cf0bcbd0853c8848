"""Reading and checking single values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.config.keys import Kind
from cfs_core.errors import ConfigError

if TYPE_CHECKING:
    from cfs_core.config.keys import Key

_SIZE = re.compile(r"(?ia)(\d+)\s*([kmgt]?)(i?b)?\Z")
_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NUMBER = re.compile(r"[0-9]{1,18}")
LARGEST = 1 << 53
"""Bytes, 8 PiB: beyond it hosts and tools have limits of their own, and nobody has such a disk."""


def parse_size(text: str | int, where: str = "") -> int:
    """Read ``512M``, ``10GiB`` or a plain number of bytes; units are binary. *where* it stands goes into the message.

    Raises:
        ConfigError: not a size, 0, or more than `LARGEST`.
    """
    named = f"{text!r:.40}" + (f" of {where}" if where else "")
    match = _SIZE.match(str(text).strip())
    if not match:
        msg = f"{named} is not a size"
        raise ConfigError(msg, hint="write it as 512M, 10G or a number of bytes")
    # Python refuses to read numbers of thousands of digits.
    size = int(match[1]) * _FACTOR[match[2].lower()] if len(match[1]) < len(str(LARGEST)) + 1 else LARGEST + 1
    if not 0 < size <= LARGEST:
        msg = f"{named} is not between 1 byte and {LARGEST >> 40}T"
        raise ConfigError(msg, hint="leave it out to have the size chosen")
    return size


def checked(key: Key, value: object, origin: str) -> object:
    """Return *value* in the form of *key*.

    Raises:
        ConfigError: another type; the message names key and origin.
    """
    match key.kind:
        case Kind.TEXT if isinstance(value, str):
            return value
        case Kind.TEXTS if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        case Kind.FLAG if isinstance(value, bool):
            return value
        case Kind.NUMBER if isinstance(value, int) and not isinstance(value, bool):
            return _bounded(key, value, origin)
        case Kind.SIZE if isinstance(value, str | int) and not isinstance(value, bool):
            return _bounded(key, parse_size(value, f"{key.name} in {origin}"), origin)
        case Kind.CHOICE if isinstance(value, str):
            if value not in key.choices:
                msg = f"{key.name} in {origin} is {value!r:.80}, which is none of {', '.join(key.choices)}"
                raise ConfigError(
                    msg, hint=f"write one of {', '.join(key.choices)}", facts={"key": key.name, "origin": origin}
                )
            return value
        case Kind.TABLE if isinstance(value, dict):
            return value
        case _:
            msg = f"{key.name} in {origin} must be {key.kind.value}, not {value!r:.80}"
            raise ConfigError(msg, hint="correct it, or leave it out", facts={"key": key.name, "origin": origin})


def _bounded(key: Key, value: int, origin: str) -> int:
    if value < key.least or (key.most is not None and value > key.most):
        most = "" if key.most is None else f" and at most {key.most}"
        msg = f"{key.name} in {origin} is {value}; it must be at least {key.least}{most}"
        raise ConfigError(msg, hint="leave it out to have it chosen", facts={"key": key.name, "origin": origin})
    return value


def from_text(key: Key, text: str, origin: str) -> object:
    """Read a value from an environment variable; lists are separated by commas.

    Raises:
        ConfigError: not a value of this key.
    """
    match key.kind:
        case Kind.TEXTS:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        case Kind.FLAG:
            if text.lower() in {"1", "yes", "true", "on"}:
                return True
            if text.lower() in {"0", "no", "false", "off"}:
                return False
        case Kind.NUMBER:
            if _NUMBER.fullmatch(text):
                return checked(key, int(text), origin)
        case Kind.TEXT | Kind.SIZE | Kind.CHOICE:
            return checked(key, text, origin)
        case Kind.TABLE:
            pass
    msg = f"{key.name} in {origin} must be {key.kind.value}, not {text!r:.80}"
    raise ConfigError(msg, hint="correct the variable, or unset it", facts={"key": key.name, "origin": origin})
