"""CRC-32C as ext4 and JBD2 use it: no final inversion, the seed handed in (RFC 3720 appendix B.4 gives the polynomial).

Python has no CRC-32C. One buffer is hashed a byte at a time; many of one length are hashed side by side, a position of
all of them with each step, which is as fast as the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_POLYNOMIAL = 0x82F63B78
SEED = 0xFFFFFFFF
"""What a chain of checksums begins with."""


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _table()
_PLANES = tuple(bytes(entry >> shift & 0xFF for entry in _TABLE) for shift in (0, 8, 16, 24))


def crc32c(data: bytes, seed: int = SEED) -> int:
    """Return the checksum of *data*, going on from *seed*."""
    crc = seed
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc


def crc32c_each(blocks: Sequence[bytes], seeds: Sequence[int]) -> list[int]:
    """Return the checksum of each of *blocks*, all of one length, going on from its own seed."""
    count = len(blocks)
    if not count:
        return []
    joined = b"".join(blocks)
    length = len(joined) // count
    planes = [int.from_bytes(bytes(seed >> shift & 0xFF for seed in seeds)) for shift in (0, 8, 16, 24)]
    for position in range(length):
        index = (planes[0] ^ int.from_bytes(joined[position::length])).to_bytes(count)
        low, second, third, high = (int.from_bytes(index.translate(plane)) for plane in _PLANES)
        planes = [planes[1] ^ low, planes[2] ^ second, planes[3] ^ third, high]
    columns = [plane.to_bytes(count) for plane in planes]
    return [int.from_bytes(bytes(column[item] for column in columns), "little") for item in range(count)]
