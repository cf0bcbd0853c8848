"""Raw access to composefs EROFS images: header, inodes, attributes, directories, data; every offset is checked."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import FormatVersion, StorageError
from cfs_storage_composefs.erofs import layout
from cfs_storage_composefs.erofs.layout import BLOCK, INODES_START, SLOT
from cfs_storage_composefs.erofs.xattr import ENTRY, HEAD_SIZE, PREFIXES_V2

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator
    from typing import NoReturn

    from cfs_storage_composefs.erofs.xattr import Pair

_VERSIONS = {number: version for version, number in layout.COMPOSEFS_VERSIONS.items()}
_PREFIXES = {number: prefix for prefix, number in PREFIXES_V2} | {0: b""}
_LAYOUTS = {layout.FLAT_PLAIN, layout.FLAT_INLINE, layout.CHUNKED}
_U32 = struct.Struct("<I")


class DamagedImageError(StorageError):
    """An EROFS image is truncated, contradicts itself, or was not made by composefs."""

    code = "storage.damaged"


def damaged(message: str) -> NoReturn:
    """Raise what is wrong with an image.

    Raises:
        DamagedImageError: always.
    """
    msg = f"not an intact composefs image: {message}"
    raise DamagedImageError(msg, hint="remove the image and pull or build it again")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the first 1152 bytes of an image say."""

    version: FormatVersion
    flags: int
    root_nid: int
    inodes: int
    build_sec: int
    build_nsec: int
    blocks: int
    xattr_block: int


def read_header(data: bytes | mmap.mmap) -> ImageHeader:
    """Read composefs header and superblock.

    Raises:
        StorageError: not a composefs image, of an unknown version, or truncated.
    """
    if len(data) < INODES_START:
        damaged(f"{len(data)} bytes are too few")
    magic, one, flags, number = layout.HEADER.unpack_from(data, 0)
    if magic != layout.COMPOSEFS_MAGIC or one != 1:
        damaged("it does not start with a composefs header")
    version = _VERSIONS.get(number)
    if version is None:
        msg = f"composefs image of version {number}; versions 0, 1 and 2 are known"
        raise StorageError(msg, hint="use a newer cfs")
    fields = layout.SUPERBLOCK.unpack_from(data, 1024)
    erofs_magic, _, _, block_bits, _, root_nid, inodes, sec, nsec, blocks, meta_block, xattr_block, _, _, incompat = (
        fields
    )
    if erofs_magic != layout.EROFS_MAGIC or block_bits != 12 or meta_block or incompat:  # noqa: PLR2004 - 4096-byte blocks
        damaged("its EROFS superblock has features that composefs does not use")
    if blocks * BLOCK != len(data):
        damaged(f"it has {len(data)} bytes, its superblock says {blocks * BLOCK}")
    return ImageHeader(version, flags, root_nid, inodes, _signed(sec), nsec, blocks, xattr_block)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@dataclass(slots=True)
class Inode:
    """One inode as stored. ``start`` is the offset of its attributes, ``body`` of what follows them."""

    layout: int
    mode: int
    nlink: int
    size: int
    u: int
    uid: int
    gid: int
    mtime_sec: int
    mtime_nsec: int
    start: int
    body: int


