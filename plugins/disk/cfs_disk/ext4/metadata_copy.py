"""A sparse copy of an ext4 without the contents of its files, for tools that write while they check."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from cfs_core.plugin import open_regular
from cfs_disk.ext4.read import Ext4Reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cfs_core.plugin import Region

_PIECE = 1 << 20


def copy_metadata(region: Region, target: Path) -> None:
    """Copy all of *region* but the data of regular files, its journal included, into the new file *target*.

    Raises:
        DiskError: damaged beyond reading.
        OSError: no room.
    """
    with Ext4Reader(region) as reader:
        data = sorted(_file_data(reader))
    with open_regular(region.path) as source, target.open("xb") as file:
        file.truncate(region.size)
        for start, end in _between(data, region.size):
            for at, size in _filled(source.fileno(), region.offset + start, region.offset + end):
                piece = os.pread(source.fileno(), size, at)
                if piece.strip(b"\0"):
                    os.pwrite(file.fileno(), piece, at - region.offset)


def _file_data(reader: Ext4Reader) -> Iterator[tuple[int, int]]:
    """Yield (start, end) in bytes of the region for what only files' readers care about."""
    size = reader.superblock.block_size
    for _, inode in reader.walk():
        if stat.S_ISREG(inode.mode):
            for _, length, physical in reader.extents(inode):
                if physical:
                    yield physical * size, (physical + length) * size


def _between(areas: Iterable[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    at = 0
    for start, stop in areas:
        if start > at:
            yield at, start
        at = max(at, stop)
    if at < end:
        yield at, end


def _filled(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) of pieces of a file that are no holes."""
    at = start
    while at < end:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if at >= end:
            return
        stop = min(os.lseek(descriptor, at, os.SEEK_HOLE), end)
        while at < stop:
            size = min(_PIECE, stop - at)
            yield at, size
            at += size
