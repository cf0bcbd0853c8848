"""Reading and checking single values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.config.keys import Kind
from cfs_core.errors import ConfigError

if TYPE_CHECKING:
    from cfs_core.config.keys import Key

_SIZE = re.compile(r"(?i)(\d+)\s*([kmgt]?)(i?b)?\Z")
_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str | int) -> int:
    """Read ``512M``, ``10GiB`` or a plain number of bytes; units are binary.

    Raises:
        ConfigError: not a size.
    """
    match = _SIZE.match(str(text).strip())
    if not match:
        msg = f"{text!r} is not a size"
        raise ConfigError(msg, hint="write it as 512M, 10G or a number of bytes")
    return int(match[1]) * _FACTOR[match[2].lower()]


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
            return value
        case Kind.SIZE if isinstance(value, str | int) and not isinstance(value, bool):
            return parse_size(value)
        case Kind.TABLE if isinstance(value, dict):
            return value
        case _:
            msg = f"{key.name} in {origin} must be {key.kind.value}, not {value!r:.80}"
            raise ConfigError(msg, key=key.name, origin=origin)


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
            if text.isascii() and text.isdigit():
                return int(text)
        case Kind.TEXT | Kind.SIZE:
            return checked(key, text, origin)
        case Kind.TABLE:
            pass
    msg = f"{key.name} in {origin} must be {key.kind.value}, not {text!r:.80}"
    raise ConfigError(msg, key=key.name, origin=origin)
