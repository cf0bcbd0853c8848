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

from cfs_core.plugin import ChangedError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHUNK = 1024 * 1024
_FILE, _SEGMENT = 1, 2
_LINE_LIMIT = 256 * 1024 * 1024


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
                    if size := int(entry.get("size", 0)):
                        raw = entry.get("name_raw")
                        name = base64.b64decode(raw, validate=True) if raw else entry["name"].encode()
                        yield Payload(name, size)
                else:
                    msg = f"{path} has an entry of unknown type {kind!r} in line {number}"
                    raise StorageError(msg)
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"{path} is damaged at line {number}: {error}"
        raise StorageError(msg, hint="remove the image from the store and pull or build it again") from error


def assemble(parts: Iterable[Segment | Payload], files: Opener, where: str) -> Iterator[bytes]:
    """Yield the layer in chunks of up to `CHUNK` bytes.

    Raises:
        ChangedError: a file is gone or has another size than when the layer was unpacked.
        PermissionError: a file may not be read.
    """
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    filled = 0
    for part in parts:
        if isinstance(part, Segment):
            data = part.data
            if filled + len(data) > CHUNK:
                yield bytes(view[:filled])
                filled = 0
                if len(data) > CHUNK:
                    yield data
                    continue
            view[filled : filled + len(data)] = data
            filled += len(data)
            continue
        handle = _open(files, part, where)
        try:
            left = part.size
            while left:
                if filled == CHUNK:
                    yield bytes(view)
                    filled = 0
                count = os.readv(handle, [view[filled : min(CHUNK, filled + left)]])
                if count == 0:
                    raise _changed(part, where)
                filled += count
                left -= count
        finally:
            os.close(handle)
    if filled:
        yield bytes(view[:filled])


def _open(files: Opener, part: Payload, where: str) -> int:
    try:
        handle = files.open(part.name)
    except PermissionError:
        raise
    except OSError as error:
        raise _changed(part, where) from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size != part.size:
        os.close(handle)
        raise _changed(part, where)
    return handle


def _changed(part: Payload, where: str) -> ChangedError:
    msg = f"{os.fsdecode(part.name)!r} of {where} is not what it was when the layer was unpacked"
    return ChangedError(msg, hint="the image was changed or removed meanwhile, or the store is damaged; pull it again")
