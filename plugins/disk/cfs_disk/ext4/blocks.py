"""What lists of extents and blocks of directories say."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_disk.ext4.inode import Extent


def first_extent(extents: list[Extent], block: int) -> int:
    """Return the index of the first extent that ends behind logical block *block*."""
    low, high = 0, len(extents)
    while low < high:
        middle = (low + high) // 2
        if extents[middle][0] + extents[middle][1] <= block:
            low = middle + 1
        else:
            high = middle
    return low


def block_entries(block: bytes) -> Iterator[tuple[bytes | None, int]]:
    """Yield entries of one directory block; a None name stands for damage. Hash tree nodes look like empty entries."""
    at = 0
    while at < len(block):
        if at + 8 > len(block):
            yield None, 0
            return
        number, length, name_length = struct.unpack_from("<IHB", block, at)
        if length == 0 and len(block) == 65536:  # noqa: PLR2004 - ext4 writes 65536 as 0
            length = len(block)
        if length < 8 or length % 4 or at + length > len(block) or 8 + name_length > length:  # noqa: PLR2004 - entry head
            yield None, 0
            return
        if number:
            yield block[at + 8 : at + 8 + name_length] or None, number
        at += length
