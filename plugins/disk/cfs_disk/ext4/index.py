"""The blocks of an indexed directory: leaves with names in the order of their hashes, and the tree that finds them.

On disk: Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories". All checksums are CRC-32C.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import DiskError
from cfs_disk.ext4.crc32c import crc32c, crc32c_each
from cfs_disk.ext4.name_hash import HALF_MD4, name_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BLOCK = 4096
_TAIL = struct.Struct("<IHBBI")
_TAIL_KIND = 0xDE
_ROOT_HEAD = 32
_NODE_HEAD = 8
_ENTRY = struct.Struct("<II")
_ROOT_ENTRIES = (BLOCK - _ROOT_HEAD - 8) // 8
_NODE_ENTRIES = (BLOCK - _NODE_HEAD - 8) // 8
FILLED = (BLOCK - _TAIL.size) * 3 // 4
"""How much of a leaf is used: the next names go into the room that is left, without splitting it."""

LARGEST_ENTRY = 8 + 256
"""Bytes, of a name of 255."""

_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Leaf:
    """Names of one block; ``hash`` is that of the first, odd if the leaf before ends with the same."""

    hash: int
    names: tuple[bytes, ...]


def arrange(names: Sequence[bytes], seed: tuple[int, int, int, int]) -> tuple[Leaf, ...]:
    """Distribute *names* to leaves, by hash.

    Raises:
        DiskError: more names than an index of two levels finds.
    """
    hashed = sorted((name_hash(name, seed), name) for name in names)
    leaves: list[Leaf] = []
    current: list[bytes] = []
    first, last, used = 0, -1, 0
    for value, name in hashed:
        size = entry_size(name)
        if current and used + size > FILLED:
            leaves.append(Leaf(first, tuple(current)))
            current, used = [], 0
            first = value | (value == last)
        current.append(name)
        used += size
        last = value
    leaves.append(Leaf(first, tuple(current)))
    if len(leaves) > _ROOT_ENTRIES * _NODE_ENTRIES:
        msg = f"a directory has {len(names)} names, more than an ext4 without large_dir finds"
        raise DiskError(msg, hint="put them into several directories")
    return tuple(leaves)


def entry_size(name: bytes) -> int:
    """Return the bytes that *name* takes in a directory."""
    return 8 + -(-len(name) // 4) * 4


def nodes_of(leaves: int) -> int:
    """Return how many nodes stand between the root and so many leaves."""
    return 0 if leaves <= _ROOT_ENTRIES else -(-leaves // _NODE_ENTRIES)


def block_count(leaves: Sequence[Leaf]) -> int:
    """Return how many blocks the directory has: root, nodes, leaves."""
    return 1 + nodes_of(len(leaves)) + len(leaves)


@dataclass(frozen=True, slots=True)
class DirectoryNumbers:
    """What the blocks of a directory name and are sealed with; ``children`` are (inode, file type) by name."""

    number: int
    parent: int
    seed: int
    children: Mapping[bytes, tuple[int, int]]


def checksum_seed(filesystem: bytes, number: int, generation: int) -> int:
    """Return what the checksums of an inode's blocks start with; *filesystem* is the superblock's UUID."""
    return crc32c(struct.pack("<II", number, generation), crc32c(filesystem))


def blocks(leaves: Sequence[Leaf], numbers: DirectoryNumbers) -> Iterator[bytes]:
    """Yield the directory's blocks in order."""
    nodes = nodes_of(len(leaves))
    found = [(leaf.hash, 1 + nodes + index) for index, leaf in enumerate(leaves)]
    groups = [found[start : start + _NODE_ENTRIES] for start in range(0, len(found), _NODE_ENTRIES)] if nodes else []
    top = [(group[0][0], 1 + index) for index, group in enumerate(groups)] or found
    head = struct.pack("<IHBB4s", numbers.number, 12, 1, 2, b".")
    head += struct.pack("<IHBB4s", numbers.parent, BLOCK - 12, 2, 2, b"..")
    head += struct.pack("<IBBBB", 0, HALF_MD4, 8, 1 if nodes else 0, 0)
    yield _tree_block(head, top, _ROOT_ENTRIES, numbers.seed)
    for group in groups:
        yield _tree_block(struct.pack("<IHBB", 0, BLOCK, 0, 0), group, _NODE_ENTRIES, numbers.seed)
    for start in range(0, len(leaves), _BATCH):
        yield from _leaf_blocks(leaves[start : start + _BATCH], numbers)


def _tree_block(head: bytes, entries: Sequence[tuple[int, int]], limit: int, seed: int) -> bytes:
    # The first entry has no hash: its place holds limit and count.
    used = head + struct.pack("<HHI", limit, len(entries), entries[0][1])
    used += b"".join(_ENTRY.pack(*entry) for entry in entries[1:])
    checksum = crc32c(used + bytes(8), seed)
    return used.ljust(BLOCK - 8, b"\0") + struct.pack("<II", 0, checksum)


def _leaf_blocks(leaves: Sequence[Leaf], numbers: DirectoryNumbers) -> Iterator[bytes]:
    bodies = [_leaf(leaf, numbers.children) for leaf in leaves]
    for body, checksum in zip(bodies, crc32c_each(bodies, [numbers.seed] * len(bodies)), strict=True):
        yield body + _TAIL.pack(0, _TAIL.size, 0, _TAIL_KIND, checksum)


def _leaf(leaf: Leaf, children: Mapping[bytes, tuple[int, int]]) -> bytes:
    pieces = []
    left = BLOCK - _TAIL.size
    for index, name in enumerate(leaf.names):
        number, kind = children[name]
        size = entry_size(name) if index < len(leaf.names) - 1 else left
        pieces.append(struct.pack("<IHBB", number, size, len(name), kind) + name.ljust(size - 8, b"\0"))
        left -= size
    return b"".join(pieces)


def with_parents(firsts: Sequence[bytes], parent: int, seeds: Sequence[int]) -> list[bytes]:
    """Return the first blocks of directories, plain ones, with another parent and the checksums that go with it.

    Raises:
        DiskError: one is no such block.
    """
    bodies = []
    for block in firsts:
        if block[20:22] != b".." or _TAIL.unpack(block[-_TAIL.size :])[:4] != (0, _TAIL.size, 0, _TAIL_KIND):
            msg = "mkfs.ext4 made a directory that does not start with its parent"
            raise DiskError(msg, hint="install e2fsprogs 1.47.1 or newer")
        bodies.append(block[:12] + parent.to_bytes(4, "little") + block[16 : -_TAIL.size])
    sums = crc32c_each(bodies, seeds)
    return [
        body + _TAIL.pack(0, _TAIL.size, 0, _TAIL_KIND, checksum) for body, checksum in zip(bodies, sums, strict=True)
    ]


def with_kinds(block: bytes, kinds: Mapping[bytes, int], seed: int) -> bytes:
    """Return a block of plain entries with other file types for the names in *kinds*; the same block if it has none."""
    changed = bytearray(block)
    at = 0
    while at < BLOCK - _TAIL.size:
        number, size, length = struct.unpack_from("<IHB", block, at)
        kind = kinds.get(block[at + 8 : at + 8 + length]) if number else None
        if kind is not None:
            changed[at + 7] = kind
        at += max(size, 8)
    if changed != block:
        changed[-4:] = crc32c(bytes(changed[: -_TAIL.size]), seed).to_bytes(4, "little")
    return bytes(changed)
