"""On-disk structures of composefs EROFS images: constants, headers, directory blocks (kernel: fs/erofs/erofs_fs.h)."""

from __future__ import annotations

import struct
from itertools import accumulate, repeat
from typing import TYPE_CHECKING

from cfs_core.plugin import FormatVersion, SpecialKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.plugin import Node

BLOCK = 4096
SLOT = 32
# EROFS leaves the first 1024 bytes to boot code; composefs puts its own header there.
INODES_START = 1024 + 128
"""First byte behind the superblock."""

COMPOSEFS_MAGIC = 0xD078629A
EROFS_MAGIC = 0xE0F5E1E2
FEATURES = 6  # MTIME | XATTR_FILTER
FLAG_HAS_ACL = 1

HEADER = struct.Struct("<IIII16x")
"""composefs header: magic, 1, flags, composefs version."""
SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sI44x")
"""magic, checksum, compat, block bits, 0, root nid, inodes, build time s and ns, blocks, meta and xattr block, uuid,
name, incompat."""
COMPACT = struct.Struct("<HHHHIIIIHHI")
EXTENDED = struct.Struct("<HHHHQIIIIqII16x")
DIRENT = struct.Struct("<QHBB")

S_IFMT = 0o170000
S_IFIFO = 0o010000
S_IFCHR = 0o020000
S_IFDIR = 0o040000
S_IFBLK = 0o060000
S_IFREG = 0o100000
S_IFLNK = 0o120000
S_IFSOCK = 0o140000

FLAT_PLAIN, FLAT_INLINE, CHUNKED = 0, 4, 8
"""Data layouts, already shifted into place in i_format; add 1 for an extended inode."""

FT_REGULAR, FT_DIRECTORY, FT_CHAR, FT_BLOCK, FT_FIFO, FT_SOCKET, FT_SYMLINK = range(1, 8)

SPECIAL_MODES = {
    SpecialKind.CHAR: S_IFCHR,
    SpecialKind.BLOCK: S_IFBLK,
    SpecialKind.FIFO: S_IFIFO,
    SpecialKind.SOCKET: S_IFSOCK,
}
SPECIAL_TYPES = {
    SpecialKind.CHAR: FT_CHAR,
    SpecialKind.BLOCK: FT_BLOCK,
    SpecialKind.FIFO: FT_FIFO,
    SpecialKind.SOCKET: FT_SOCKET,
}

NULL_CHUNK = b"\xff\xff\xff\xff"
# i_u has five bits for the chunk size, in blocks of 4096 bytes: 2^31 of them is the largest chunk.
CHUNK_BITS_MAX = 12 + 31
# The bound of mkcomposefs. With chunks of 8 TiB it is past every file there is.
CHUNKS_MAX = 1024
NAME_MAX = 255
XATTR_VALUE_MAX = 65535
SYMLINK_MAX = 4095

COMPOSEFS_VERSIONS = {FormatVersion.V0: 0, FormatVersion.V1: 1, FormatVersion.V2: 2}


def front(
    version: FormatVersion,
    *,
    flags: int,
    root_nid: int,
    inodes: int,
    build_time: tuple[int, int],
    blocks: int,
    xattr_block: int,
) -> bytes:
    """Return the first 1152 bytes: composefs header, zeros, superblock."""
    header = HEADER.pack(COMPOSEFS_MAGIC, 1, flags, COMPOSEFS_VERSIONS[version])
    seconds = build_time[0] & 0xFFFFFFFFFFFFFFFF
    superblock = SUPERBLOCK.pack(
        EROFS_MAGIC, 0, FEATURES, 12, 0, root_nid, inodes, seconds, build_time[1], blocks, 0, xattr_block, b"", b"", 0
    )
    return header.ljust(1024, b"\0") + superblock


def chunk_bits(size: int) -> int:
    """Return log2 of the chunk size that V0 and V1 use for a file of *size* > 0 bytes."""
    return min(max((size - 1).bit_length(), 12), CHUNK_BITS_MAX)


Listing = list[tuple[bytes, "Node"]]
"""A directory's entries in byte order, ``.`` and ``..`` included."""


def split_listing(listing: Listing) -> tuple[list[Listing], Listing, int]:
    """Divide a directory into full blocks and an inline tail.

    Returns:
        The blocks, the tail (empty if the last group became a block), and the tail's size in bytes.
    """
    total = 12 * len(listing) + sum([len(name) for name, _ in listing])
    # Both other writers keep a tail beside its inode up to half a block; a longer one becomes a block of its own. No
    # kernel asks for that, but the digest of every image depends on it.
    if total <= BLOCK // 2:
        return [], listing, total
    blocks: list[Listing] = []
    group: Listing = []
    size = 0
    for entry in listing:
        cost = 12 + len(entry[0])
        if size + cost > BLOCK:
            blocks.append(group)
            group = []
            size = 0
        group.append(entry)
        size += cost
    if size > BLOCK // 2:
        blocks.append(group)
        return blocks, [], 0
    return blocks, group, size


def encode_listing(entries: Listing, nids: Mapping[Node, int], types: Mapping[Node, int]) -> bytes:
    """Return one directory block or tail, not padded. *nids* and *types* have number and file type of each node."""
    names = [name for name, _ in entries]
    nodes = [node for _, node in entries]
    offsets = accumulate(map(len, names), initial=12 * len(names))
    heads = map(DIRENT.pack, map(nids.__getitem__, nodes), offsets, map(types.__getitem__, nodes), repeat(0))
    return b"".join([*heads, *names])
