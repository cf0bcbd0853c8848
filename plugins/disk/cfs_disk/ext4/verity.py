"""Reads and checks fs-verity metadata that ext4 keeps behind a file's end."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NoReturn, Protocol

from cfs_core.plugin import Finding, HashAlgorithm
from cfs_disk.ext4.inode import FLAG_VERITY
from cfs_disk.ext4.placement import (
    BLOCK,
    DESCRIPTOR_SIZE,
    METADATA_ALIGNMENT,
    MerkleTree,
    pack_descriptor,
    parse_descriptor,
    placement,
    round_up,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_disk.ext4.inode import Extent, Inode, Superblock

_CHUNK = 1 << 20
_MOST_NAMED = 8


class Volume(Protocol):
    """What is needed of the filesystem that the metadata is in."""

    superblock: Superblock

    def extents(self, inode: Inode) -> list[Extent]:
        """Return an inode's extents in ascending order."""

    def read_blocks(self, extents: list[Extent], offset: int, size: int) -> bytes:
        """Read at *offset* of a file mapped by *extents*."""

    def fail(self, message: str, *, hint: str = ...) -> NoReturn:
        """Raise a DiskError."""


def _stored_descriptor(volume: Volume, inode: Inode, extents: list[Extent], path: str) -> tuple[int, bytes]:
    """Return position and bytes of the descriptor, found the way the kernel does: from the end of the last extent."""
    block_size = volume.superblock.block_size
    end = (extents[-1][0] + extents[-1][1]) * block_size if extents else 0
    if end < round_up(inode.size, METADATA_ALIGNMENT) + BLOCK:
        volume.fail(f"{path} has fs-verity on, and no metadata behind its end")
    size = int.from_bytes(volume.read_blocks(extents, end - 4, 4), "little")
    position = (end - 4 - size) // block_size * block_size
    if size != DESCRIPTOR_SIZE or position < round_up(inode.size, METADATA_ALIGNMENT):
        volume.fail(f"{path} has a damaged fs-verity descriptor size ({size})")
    return position, volume.read_blocks(extents, position, size)


def _parsed(volume: Volume, raw: bytes, inode: Inode, path: str) -> tuple[HashAlgorithm, bytes]:
    try:
        algorithm, size, root_hash = parse_descriptor(raw)
    except ValueError as error:
        volume.fail(f"{path} has an fs-verity descriptor that cfs does not know: {error}")
    where = placement(inode.size, algorithm)
    if where.end - where.start > volume.superblock.blocks * volume.superblock.block_size:
        volume.fail(f"{path} claims to be {inode.size} bytes long, and its Merkle tree would not fit the filesystem")
    if size != inode.size:
        volume.fail(f"{path} is {inode.size} bytes long, and its fs-verity descriptor says {size}")
    return algorithm, root_hash


def stored_digest(volume: Volume, inode: Inode, path: str) -> str | None:
    """Return ``algorithm:hex`` as FS_IOC_MEASURE_VERITY would; None where verity is off.

    Raises:
        DiskError: verity is on and its descriptor is damaged.
    """
    if not inode.flags & FLAG_VERITY:
        return None
    _, raw = _stored_descriptor(volume, inode, volume.extents(inode), path)
    algorithm, _ = _parsed(volume, raw, inode, path)
    return f"{algorithm.value}:{hashlib.new(algorithm.value, raw).hexdigest()}"


def verify(volume: Volume, inode: Inode, path: str) -> list[Finding]:
    """Compare data, stored Merkle tree and descriptor of one file; the last data block counts to its very end.

    Raises:
        DiskError: the descriptor cannot be found or read.
    """
    if not inode.flags & FLAG_VERITY:
        return [Finding.error("verity.off", "fs-verity is not enabled", where=path)]
    problems = verify_tree(volume, inode, path)
    extents = volume.extents(inode)
    _, raw = _stored_descriptor(volume, inode, extents, path)
    algorithm, root_hash = _parsed(volume, raw, inode, path)
    where = placement(inode.size, algorithm)
    with MerkleTree(algorithm) as tree:
        for at in range(0, inode.size, _CHUNK):
            tree.update(volume.read_blocks(extents, at, min(_CHUNK, inode.size - at)))
        for number, expected in enumerate(tree.leaf_blocks()):
            if where.levels:
                found = volume.read_blocks(extents, where.levels[0][0] + number * BLOCK, BLOCK)
            else:
                found = root_hash.ljust(BLOCK, b"\0")
            if found != expected:
                problems += _leaf_problems(path, number, expected, found, algorithm)
    return problems[:_MOST_NAMED]


def verify_tree(volume: Volume, inode: Inode, path: str) -> list[Finding]:
    """Check the stored Merkle tree up to the descriptor, without reading the data (a 64th or less of `verify`'s work).

    Raises:
        DiskError: the descriptor cannot be found or read.
    """
    extents = volume.extents(inode)
    position, raw = _stored_descriptor(volume, inode, extents, path)
    algorithm, root_hash = _parsed(volume, raw, inode, path)
    where = placement(inode.size, algorithm)
    problems: list[Finding] = []
    tail = pack_descriptor(inode.size, root_hash, algorithm).ljust(where.end - where.descriptor - 4, b"\0")
    tail += DESCRIPTOR_SIZE.to_bytes(4, "little")
    if position != where.descriptor or volume.read_blocks(extents, position, len(tail)) != tail:
        message = "the block of the fs-verity descriptor is not as it should be"
        problems.append(Finding.error("verity.descriptor", message, where=path))
    if any(volume.read_blocks(extents, inode.size, -inode.size % BLOCK)):
        problems.append(Finding.error("verity.data", "bytes behind the end of the file", where=path))
    expected = iter([root_hash])
    for offset, blocks in reversed(where.levels):
        hashes = expected
        expected = _hashes(volume, extents, offset, blocks, algorithm)
        for number in range(blocks):
            block = volume.read_blocks(extents, offset + number * BLOCK, BLOCK)
            if hashlib.new(algorithm.value, block).digest() != next(hashes, b""):
                message = f"the stored Merkle tree is damaged at byte {offset + number * BLOCK}"
                problems.append(Finding.error("verity.tree", message, where=path))
    return problems[:_MOST_NAMED]


def _hashes(
    volume: Volume, extents: list[Extent], offset: int, blocks: int, algorithm: HashAlgorithm
) -> Iterator[bytes]:
    for number in range(blocks):
        block = volume.read_blocks(extents, offset + number * BLOCK, BLOCK)
        for at in range(0, BLOCK, algorithm.size):
            yield block[at : at + algorithm.size]


def _leaf_problems(path: str, block: int, expected: bytes, found: bytes, algorithm: HashAlgorithm) -> list[Finding]:
    step = algorithm.size
    first = block * (BLOCK // step)
    numbers = [first + at // step for at in range(0, BLOCK, step) if expected[at : at + step] != found[at : at + step]]
    message = "data and stored hash differ in block " + ", ".join(map(str, numbers[:_MOST_NAMED]))
    return [Finding.error("verity.data", message, where=path)]
