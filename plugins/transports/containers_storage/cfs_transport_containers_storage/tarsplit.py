"""Putting a layer back together, byte for byte, from its tar-split file and the unpacked files (vbatts/tar-split)."""

from __future__ import annotations

import base64
import gzip
import json
import os
import stat
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cfs_core.plugin import ChangedError, FileBytes, SourceFile, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHUNK = 1024 * 1024
SOURCE_BYTES = 64 * 1024
"""Of smaller files sharing blocks saves nothing: measured on btrfs, their metadata costs as much as their content."""

_FILE, _SEGMENT = 1, 2
_LINE_LIMIT = 256 * 1024 * 1024


_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    gzip.BadGzipFile,
    zlib.error,
)
"""What comes of lines that are no JSON, or JSON of other shapes."""


class Opener(Protocol):
    """Opens unpacked files by the name they have in the layer."""

    def open(self, name: bytes) -> int:
        """Return a file descriptor."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes of the layer as they were: headers, padding."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Payload:
    """The content of an unpacked file, ``size`` bytes."""

    name: bytes
    size: int


def read_tar_split(path: Path) -> Iterator[Segment | Payload]:
    """Yield the parts of a layer in order.

    Raises:
        StorageError: damaged.
        OSError: not there.
    """
    number = 0
    try:
        with gzip.open(path, "rb") as lines:
            while line := lines.readline(_LINE_LIMIT):
                number += 1
                entry = json.loads(line)
                kind = entry["type"]
                if kind == _SEGMENT:
                    if entry["payload"]:
                        yield Segment(base64.b64decode(entry["payload"], validate=True))
                elif kind == _FILE:
                    size = int(entry.get("size", 0))
                    if size < 0:
                        msg = f"{path} has a file of {size} bytes in line {number}"
                        raise StorageError(msg)
                    if size:
                        raw = entry.get("name_raw")
                        name = base64.b64decode(raw, validate=True) if raw else entry["name"].encode()
                        yield Payload(name, size)
                else:
                    msg = f"{path} has an entry of unknown type {kind!r} in line {number}"
                    raise StorageError(msg)
    except _DAMAGE as error:
        msg = f"{path} is damaged at line {number}: {error}"
        raise StorageError(msg, hint="remove the image from the store and pull or build it again") from error


def assemble(parts: Iterable[Segment | Payload], files: Opener, where: str) -> Iterator[bytes]:
    """Yield the layer in chunks of up to `CHUNK` bytes; content of large files comes with the file it is read from.

    Raises:
        ChangedError: a file is gone or has another size than when the layer was unpacked.
        PermissionError: a file may not be read.
    """
    view = memoryview(bytearray(CHUNK))
    filled = 0
    for part in parts:
        size = part.size if isinstance(part, Payload) else len(part.data)
        large = size >= SOURCE_BYTES if isinstance(part, Payload) else size > CHUNK
        if filled and (large or filled + size > CHUNK):
            yield bytes(view[:filled])
            filled = 0
        if isinstance(part, Payload):
            source = _open(files, part, where)
            if large:
                yield from _content(source, part, where, view)
                continue
            _read(source, part, where, view[filled : filled + size])
        elif large:
            yield part.data
            continue
        else:
            view[filled : filled + size] = part.data
        filled += size
    if filled:
        yield bytes(view[:filled])


def _content(source: SourceFile, part: Payload, where: str, buffer: memoryview) -> Iterator[bytes]:
    """Yield a file's content in chunks; the first one says which file it is."""
    left = part.size
    while left:
        data = buffer[: min(CHUNK, left)]
        _read(source, part, where, data)
        yield FileBytes.of(data, source) if left == part.size else bytes(data)
        left -= len(data)


def _read(source: SourceFile, part: Payload, where: str, into: memoryview) -> None:
    while into:
        count = os.readv(source.fd, [into])
        if count == 0:
            raise _changed(part, where)
        into = into[count:]


def _open(files: Opener, part: Payload, where: str) -> SourceFile:
    try:
        source = SourceFile(files.open(part.name))
    except PermissionError:
        raise
    except OSError as error:
        raise _changed(part, where) from error
    if not stat.S_ISREG(os.fstat(source.fd).st_mode) or source.size != part.size:
        raise _changed(part, where)
    return source


def _changed(part: Payload, where: str) -> ChangedError:
    msg = f"{os.fsdecode(part.name)!r} of {where} is not what it was when the layer was unpacked"
    return ChangedError(msg, hint="the image was changed or removed meanwhile, or the store is damaged; pull it again")