class ErofsImage:
    """An image in memory, or mapped. Reading is linear in its size, whatever its bytes are."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self.header = read_header(data)
        self._size = len(data)
        self._shared: dict[int, Pair] = {}
        self._content_left = len(data)

    def inode(self, nid: int) -> Inode:
        """Read inode number *nid*.

        Raises:
            DamagedImageError: there is none.
        """
        offset = nid * SLOT
        if not INODES_START <= offset <= self._size - SLOT:
            damaged(f"inode {nid} is outside the image")
        form = self.data[offset]
        if form & 1:
            if offset > self._size - 64:
                damaged(f"inode {nid} is cut off")
            fields = layout.EXTENDED.unpack_from(self.data, offset)
            form, icount, mode, _, size, u, _, uid, gid, sec, nsec, nlink = fields
            start = offset + 64
        else:
            form, icount, mode, nlink, size, _, u, _, uid, gid, _ = layout.COMPACT.unpack_from(self.data, offset)
            sec, nsec = self.header.build_sec, self.header.build_nsec
            start = offset + 32
        data_layout = form & ~1
        if data_layout not in _LAYOUTS or nsec > 999_999_999 or size >> 63:  # noqa: PLR2004 - nanoseconds
            damaged(f"inode {nid} has impossible values")
        body = start + (HEAD_SIZE + 4 * (icount - 1) if icount else 0)
        if body > self._size:
            damaged(f"the attributes of inode {nid} are cut off")
        return Inode(data_layout, mode, nlink, size, u, uid, gid, sec, nsec, start, body)

    def xattrs(self, inode: Inode) -> list[Pair]:
        """Return the attributes of *inode* with their full names, in stored order.

        Raises:
            DamagedImageError: they overlap or leave the image.
        """
        if inode.start == inode.body:
            return []
        count = self.data[inode.start + 4]
        at = inode.start + HEAD_SIZE
        end_of_refs = at + 4 * count
        if end_of_refs > inode.body:
            damaged("an inode refers to more shared attributes than it has room for")
        base = self.header.xattr_block * BLOCK
        shared = self._shared
        pairs = []
        for (reference,) in _U32.iter_unpack(self.data[at:end_of_refs]):
            pair = shared.get(reference)
            if pair is None:
                pair, _ = self._entry(base + 4 * reference, self._size)
                shared[reference] = pair
            pairs.append(pair)
        at = end_of_refs
        while at < inode.body:
            pair, at = self._entry(at, inode.body)
            pairs.append(pair)
        return pairs

    def _entry(self, at: int, end: int) -> tuple[Pair, int]:
        if at + 4 > end:
            damaged("an extended attribute is outside its place")
        name_length, number, value_length = ENTRY.unpack_from(self.data, at)
        prefix = _PREFIXES.get(number)
        value_at = at + 4 + name_length
        stop = value_at + value_length
        if prefix is None or stop > end:
            damaged("an extended attribute is malformed")
        return (prefix + self.data[at + 4 : value_at], self.data[value_at:stop]), stop + (-stop & 3)

    def content(self, inode: Inode) -> bytes:
        """Return the bytes of a file, link or directory that is stored in the image.

        Raises:
            DamagedImageError: they are outside, or all contents together are larger than the image.
        """
        size = inode.size
        self._content_left -= size
        if self._content_left < 0:
            damaged("its contents overlap")
        tail_size = size % BLOCK if inode.layout == layout.FLAT_INLINE else 0
        head_size = size - tail_size
        head = b""
        if head_size:
            at = inode.u * BLOCK
            if at < BLOCK or at + head_size > self._size:
                damaged("a file's blocks are outside the image")
            head = self.data[at : at + head_size]
        if not tail_size:
            return head
        if inode.body + tail_size > self._size:
            damaged("a file's content is cut off")
        return head + self.data[inode.body : inode.body + tail_size]

    def entries(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """Yield name and inode number of each entry of a directory, ``.`` and ``..`` left out.

        Raises:
            DamagedImageError: malformed.
        """
        content = self.content(inode)
        for start in range(0, len(content), BLOCK):
            yield from _directory_block(content[start : start + BLOCK])


def _directory_block(block: bytes) -> Iterator[tuple[bytes, int]]:
    if len(block) < 12:  # noqa: PLR2004 - one entry
        damaged("a directory block is too short")
    first = int.from_bytes(block[8:10], "little")
    if first % 12 or not 12 <= first <= len(block):  # noqa: PLR2004 - as above
        damaged("a directory block is malformed")
    entries = list(layout.DIRENT.iter_unpack(block[:first]))
    ends = [offset for _, offset, _, _ in entries[1:]]
    ends.append(len(block))
    for (nid, offset, _, _), end in zip(entries, ends, strict=True):
        if not first <= offset < end <= len(block):
            damaged("a directory's names are out of order")
        name = block[offset:end]
        if end == len(block):
            name = name.rstrip(b"\0")
        if name in {b".", b".."}:
            continue
        if not name or b"/" in name or b"\0" in name or len(name) > layout.NAME_MAX:
            damaged(f"an entry is named {name[:300]!r}")
        yield name, nid
