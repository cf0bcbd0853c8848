"""The text of Boot Loader Specification type 1 entries: read without loss, edited line by line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Fields(tuple[tuple[str, str], ...]):
    """Keys and values in file order; keys such as ``initrd`` may repeat."""

    __slots__ = ()

    def first(self, key: str) -> str | None:
        """Return the first value of *key*."""
        return next((value for name, value in self if name == key), None)

    def every(self, key: str) -> tuple[str, ...]:
        """Return all values of *key*."""
        return tuple(value for name, value in self if name == key)


ENTRY_LIMIT = 1024 * 1024
"""Entry files longer than this many bytes are not entries."""


def _split(line: bytes) -> tuple[str, str] | None:
    words = line.strip(b" \t\r").split(None, 1)
    if len(words) < 2 or words[0].startswith(b"#"):  # noqa: PLR2004 - a key and a value
        return None
    key, value = (word.decode("utf-8", "surrogateescape") for word in words)
    return key, value


def parse_entry(data: bytes) -> Fields:
    """Return the fields of an entry file. Comments, blank lines and keys without a value are skipped, as loaders do."""
    return Fields(field for field in map(_split, data.split(b"\n")) if field is not None)


def edit_entry(data: bytes, changes: Mapping[str, str | None]) -> bytes:
    """Return *data* with the keys of *changes* set (None: removed); every other line stays byte for byte.

    A key that occurs several times becomes one line, where the first was; a new key is appended.
    """
    left = dict(changes)
    lines: list[bytes] = []
    for line in data.split(b"\n"):
        field = _split(line)
        if field is None or field[0] not in changes:
            lines.append(line)
        elif field[0] in left:
            value = left.pop(field[0])
            if value is not None:
                lines.append(_line(field[0], value))
    added = [_line(key, value) for key, value in left.items() if value is not None]
    if added:
        while lines and not lines[-1].strip():
            lines.pop()
        lines += [*added, b""]
    return b"\n".join(lines)


def format_entry(fields: Iterable[tuple[str, str]]) -> bytes:
    """Write an entry file, one line a field, in the order given."""
    return b"".join(_line(key, value) + b"\n" for key, value in fields)


def _line(key: str, value: str) -> bytes:
    return f"{key} {as_one_line(value)}".encode("utf-8", "surrogateescape")


def as_one_line(text: str) -> str:
    """Return *text* as it can stand in an entry: one line, no control characters, no white space around it."""
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f]+", " ", text).strip()


def split_arguments(text: str) -> tuple[str, ...]:
    """Split a kernel command line as the kernel does: at white space outside of double quotes, which stay.

    White space is ASCII's (kernel: lib/cmdline.c next_arg). The kernel's isspace (lib/ctype.c) counts the byte A0 too,
    Latin-1's no-break space; `join_arguments` lets none pass that would be split there.
    """
    return tuple(re.findall(r'(?:"[^"]*(?:"|$)|[^ \t\n\r\v\f"])+', text))


def join_arguments(arguments: Sequence[str]) -> str:
    """Join arguments to a kernel command line.

    Raises:
        BootError: an argument that no loader can hand over: empty, with a control character, or not UTF-8.
    """
    for argument in arguments:
        if not argument.strip():
            message = "an empty kernel argument cannot be written into a boot entry"
            raise BootError(message, hint="remove it from --karg or the settings")
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", argument) or argument != argument.strip():
            message = f"kernel argument {argument!r} has a control character or white space around it"
            raise BootError(
                message,
                hint="boot entries are lines of text: give the argument without it",
                facts={"argument": argument},
            )
        if argument.count('"') % 2:
            message = f"kernel argument {argument!r} has a quote that is not closed"
            raise BootError(
                message, hint="the kernel would take all that follows as one argument", facts={"argument": argument}
            )
        if split_arguments(argument) != (argument,):
            message = f"kernel argument {argument!r} has white space outside of double quotes"
            raise BootError(
                message, hint="give it as several arguments, or quote the value", facts={"argument": argument}
            )
        try:
            data = argument.encode()
        except UnicodeEncodeError as error:
            message = f"kernel argument {argument!r} is not valid UTF-8"
            raise BootError(
                message, hint="boot loaders hand over Unicode text", facts={"argument": argument}
            ) from error
        if any(b"\xa0" in part for part in data.split(b'"')[::2]):
            message = f"kernel argument {argument!r} has a sign whose bytes the kernel takes for white space (A0)"
            raise BootError(message, hint="put double quotes around the value", facts={"argument": argument})
    return " ".join(arguments)
