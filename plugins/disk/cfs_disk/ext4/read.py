"""Reads files out of an ext4 filesystem inside a plain file: nothing mounted, nothing executed, nothing trusted."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, NoReturn, Self

from cfs_core.plugin import Attributes, DiskError, Finding
from cfs_disk.ext4 import verity
from cfs_disk.ext4.blocks import block_entries, first_extent
from cfs_disk.ext4.inode import (
    FLAG_EXTENTS,
    FLAG_INLINE,
    FLAG_VERITY,
    Inode,
    parse_block_xattrs,
    parse_inode,
    parse_inode_xattrs,
    parse_superblock,
)
from cfs_disk.ext4.journal import newer_blocks
from cfs_disk.stored_file import StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from cfs_core.plugin import Region
    from cfs_disk.ext4.inode import Extent

ROOT_INODE = 2
_EXTENT_MAGIC = 0xF30A
_MAX_DEPTH = 5
_UNWRITTEN = 32768
_FAST_SYMLINK = 60
_MAX_SYMLINK = 4096
_MAX_COMPONENTS = 2048
_CACHED_NAMES = 500_000
_MAX_DIRECTORY = 512 << 20
_MAX_EXTENTS = 1 << 20
_MAX_SPARSENESS = 1024
"""How many times larger than its filesystem a file may claim to be."""

_READ_AHEAD = 1 << 18


class Ext4Reader:
    """A `FileReader` of an ext4 filesystem. Use as a context manager.

    Raises:
        DiskError: not ext4, or what is asked for is damaged; `FileNotFoundError` and its like as the os module does.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._fd = -1
        self._directories: OrderedDict[int, dict[bytes, int]] = OrderedDict()
        self._cached_names = 0
        self._newer: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self._region.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            msg = f"cannot read {self._region.path}: {error.strerror}"
            raise DiskError(msg) from error
        try:
            self._open_filesystem()
            if self.superblock.needs_replay:
                self._newer = newer_blocks(self)
                self._open_filesystem()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def replayed_blocks(self) -> int:
        """How many blocks are read from the journal: the disk lost power, and nobody mounted it since."""
        return len(self._newer)

    def _open_filesystem(self) -> None:
        self.superblock = parse_superblock(self._pread(1024, 1024), self._region.size)
        self._tables = self._inode_tables()

    # --- FileReader ---------------------------------------------------------------------------

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*."""
        entries = self.entries(self.lookup(path), path)
        return tuple(sorted(name.decode("utf-8", "surrogateescape") for name in entries))

    def kind(self, path: str) -> str | None:
        """Return ``file``, ``directory``, ``symlink``, ``special``, or None."""
        try:
            mode = self.lookup(path).mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
        return kinds.get(stat.S_IFMT(mode), "special")

    def read_link(self, path: str) -> str:
        """Return a link's target."""
        return self.link_target(self.lookup(path), path).decode("utf-8", "surrogateescape")

    def open(self, path: str) -> BinaryIO:
        """Open a regular file."""
        inode = self._regular(path)
        return io.BufferedReader(_Ext4File(self, inode, inode.size), _READ_AHEAD)

    def size(self, path: str) -> int:
        """Return a regular file's size."""
        return self._regular(path).size

    def verity_digest(self, path: str) -> str | None:
        """Return ``algorithm:hex`` of the descriptor stored behind the file's end; None where verity is off."""
        return verity.stored_digest(self, self._regular(path), path)

    # --- MetadataReader -----------------------------------------------------------------------

    def attributes(self, path: str) -> Attributes:
        """Return permissions, owner, modification time and extended attributes."""
        inode = self.lookup(path)
        seconds, nanoseconds = inode.mtime
        xattrs = self.xattrs(inode)
        return Attributes(
            mode=stat.S_IMODE(inode.mode),
            uid=inode.uid,
            gid=inode.gid,
            mtime_sec=seconds,
            mtime_nsec=nanoseconds,
            xattrs=tuple(sorted(xattrs.items())),
        )

    def device(self, path: str) -> int:
        """Return a device number, 0 of what is no device."""
        inode = self.lookup(path)
        return inode.rdev if stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode) else 0

    def same_file(self, path: str, other: str) -> bool:
        """Return whether two names are links of one inode."""
        return self.lookup(path).number == self.lookup(other).number

    # --- fs-verity ----------------------------------------------------------------------------

    def verify_verity(self, path: str) -> list[Finding]:
        """Check data and stored Merkle tree against the descriptor."""
        return verity.verify(self, self._regular(path), path)

    def verity_tree_problems(self) -> Iterator[Finding]:
        """Yield what is wrong with stored Merkle trees and descriptors of all files; their data is not read."""
        for path, inode in self.walk():
            if inode.flags & FLAG_VERITY and stat.S_ISREG(inode.mode):
                try:
                    yield from verity.verify_tree(self, inode, path)
                except DiskError as error:
                    yield Finding.error("verity.descriptor", error.message, where=path)

    def walk(self) -> Iterator[tuple[str, Inode]]:
        """Yield (path, inode) of everything but the root, every directory once.

        Raises:
            DiskError: damaged, or directories that contain each other.
        """
        visited = {ROOT_INODE}
        pending = [("", ROOT_INODE)]
        while pending:
            prefix, number = pending.pop()
            for name, child in sorted(self.entries(self.inode(number), prefix).items()):
                path = f"{prefix}/{name.decode('utf-8', 'surrogateescape')}"
                inode = self.inode(child)
                yield path, inode
                if stat.S_ISDIR(inode.mode):
                    if child in visited:
                        self.fail(f"{path} is a directory that is also elsewhere")
                    visited.add(child)
                    pending.append((path, child))

    # --- below the paths ----------------------------------------------------------------------

    def lookup(self, path: str) -> Inode:
        """Find *path* without following links.

        Raises:
            FileNotFoundError, NotADirectoryError: as the os module does.
        """
        number = ROOT_INODE
        components = [part for part in path.encode("utf-8", "surrogateescape").split(b"/") if part]
        if len(components) > _MAX_COMPONENTS:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        for name in components:
            entries = self._directories.get(number)
            if entries is None:
                entries = self.entries(self.inode(number), path)
            if name not in entries:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            number = entries[name]
        return self.inode(number)

    def inode(self, number: int) -> Inode:
        """Read an inode by number."""
        size = self.superblock.inode_size
        if not 0 < number <= self.superblock.inodes:
            self.fail(f"inode {number} does not exist")
        group, index = divmod(number - 1, self.superblock.inodes_per_group)
        at = self._tables[group] * self.superblock.block_size + index * size
        return parse_inode(self._pread(size, at), number)

    def entries(self, inode: Inode, path: str) -> dict[bytes, int]:
        """Return the names in a directory with their inode numbers, ``.`` and ``..`` left out."""
        if not stat.S_ISDIR(inode.mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        known = self._directories.get(inode.number)
        if known is None:
            known = self._read_directory(inode, path)
            self._directories[inode.number] = known
            self._cached_names += len(known)
            while self._cached_names > _CACHED_NAMES and len(self._directories) > 1:
                self._cached_names -= len(self._directories.popitem(last=False)[1])
        return known

    def numbered_entries(self, number: int) -> dict[bytes, int]:
        """Return the names in the directory that is inode *number*."""
        known = self._directories.get(number)
        return self.entries(self.inode(number), f"inode {number}") if known is None else known

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Return extended attributes, access control lists in the form getxattr(2) shows."""
        found = parse_inode_xattrs(inode.raw)
        if inode.xattr_block:
            found |= parse_block_xattrs(self.block(inode.xattr_block))
        return found

    def link_target(self, inode: Inode, path: str) -> bytes:
        """Return the target of a symbolic link."""
        if not stat.S_ISLNK(inode.mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        if inode.size < _FAST_SYMLINK and not inode.flags & FLAG_EXTENTS:
            return inode.body[: inode.size]
        if inode.size > _MAX_SYMLINK:
            self.fail(f"the target of {path} is {inode.size} bytes long")
        return _Ext4File(self, inode, inode.size).readall()

    def extents(self, inode: Inode) -> list[Extent]:
        """Return an inode's extents in ascending order."""
        if not inode.flags & FLAG_EXTENTS or inode.flags & FLAG_INLINE:
            self.fail(f"inode {inode.number} is not mapped by extents", hint="this reader knows only extents")
        found: list[Extent] = []
        visited: set[int] = set()
        self._extent_node(inode, inode.body, None, found, visited)
        return found

    def _extent_node(
        self, inode: Inode, node: bytes, depth: int | None, found: list[Extent], visited: set[int]
    ) -> None:
        magic, count, _maximum, node_depth = struct.unpack_from("<HHHH", node)
        if (
            magic != _EXTENT_MAGIC
            or 12 + 12 * count > len(node)
            or node_depth > _MAX_DEPTH
            or (depth is not None and node_depth != depth)
        ):
            self.fail(f"inode {inode.number} has a damaged extent tree")
        for index in range(count):
            logical, second, third, fourth = struct.unpack_from("<IHHI", node, 12 + 12 * index)
            if node_depth:
                logical, low, high = struct.unpack_from("<IIH", node, 12 + 12 * index)
                child = low | high << 32
                if child in visited:
                    self.fail(f"inode {inode.number} has a loop in its extent tree")
                visited.add(child)
                self._extent_node(inode, self.block(child), node_depth - 1, found, visited)
                continue
            # Longer than 32768 blocks is none: the rest says that they are allocated and read as zeros
            # (Documentation/filesystems/ext4).
            length = second if second <= _UNWRITTEN else second - _UNWRITTEN
            physical = fourth | third << 32
            end = found[-1][0] + found[-1][1] if found else 0
            if logical < end or length == 0 or physical == 0 or physical + length > self.superblock.blocks:
                self.fail(f"inode {inode.number} has an extent that leaves the filesystem")
            if len(found) >= _MAX_EXTENTS:
                self.fail(f"inode {inode.number} has more than {_MAX_EXTENTS} extents")
            found.append((logical, length, physical if second <= _UNWRITTEN else 0))

    def read_blocks(self, extents: list[Extent], offset: int, size: int) -> bytes:
        """Read at *offset* of a file mapped by *extents*; holes read as zeros."""
        block_size = self.superblock.block_size
        pieces: list[bytes] = []
        at, end = offset, offset + size
        for logical, length, physical in extents[first_extent(extents, offset // block_size) :]:
            start, stop = logical * block_size, (logical + length) * block_size
            if start >= end:
                break
            if start > at:
                pieces.append(bytes(start - at))
                at = start
            take = min(stop, end) - at
            inside = physical * block_size + at - start
            pieces.append(self._pread(take, inside) if physical else bytes(take))
            at += take
        if at < end:
            pieces.append(bytes(end - at))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def fail(self, message: str, *, hint: str = "the filesystem is damaged") -> NoReturn:
        """Raise a DiskError with *message* and the region it is about."""
        text = f"{message} (ext4 in {self._region.path} at byte {self._region.offset})"
        raise DiskError(text, hint=hint)

    def _regular(self, path: str) -> Inode:
        inode = self.lookup(path)
        if stat.S_ISDIR(inode.mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(inode.mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if inode.size > self.superblock.blocks * self.superblock.block_size * _MAX_SPARSENESS:
            self.fail(f"{path} claims to be {inode.size} bytes long")
        return inode

    def _read_directory(self, inode: Inode, path: str) -> dict[bytes, int]:
        block_size = self.superblock.block_size
        if inode.size > _MAX_DIRECTORY or inode.size % block_size:
            self.fail(f"directory {path} has an impossible size {inode.size}")
        extents = self.extents(inode)
        found: dict[bytes, int] = {}
        for at in range(0, inode.size, block_size):
            for name, number in block_entries(self.read_blocks(extents, at, block_size)):
                if name is None or name in found or b"/" in name or b"\0" in name:
                    self.fail(f"directory {path} has a damaged entry in block {at // block_size}")
                found[name] = number
        found.pop(b".", None)
        found.pop(b"..", None)
        return found

    def block(self, number: int) -> bytes:
        """Return one block of the filesystem."""
        if not 0 < number < self.superblock.blocks:
            self.fail(f"block {number} is outside the filesystem")
        return self._pread(self.superblock.block_size, number * self.superblock.block_size)

    def directory_count(self, group: int) -> int:
        """Return how many directories the descriptor of *group* counts."""
        block, size = self.superblock, self.superblock.descriptor_size
        raw = self._pread(size, (block.first_data_block + 1) * block.block_size + group * size)
        low = int.from_bytes(raw[16:18], "little")
        return low | (int.from_bytes(raw[48:50], "little") << 16 if size == 64 else 0)  # noqa: PLR2004 - 64bit feature

    def _inode_tables(self) -> list[int]:
        block, size = self.superblock, self.superblock.descriptor_size
        raw = self._pread(block.groups * size, (block.first_data_block + 1) * block.block_size)
        tables = []
        for group in range(block.groups):
            low = struct.unpack_from("<I", raw, group * size + 8)[0]
            high = struct.unpack_from("<I", raw, group * size + 40)[0] if size == 64 else 0  # noqa: PLR2004 - 64bit feature
            table = low | high << 32
            table_blocks = -(-block.inodes_per_group * block.inode_size // block.block_size)
            if not 0 < table <= block.blocks - table_blocks:
                self.fail(f"the inode table of group {group} is outside the filesystem")
            tables.append(table)
        return tables

    def _pread(self, size: int, offset: int) -> bytes:
        if offset + size > self._region.size:
            self.fail(f"{size} bytes at {offset} are outside the volume")
        try:
            data = os.pread(self._fd, size, self._region.offset + offset)
        except OSError as error:
            msg = f"cannot read {self._region.path}: {error.strerror}"
            raise DiskError(msg) from error
        if len(data) != size:
            self.fail("the disk image is shorter than its volumes", hint="the file was truncated")
        return self._overlaid(data, offset) if self._newer else data

    def _overlaid(self, data: bytes, offset: int) -> bytes:
        """Return *data* of byte *offset* with what the journal has newer."""
        size = self.superblock.block_size
        pieces: list[bytes] = []
        at, end = offset, offset + len(data)
        while at < end:
            block, inside = divmod(at, size)
            take = min(size - inside, end - at)
            newer = self._newer.get(block)
            pieces.append(data[at - offset : at - offset + take] if newer is None else newer[inside : inside + take])
            at += take
        return b"".join(pieces)


class _Ext4File(StoredFile):
    """One file's bytes up to *size*."""

    def __init__(self, reader: Ext4Reader, inode: Inode, size: int) -> None:
        super().__init__(size)
        self._reader = reader
        self._extents = reader.extents(inode)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        take = self._wanted(buffer)
        if take:
            buffer[:take] = self._reader.read_blocks(self._extents, self._at, take)
            self._at += take
        return take

    def readall(self) -> bytes:
        pieces = []
        while piece := self.read(_READ_AHEAD):
            pieces.append(piece)
        return b"".join(pieces)
