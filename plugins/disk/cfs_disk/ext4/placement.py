"""fs-verity metadata as ext4 keeps it behind a file's end: made while streaming, and read back (fs/ext4/verity.c)."""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from cfs_core.plugin import HashAlgorithm, hash_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 4096
"""Verity block size and filesystem block size; cfs uses no other."""

# Whatever the block size, so that no page of any kernel holds both content and metadata (fs/ext4/verity.c).
METADATA_ALIGNMENT = 65536
DESCRIPTOR_SIZE = 256
_DESCRIPTOR = struct.Struct("<BBBBIQ64s32s144s")
_KERNEL_NUMBER = {HashAlgorithm.SHA256: 1, HashAlgorithm.SHA512: 2}
_SPOOL_BYTES = 4 * 1024 * 1024


def round_up(value: int, step: int) -> int:
    """Round *value* up to a multiple of *step*."""
    return -(-value // step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the metadata of a file of ``size`` bytes lies; offsets in the file, everything in bytes.

    ``levels`` are the Merkle tree's levels as (offset, blocks), the leaves' hashes first. The kernel finds the
    descriptor through its size, stored in the last four bytes before ``end``, and ``end`` through the last extent.
    """

    size: int
    algorithm: HashAlgorithm
    start: int
    levels: tuple[tuple[int, int], ...]
    descriptor: int
    end: int


def placement(size: int, algorithm: HashAlgorithm) -> Placement:
    """Lay out the metadata: levels from the root down, each in whole blocks, then the descriptor."""
    per_block = BLOCK // algorithm.size
    blocks = -(-size // BLOCK)
    counts: list[int] = []
    while blocks > 1:
        blocks = -(-blocks // per_block)
        counts.append(blocks)
    start = round_up(size, METADATA_ALIGNMENT)
    offset = start
    levels: list[tuple[int, int]] = []
    for count in reversed(counts):
        levels.append((offset, count))
        offset += count * BLOCK
    return Placement(
        size=size,
        algorithm=algorithm,
        start=start,
        levels=tuple(reversed(levels)),
        descriptor=offset,
        end=round_up(offset + DESCRIPTOR_SIZE + 4, BLOCK),
    )


def allocated_bytes(size: int, algorithm: HashAlgorithm | None) -> int:
    """Return how many bytes of blocks a file occupies, its verity metadata included."""
    data = round_up(size, BLOCK)
    if algorithm is None:
        return data
    where = placement(size, algorithm)
    return data + where.end - where.start


def pack_descriptor(size: int, root_hash: bytes, algorithm: HashAlgorithm) -> bytes:
    """Return the 256 bytes whose hash is the file's fs-verity digest (Documentation/filesystems/fsverity.rst)."""
    return _DESCRIPTOR.pack(1, _KERNEL_NUMBER[algorithm], BLOCK.bit_length() - 1, 0, 0, size, root_hash, b"", b"")


def parse_descriptor(raw: bytes) -> tuple[HashAlgorithm, int, bytes]:
    """Return algorithm, file size and root hash.

    Raises:
        ValueError: not a descriptor, or one with salt, signature or block size that cfs never writes.
    """
    version, number, log_block, salt_size, signature_size, size, root_hash, _salt, _reserved = _DESCRIPTOR.unpack(raw)
    known = {value: key for key, value in _KERNEL_NUMBER.items()}
    if version != 1 or number not in known or 1 << min(log_block, 63) != BLOCK or salt_size or signature_size:
        msg = (
            f"version {version}, algorithm {number}, block size 2^{log_block}, "
            f"{salt_size} bytes of salt, {signature_size} bytes of signature"
        )
        raise ValueError(msg)
    algorithm = known[number]
    return algorithm, size, root_hash[: algorithm.size]


class MerkleTree:
    """Hashes the data passed to `update`, then gives the metadata. Memory stays flat: hashes spill into *scratch*."""

    def __init__(self, algorithm: HashAlgorithm, scratch: Path | None = None) -> None:
        self.algorithm = algorithm
        self._size = 0
        self._rest = b""
        self._leaves = 0
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by __exit__
            _SPOOL_BYTES, dir=None if scratch is None else str(scratch)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def update(self, data: bytes) -> None:
        """Hash the next bytes of the file."""
        self._size += len(data)
        if self._rest:
            data = self._rest + data
        whole = len(data) - len(data) % BLOCK
        view = memoryview(data)
        self._rest = bytes(view[whole:])
        self._add(view[:whole])

    def _add(self, view: memoryview) -> None:
        self._leaves += len(view) // BLOCK
        self._spool.write(hash_blocks(view, self.algorithm))

    def _end_data(self) -> None:
        if self._rest:
            self._add(memoryview(self._rest.ljust(BLOCK, b"\0")))
            self._rest = b""

    def metadata(self) -> tuple[bytes, Iterator[bytes]]:
        """Return the fs-verity digest, and the bytes from `Placement.start` to `Placement.end` in pieces."""
        self._end_data()
        upper: list[bytes] = []
        if self._leaves == 0:
            root_hash = bytes(self.algorithm.size)
        elif self._leaves == 1:
            self._spool.seek(0)
            root_hash = self._spool.read()
        else:
            hashes = b"".join(hash_blocks(block, self.algorithm) for block in self.leaf_blocks())
            while len(hashes) > self.algorithm.size:
                level = hashes.ljust(round_up(len(hashes), BLOCK), b"\0")
                upper.append(level)
                hashes = hash_blocks(level, self.algorithm)
            root_hash = hashes
        descriptor = pack_descriptor(self._size, root_hash, self.algorithm)
        return hash_blocks(descriptor, self.algorithm, len(descriptor)), self._pieces(upper, descriptor)

    def leaf_blocks(self) -> Iterator[bytes]:
        """End the data; yield the lowest level of the tree, hashes of data blocks in blocks of 4096 bytes."""
        self._end_data()
        self._spool.seek(0)
        while block := self._spool.read(BLOCK):
            yield block.ljust(BLOCK, b"\0")

    def _pieces(self, upper: list[bytes], descriptor: bytes) -> Iterator[bytes]:
        yield from reversed(upper)
        if self._leaves > 1:
            yield from self.leaf_blocks()
        tail = round_up(DESCRIPTOR_SIZE + 4, BLOCK)
        yield descriptor.ljust(tail - 4, b"\0") + DESCRIPTOR_SIZE.to_bytes(4, "little")
