"""Reads files out of a FAT filesystem inside a plain file; names compare without regard to case, as on FAT."""

from __future__ import annotations

import array
import errno
import io
import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from cfs_core.plugin import DiskError
from cfs_disk.stored_file import StoredFile
from cfs_disk.vfat.geometry import FatGeometry, parse_boot_sector

if TYPE_CHECKING:
    from typing import BinaryIO

    from cfs_core.plugin import Region

_LONG_NAME = 0x0F
_VOLUME_LABEL = 0x08
_DIRECTORY = 0x10
_MAX_DIRECTORY = 65536 * 32
_READ_AHEAD = 1 << 18
_LONG_PARTS = 20

Run = tuple[int, int]
"""Byte offset in the volume, and length."""


@dataclass(frozen=True, slots=True)
class FatEntry:
    """A directory entry; ``cluster`` 0 means empty."""

    name: str
    is_directory: bool
    cluster: int
    size: int


class FatReader:
    """A `FileReader` of a FAT16 or FAT32 filesystem. Use as a context manager.

    Raises:
        DiskError: not FAT, or what is asked for is damaged; `FileNotFoundError` and its like as the os module does.
    """

    geometry: FatGeometry

    def __init__(self, region: Region) -> None:
        self._region = region
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self._region.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            msg = f"cannot read {self._region.path}: {error.strerror}"
            raise DiskError(msg) from error
        try:
            self.geometry = parse_boot_sector(self.pread(512, 0), self._region.size)
            self._fat = array.array("I" if self.geometry.entry_bytes == 4 else "H")  # noqa: PLR2004 - FAT32 entries
            raw = self.pread((self.geometry.clusters + 2) * self.geometry.entry_bytes, self.geometry.fat_start)
            self._fat.frombytes(raw)
            if sys.byteorder == "big":
                self._fat.byteswap()
            self._cache: dict[int, dict[str, FatEntry]] = {}
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*."""
        entry = self._lookup(path)
        if not entry.is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return tuple(sorted(child.name for child in self._entries(entry.cluster, path).values()))

    def kind(self, path: str) -> str | None:
        """Return ``file``, ``directory``, or None."""
        try:
            return "directory" if self._lookup(path).is_directory else "file"
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_link(self, path: str) -> str:
        """Fail: FAT has no links."""
        self._lookup(path)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    def open(self, path: str) -> BinaryIO:
        """Open a regular file."""
        entry = self._file(path)
        runs = self._runs(entry.cluster, path, entry.size) if entry.size else []
        if sum(length for _, length in runs) < entry.size:
            self.fail(f"{path} is {entry.size} bytes long, and its chain of clusters is shorter")
        return io.BufferedReader(_FatFile(self, runs, entry.size), _READ_AHEAD)

    def size(self, path: str) -> int:
        """Return a regular file's size."""
        return self._file(path).size

    def verity_digest(self, path: str) -> str | None:
        """Return None: FAT has no fs-verity."""
        self._file(path)
        return None

    def pread(self, size: int, offset: int) -> bytes:
        """Read at *offset* of the volume."""
        if offset + size > self._region.size:
            self.fail(f"{size} bytes at {offset} are outside the volume")
        try:
            data = os.pread(self._fd, size, self._region.offset + offset)
        except OSError as error:
            msg = f"cannot read {self._region.path}: {error.strerror}"
            raise DiskError(msg) from error
        if len(data) != size:
            self.fail("the disk image is shorter than its volumes")
        return data

    def fail(self, message: str) -> NoReturn:
        """Raise a DiskError with *message* and the region it is about."""
        text = f"{message} (FAT in {self._region.path} at byte {self._region.offset})"
        raise DiskError(text, hint="the filesystem is damaged")

    def _file(self, path: str) -> FatEntry:
        entry = self._lookup(path)
        if entry.is_directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return entry

    def _lookup(self, path: str) -> FatEntry:
        entry = FatEntry("", is_directory=True, cluster=self.geometry.root_cluster, size=0)
        for part in filter(None, path.split("/")):
            if not entry.is_directory:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            found = self._entries(entry.cluster, path).get(part.upper())
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            entry = found
        return entry

    def _entries(self, cluster: int, path: str) -> dict[str, FatEntry]:
        known = self._cache.get(cluster)
        if known is None:
            if cluster == 0 and self.geometry.root_cluster:
                self.fail(f"{path} leads through a directory without clusters")
            if cluster == 0:
                raw = self.pread(self.geometry.root_bytes, self.geometry.root_start)
            else:
                runs = self._runs(cluster, path, _MAX_DIRECTORY)
                raw = b"".join(self.pread(length, offset) for offset, length in runs)
            known = self._cache[cluster] = {entry.name.upper(): entry for entry in _parse(raw)}
        return known

    def _runs(self, cluster: int, path: str, limit: int) -> list[Run]:
        """Follow a chain as far as *limit* bytes need."""
        size = self.geometry.cluster_bytes
        last = self.geometry.clusters + 1
        # Eight values end a chain, and every writer has its own favourite (FAT specification 1.03).
        least_end = self.geometry.end_mark & ~7
        runs: list[Run] = []
        start, length = cluster, 0
        left = -(-limit // size)
        while True:
            if not 2 <= cluster <= last:  # noqa: PLR2004 - the first cluster is number 2
                self.fail(f"{path} has a damaged chain of clusters")
            if cluster != start + length:
                runs.append((self.geometry.offset(start), length * size))
                start, length = cluster, 0
            length += 1
            left -= 1
            following = self._fat[cluster] & self.geometry.end_mark
            if following >= least_end or left <= 0:
                break
            cluster = following
        runs.append((self.geometry.offset(start), length * size))
        return runs


class _FatFile(StoredFile):
    def __init__(self, reader: FatReader, runs: list[Run], size: int) -> None:
        super().__init__(size)
        self._reader = reader
        self._runs = runs

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        take = self._wanted(buffer)
        done, start = 0, 0
        for offset, length in self._runs:
            inside = self._at + done - start
            if inside < length and done < take:
                part = min(length - inside, take - done)
                buffer[done : done + part] = self._reader.pread(part, offset + inside)
                done += part
            start += length
        self._at += done
        return done


def _parse(raw: bytes) -> list[FatEntry]:
    found: list[FatEntry] = []
    parts: list[bytes] = []
    for at in range(0, len(raw) - 31, 32):
        entry = raw[at : at + 32]
        if entry[0] == 0:
            break
        if entry[0] == 0xE5:  # noqa: PLR2004 - a deleted entry
            parts = []
            continue
        attributes = entry[11]
        if attributes & 0x3F == _LONG_NAME:
            parts = [] if entry[0] & 0x40 else parts
            if len(parts) < _LONG_PARTS:
                parts.insert(0, entry[1:11] + entry[14:26] + entry[28:32])
            continue
        if not attributes & _VOLUME_LABEL:
            name = _long_name(parts) or _short_name(entry)
            if name not in {".", ".."}:
                high, low = struct.unpack_from("<H", entry, 20)[0], struct.unpack_from("<H", entry, 26)[0]
                size = struct.unpack_from("<I", entry, 28)[0]
                found.append(FatEntry(name, bool(attributes & _DIRECTORY), low | high << 16, size))
        parts = []
    return found


def _long_name(parts: list[bytes]) -> str:
    units = b"".join(parts)
    for at in range(0, len(units), 2):
        if units[at : at + 2] == b"\0\0":
            units = units[:at]
            break
    return units.decode("utf-16-le", "replace")


def _short_name(entry: bytes) -> str:
    base, extension = entry[:8].rstrip(), entry[8:11].rstrip()
    # Bits that Windows NT and Linux set for names that are all lower case.
    base = base.lower() if entry[12] & 0x08 else base
    extension = extension.lower() if entry[12] & 0x10 else extension
    return (base + (b"." + extension if extension else b"")).decode("cp437")
