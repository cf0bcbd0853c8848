"""What a FAT volume is to hold, and the names it has there (Microsoft FAT specification, section 6 and 7)."""

from __future__ import annotations

import datetime as dt
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.plugin import BytesContent, Content, CopyObject, DiskError, MakeDirectory, PlacingAction, WriteFile

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE = (1 << 32) - 1
_FORBIDDEN = re.compile(r'["*/:<>?\\|\x00-\x1f\x7f]')
_NAME_UNITS = 255
_SHORT = re.compile(rb"[A-Z0-9!#$%&'()@^_`{}~-]{1,8}(\.[A-Z0-9!#$%&'()@^_`{}~-]{1,3})?\Z")
_NOT_SHORT = re.compile(r"[^A-Z0-9!#$%&'()@^_`{}~-]")
_UNITS_PER_ENTRY = 13
_FIRST_YEAR, _LAST_YEAR = 1980, 2107


@dataclass(slots=True)
class FatNode:
    """A file (with content) or a directory (with children by upper-case name)."""

    name: str
    mtime: int
    content: Content | None = None
    children: dict[str, FatNode] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.content is None


def collect(contents: Mapping[str, PlacingAction], epoch: int) -> FatNode:
    """Check *contents* and turn it into a tree; *epoch* is the time of what has none of its own.

    Raises:
        DiskError: something FAT cannot hold; the message names it.
    """
    root = FatNode("", epoch)
    for path, action in contents.items():
        mtime, content = _accept(path, action, epoch)
        parts = [part for part in path.split("/") if part]
        if not parts:
            continue
        parent = root
        for part in parts[:-1]:
            found = parent.children.get(part.upper())
            if found is None or not found.is_directory or found.name != part:
                msg = f"{path!r}: no such directory before it: {part!r}"
                raise DiskError(msg, hint="FAT ignores case: spell a directory the same way everywhere")
            parent = found
        name = _checked(parts[-1], path)
        clash = parent.children.get(name.upper())
        if clash is not None:
            msg = f"{path!r} clashes with {clash.name!r}: FAT does not tell upper from lower case"
            raise DiskError(msg, hint="spell the path the same way everywhere")
        parent.children[name.upper()] = FatNode(name, mtime, content)
    return root


def _accept(path: str, action: PlacingAction, epoch: int) -> tuple[int, Content | None]:
    content: Content | None
    match action:
        case MakeDirectory():
            content = None
        case WriteFile():
            content = BytesContent(action.data)
        case CopyObject(verity=None):
            content = action.source
        case CopyObject():
            msg = f"{path!r} asks for fs-verity, which FAT does not have"
            raise DiskError(msg)
        case _:
            msg = f"{path!r}: FAT has files and directories, no {type(action).__name__.removeprefix('Make').lower()}"
            raise DiskError(msg)
    if action.attributes.xattrs:
        msg = f"{path!r} has extended attributes, which FAT does not have"
        raise DiskError(msg)
    if content is not None and content.size > MAX_FILE:
        msg = f"{path!r} has {content.size} bytes; a file on FAT has at most {MAX_FILE}"
        raise DiskError(msg, hint="put it on another volume")
    mtime = action.attributes.mtime_sec
    return (epoch if mtime is None else mtime), content


def _checked(name: str, path: str) -> str:
    reason = None
    if _FORBIDDEN.search(name):
        reason = 'a control character or one of " * : < > ? \\ |'
    elif name.endswith((".", " ")) or name in {".", ".."}:
        reason = "a dot or a space at the end"
    else:
        try:
            if len(name.encode("utf-16-le")) // 2 > _NAME_UNITS:
                reason = f"more than {_NAME_UNITS} characters"
        except UnicodeEncodeError:
            reason = "bytes that are not UTF-8"
    if reason is not None:
        msg = f"{path!r} cannot be on FAT: its name has {reason}"
        raise DiskError(msg, hint="rename the file in the image, or leave it out")
    return name


def fat_time(mtime: int) -> tuple[int, int]:
    """Return (date, time) words; two-second steps, UTC, moved into 1980 to 2107."""
    low = int(dt.datetime(_FIRST_YEAR, 1, 1, tzinfo=dt.UTC).timestamp())
    high = int(dt.datetime(_LAST_YEAR, 12, 31, 23, 59, 58, tzinfo=dt.UTC).timestamp())
    moment = dt.datetime.fromtimestamp(min(max(mtime, low), high), dt.UTC)
    date = (moment.year - _FIRST_YEAR) << 9 | moment.month << 5 | moment.day
    return date, moment.hour << 11 | moment.minute << 5 | moment.second // 2


class ShortNames:
    """Short names of one directory, each used once."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()
        self._next: dict[tuple[str, str], int] = {}

    def entries(self, name: str) -> tuple[list[bytes], bytes]:
        """Return the long-name entries for *name*, and the 11 bytes of its short name."""
        plain = name.encode("ascii", "replace")
        # Small letters always take long entries: the flags for them in byte 12 are Windows NT's, and to the
        # specification reserved.
        if _SHORT.match(plain):
            base, _, extension = plain.partition(b".")
            short = base.ljust(8) + extension.ljust(3)
            if short not in self._taken:
                self._taken.add(short)
                return [], short
        short = self._alias(name)
        return _long_entries(name, short), short

    def _alias(self, name: str) -> bytes:
        stem, dot, extension = name.lstrip(".").upper().rpartition(".")
        if not dot:
            stem, extension = extension, ""
        stem = _NOT_SHORT.sub("_", stem.replace(" ", "").replace(".", ""))[:8] or "_"
        extension = _NOT_SHORT.sub("_", extension.replace(" ", ""))[:3]
        number = self._next.get((stem, extension), 1)
        while True:
            suffix = f"~{number}"
            number += 1
            short = (stem[: 8 - len(suffix)] + suffix).ljust(8).encode() + extension.ljust(3).encode()
            if short not in self._taken:
                self._taken.add(short)
                self._next[stem, extension] = number
                return short


def _long_entries(name: str, short: bytes) -> list[bytes]:
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7 | checksum >> 1) + byte & 0xFF
    units = name.encode("utf-16-le")
    count = -(-len(units) // (2 * _UNITS_PER_ENTRY))
    if len(units) % (2 * _UNITS_PER_ENTRY):
        units = (units + b"\0\0").ljust(count * 2 * _UNITS_PER_ENTRY, b"\xff")
    entries: list[bytes] = []
    for number in range(count, 0, -1):
        part = units[(number - 1) * 26 : number * 26]
        order = number | (0x40 if number == count else 0)
        entries.append(struct.pack("<B10sBBB12sH4s", order, part[:10], 0x0F, 0, checksum, part[10:22], 0, part[22:]))
    return entries
