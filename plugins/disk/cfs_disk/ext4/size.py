"""How large an ext4 must be for given contents."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from cfs_disk.ext4.placement import BLOCK, allocated_bytes
from cfs_disk.ext4.wide import WIDE, wide_blocks

if TYPE_CHECKING:
    from cfs_disk.ext4.nodes import Ext4Contents, Ext4Node

_MIB = 1024 * 1024
_LEAST_BYTES = 16 * _MIB
"""Smaller ones have no room for a journal."""

_INODE_BYTES = 256
_INODE_RATIO = 16384
LARGEST = 60 << 40
"""Bytes: inodes are counted in 32 bits, and with one for 16 KiB (and whole groups of them) they end before 64 TiB."""

# 256 bytes of inode less 128, 32 of extra fields and 4 of a magic; what is longer takes a block (fs/ext4/xattr.h).
_INLINE_XATTR_BYTES = 92
# A shorter target lies in the inode itself, in i_block (fs/ext4/ext4.h).
_FAST_SYMLINK = 60
_DIRECTORY_FILL = BLOCK - 12 - 263
"""What of a directory block is surely used: all but its checksum and the space too small for the longest name."""

_GROUP_BLOCKS = 32768


def journal_mib(region_size: int) -> int:
    """Return the journal's size: what mkfs would take for these sizes, and not more than 64 MiB."""
    for limit, size in ((128, 4), (1024, 16)):
        if region_size < limit * _MIB:
            return size
    return 64


def inode_count(contents: Ext4Contents, region_size: int) -> int:
    """Return how many inodes to make: one for 16 KiB as mkfs does, and never fewer than needed."""
    return max(contents.inode_count + contents.inode_count // 10, region_size // _INODE_RATIO)


def estimate(contents: Ext4Contents) -> int:
    """Return bytes that surely suffice, in whole MiB."""
    names: dict[bytes, tuple[int, int]] = {}
    blocks = 0
    for node in contents.nodes:
        blocks += _node_blocks(node)
        _count_name(names, node.path)
    for name, _ in contents.links:
        _count_name(names, name)
    blocks += sum(
        wide_blocks(count, size) if count > WIDE else size // _DIRECTORY_FILL for count, size in names.values()
    )
    size = blocks * BLOCK
    # Bitmaps, tables and reserved descriptors grow with the size they are part of; three rounds settle it.
    total = size
    for _ in range(3):
        total = size + _overhead(contents, total)
    return max(_LEAST_BYTES, -(-total // _MIB) * _MIB)


def _node_blocks(node: Ext4Node) -> int:
    blocks = 0
    if node.content is not None:
        stored = allocated_bytes(node.content.size, node.verity) // BLOCK
        # Files in more than four extents need blocks for the tree; zero blocks become holes and split extents.
        blocks += stored + stored // 1000 + (1 if stored > _GROUP_BLOCKS // 2 else 0)
    elif node.is_directory or (stat.S_ISLNK(node.mode) and len(node.target) >= _FAST_SYMLINK):
        blocks += 1
    xattr_bytes = sum(20 + len(name) + -(-len(value) // 4) * 4 for name, value in node.xattrs.items())
    if xattr_bytes > _INLINE_XATTR_BYTES:
        blocks += 1
    return blocks


def _count_name(names: dict[bytes, tuple[int, int]], path: bytes) -> None:
    parent, _, name = path.rpartition(b"/")
    count, size = names.get(parent, (0, 24))
    names[parent] = count + 1, size + 8 + -(-len(name) // 4) * 4


def _overhead(contents: Ext4Contents, total: int) -> int:
    groups = -(-total // (_GROUP_BLOCKS * BLOCK)) + 1
    inodes = inode_count(contents, total) * _INODE_BYTES + groups * BLOCK
    bitmaps = groups * 2 * BLOCK
    # Superblock and descriptors, with room for a filesystem 1024 times as large, in these groups (sparse_super).
    powers: set[int] = {int(base**power) for base in (3, 5, 7) for power in range(12)}
    copies = 1 + len([group for group in powers if group < groups])
    descriptors = copies * (2 + -(-groups * 64 // BLOCK) + min(1024, groups * 1024 * 64 // BLOCK)) * BLOCK
    return inodes + bitmaps + descriptors + journal_mib(total) * _MIB + 2 * _MIB
