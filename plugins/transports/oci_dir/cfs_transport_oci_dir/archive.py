"""Tar files as a bag of named files, read by seeking; compressed ones are unpacked to a scratch file first."""

from __future__ import annotations

import bisect
import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import os
import posixpath
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import zstandard

from cfs_core.plugin import (
    HardLink,
    ImageError,
    LimitError,
    NotFoundError,
    RegularFile,
    Symlink,
    TransportError,
    open_regular,
)
from cfs_core.tar import HEAD_BYTES, TarLimits, kind_of, read_members

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

UNPACKED_LIMIT = 64 << 30
"""Bytes a compressed archive may unpack to."""

_LIMITS = TarLimits(entries=100_000)
# Older versions of docker save write a layer once and link to it from others that are the same.
_LINKS = 8
_HINT = "name what `podman save --format oci-archive`, `skopeo copy … oci-archive:FILE` or `docker save` wrote"
_CHUNK = 1 << 20


class Archive:
    """The members of one tar file. Names are normalised: no leading ``./``, no trailing slash."""

    def __init__(self, path: str, scratch: Path) -> None:
        self.where = path
        self._file = _open(path, scratch)
        self._regions: dict[str, _Place] = {}
        self._links: dict[str, str] = {}
        try:
            self._scan()
        except LimitError as error:
            self._file.close()
            msg = f"{path} is no archive of an image: {error.message}"
            raise LimitError(msg, hint="unpack it, and read the directory: oci:DIRECTORY", facts=error.facts) from error
        except ImageError as error:
            kind = kind_of(os.pread(self._file.fileno(), HEAD_BYTES, 0))
            self._file.close()
            if kind is not None:
                msg = f"{path} is {kind}, not a tar archive"
                raise ImageError(msg, hint=_HINT) from error
            msg = f"{path} is not a readable tar archive: {error.message.replace('the layer', 'it')}"
            raise ImageError(msg, hint=error.hint or _HINT) from error
        except BaseException:
            self._file.close()
            raise

    def __contains__(self, name: str) -> bool:
        return self._find(name) in self._regions

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Open a member; also its size in bytes.

        Raises:
            NotFoundError: no such member.
        """
        region = self._regions.get(self._find(name))
        if region is None:
            msg = f"{self.where} has no {name} in it"
            raise NotFoundError(msg)
        return cast("BinaryIO", region.opened(self._file.fileno())), region.size

    def close(self) -> None:
        """Close the file; a scratch file goes with it."""
        self._file.close()

    def _find(self, name: str) -> str:
        for _ in range(_LINKS):
            if name not in self._links:
                break
            name = self._links[name]
        return name

    def _scan(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        position = 0
        for member in read_members(self._file, _LIMITS, with_sparse=True):
            position += len(member.raw)
            if member.entry is not None:
                name = os.fsdecode(member.entry.path[1:])
                what = member.entry.what
                # Of members with one name the last counts, as for every other reader of tar.
                self._regions.pop(name, None)
                self._links.pop(name, None)
                if isinstance(what, RegularFile):
                    self._regions[name] = _Place(position, what.size, member.areas)
                elif isinstance(what, HardLink):
                    self._links[name] = os.fsdecode(what.target[1:])
                elif isinstance(what, Symlink):
                    target = posixpath.join(posixpath.dirname(name), os.fsdecode(what.target))
                    self._links[name] = posixpath.normpath(target)
            position += member.size
            if position > end:
                msg = "it ends too early"
                raise ImageError(msg, hint="copy or make the archive again")
            if member.size:
                self._file.seek(position)


class _Place(NamedTuple):
    """Where the content of a member is: from *start* on in the archive, in *areas* of the member if it is sparse."""

    start: int
    size: int
    areas: tuple[tuple[int, int], ...] | None

    def opened(self, handle: int) -> _Region:
        """Return it as a file."""
        if self.areas is None:
            return _Region(handle, self.start, self.size)
        return _SparseRegion(handle, self.start, self.size, self.areas)


class _Region(io.RawIOBase):
    """A stretch of an open file, with a position of its own."""

    def __init__(self, handle: int, start: int, size: int) -> None:
        super().__init__()
        self._handle = handle
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = min(max(base + offset, 0), self._size)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._piece(min(len(view), self._size - self._position))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _piece(self, most: int) -> bytes:
        """Return up to *most* bytes from the position on."""
        return os.pread(self._handle, most, self._start + self._position)


class _SparseRegion(_Region):
    """A member of which only some areas are in the file; the rest is zeros."""

    def __init__(self, handle: int, start: int, size: int, areas: tuple[tuple[int, int], ...]) -> None:
        super().__init__(handle, start, size)
        self._offsets = [offset for offset, _ in areas]
        self._lengths = [length for _, length in areas]
        self._stored = list(itertools.accumulate(self._lengths, initial=0))

    def _piece(self, most: int) -> bytes:
        at = bisect.bisect_right(self._offsets, self._position) - 1
        inside = self._position - self._offsets[at] if at >= 0 else 0
        if at >= 0 and inside < self._lengths[at]:
            most = min(most, self._lengths[at] - inside)
            return os.pread(self._handle, most, self._start + self._stored[at] + inside)
        until = self._offsets[at + 1] if at + 1 < len(self._offsets) else self._size
        return bytes(min(most, until - self._position))


def _open(path: str, scratch: Path) -> BinaryIO:
    try:
        file = open_regular(Path(path))
    except FileNotFoundError as error:
        msg = f"there is no file {path}"
        raise NotFoundError(msg) from error
    except IsADirectoryError as error:
        msg = f"{path} is a directory"
        raise NotFoundError(msg, hint="for an image layout in a directory write oci:DIRECTORY:TAG") from error
    except OSError as error:
        msg = f"{path} cannot be opened: {error.strerror}"
        raise TransportError(msg, hint="an archive is read more than once: save it to a file first") from error
    unpack = _unpacker(os.pread(file.fileno(), 6, 0))
    if unpack is None:
        return file
    with file:
        try:
            return _unpacked(unpack(file), scratch)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            msg = f"{path} cannot be decompressed: {error}"
            raise ImageError(msg, hint="the archive is damaged; copy or make it again") from error


def _unpacker(magic: bytes) -> Callable[[BinaryIO], BinaryIO] | None:
    if magic.startswith(b"\x1f\x8b"):
        return lambda file: cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic.startswith(b"BZh"):
        return lambda file: cast("BinaryIO", bz2.BZ2File(file))
    if magic.startswith(b"\xfd7zXZ\0"):
        return lambda file: cast("BinaryIO", lzma.LZMAFile(file))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd
    return None


def _zstd(file: BinaryIO) -> BinaryIO:
    return cast(
        "BinaryIO", zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file, read_across_frames=True)
    )


def _unpacked(source: BinaryIO, scratch: Path) -> BinaryIO:
    with contextlib.ExitStack() as undo:
        # the file has no name: nothing is left over however the run ends
        out = cast("BinaryIO", undo.enter_context(tempfile.TemporaryFile(dir=scratch)))
        total = 0
        while data := source.read(_CHUNK):
            total += len(data)
            if total > UNPACKED_LIMIT:
                msg = f"the archive is longer than {UNPACKED_LIMIT} bytes when it is unpacked"
                raise LimitError(msg, facts={"limit_bytes": UNPACKED_LIMIT})
            out.write(data)
        out.flush()
        out.seek(0)
        undo.pop_all()
    return out
