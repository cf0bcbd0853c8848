"""fs-verity digests of many small contents at once.

Most files of a system are a few blocks long: hashed by themselves they never fill the lanes of a hasher. Here they lie
in one buffer, each from the beginning of a block; their blocks, their trees' blocks and their descriptors are hashed
together. With hashlib it costs what hashing them one by one costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import hash_blocks
from cfs_storage_composefs.fsverity import BLOCK, DESCRIPTOR_SIZE, EMPTY_ROOT, descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfs_core.plugin import HashAlgorithm

ROOM = 2 << 20
"""Bytes of contents in a batch: enough to fill bursts of 128 blocks, and what processors keep in their caches."""


class DigestBatch:
    """Takes contents into `slot` and gives their digests when it is full or flushed. Memory: *room* bytes, once."""

    def __init__(self, algorithm: HashAlgorithm, room: int = ROOM) -> None:
        self._algorithm = algorithm
        self._view = memoryview(bytearray(room))
        self._filled = 0
        self._waiting: list[tuple[int, Callable[[bytes], None]]] = []

    def slot(self, size: int) -> memoryview:
        """Return room for *size* bytes, to be filled before `add`; gives the digests of what waits when it is needed.

        Raises:
            ValueError: more than the whole room.
        """
        if size > len(self._view):
            msg = f"{size} bytes do not fit into {len(self._view)}"
            raise ValueError(msg)
        if self._filled + size > len(self._view):
            self.flush()
        return self._view[self._filled : self._filled + size]

    def add(self, size: int, take: Callable[[bytes], None]) -> None:
        """Count the first *size* bytes of the last `slot` as a content; *take* is given its digest, later."""
        end = self._filled + size
        self._filled += -(-size // BLOCK) * BLOCK
        self._view[end : self._filled] = bytes(self._filled - end)
        self._waiting.append((size, take))

    def flush(self) -> None:
        """Give the digests of everything that waits."""
        algorithm = self._algorithm
        leaves = hash_blocks(self._view[: self._filled], algorithm)
        levels = []
        at = 0
        for size, _ in self._waiting:
            end = at + -(-size // BLOCK) * algorithm.size
            levels.append(leaves[at:end] or EMPTY_ROOT)
            at = end
        roots = self._roots(levels)
        descriptors = [descriptor(size, root, algorithm) for (size, _), root in zip(self._waiting, roots, strict=True)]
        digests = hash_blocks(b"".join(descriptors), algorithm, DESCRIPTOR_SIZE)
        waiting, self._waiting, self._filled = self._waiting, [], 0
        for number, (_, take) in enumerate(waiting):
            take(digests[number * algorithm.size : (number + 1) * algorithm.size])

    def _roots(self, levels: list[bytes]) -> list[bytes]:
        """Fold the hashes of each content until one is left."""
        width = self._algorithm.size
        while deep := [number for number, level in enumerate(levels) if len(level) > width and level is not EMPTY_ROOT]:
            padded = [levels[number].ljust(-(-len(levels[number]) // BLOCK) * BLOCK, b"\0") for number in deep]
            hashes = hash_blocks(b"".join(padded), self._algorithm)
            at = 0
            for number, level in zip(deep, padded, strict=True):
                levels[number] = hashes[at : at + len(level) // BLOCK * width]
                at += len(level) // BLOCK * width
        return levels
