"""The contract of hashers: for any number of blocks, anywhere in memory, in any thread, what hashlib says."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cfs_core.plugin import HashAlgorithm
from cfs_core.testing import families
from cfs_testkit.compare import difference
from cfs_testkit.contracts.base import Contract

if TYPE_CHECKING:
    from cfs_core.plugin import BlockHasher

BLOCK = 4096
THREADS = 4


def expected(data: bytes | memoryview, size: int, algorithm: HashAlgorithm) -> bytes:
    """Hash block by block with hashlib."""
    return b"".join(hashlib.new(algorithm.value, data[at : at + size]).digest() for at in range(0, len(data), size))


def noise(size: int, seed: int) -> bytes:
    """Return *size* bytes that no two blocks share."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - reproducible, not secret


class HasherContract(Contract):
    """What a hasher must do. Nothing to give."""

    family = families.HASHERS

    @pytest.mark.parametrize("algorithm", HashAlgorithm)
    # One, a few, around 8 and 16 lanes, around powers of two, and the borders of the tree's levels: 64 and 128 hashes.
    @pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000])
    def test_hashes_as_hashlib(self, made: BlockHasher, algorithm: HashAlgorithm, count: int) -> None:
        """Any number of blocks gives their digests, in order, one behind the other."""
        data = noise(count * BLOCK, count)
        assert (
            difference(made.hash_blocks(memoryview(data), BLOCK, algorithm), expected(data, BLOCK, algorithm)) is None
        )

    @pytest.mark.parametrize("algorithm", HashAlgorithm)
    @pytest.mark.parametrize("size", [64, 128, 256, 1024, 2048])
    def test_any_size_of_blocks(self, made: BlockHasher, algorithm: HashAlgorithm, size: int) -> None:
        """Descriptors are blocks of 256 bytes; sizes may change from call to call."""
        for given in (BLOCK, size, BLOCK):
            data = noise(21 * given, given)
            assert (
                difference(made.hash_blocks(memoryview(data), given, algorithm), expected(data, given, algorithm))
                is None
            )

    @pytest.mark.parametrize("algorithm", HashAlgorithm)
    def test_nothing_is_nothing(self, made: BlockHasher, algorithm: HashAlgorithm) -> None:
        """No blocks have no digests."""
        assert made.hash_blocks(memoryview(b""), BLOCK, algorithm) == b""

    @pytest.mark.parametrize("algorithm", HashAlgorithm)
    @pytest.mark.parametrize("shift", [1, 3, 8, 33])
    def test_any_address(self, made: BlockHasher, algorithm: HashAlgorithm, shift: int) -> None:
        """Data may begin anywhere, in memory that can be written and that cannot."""
        data = noise(40 * BLOCK + shift, shift)
        wanted = expected(data[shift:], BLOCK, algorithm)
        for owner in (data, bytearray(data)):
            assert difference(made.hash_blocks(memoryview(owner)[shift:], BLOCK, algorithm), wanted) is None

    @pytest.mark.parametrize("algorithm", HashAlgorithm)
    def test_data_stays_as_it_is(self, made: BlockHasher, algorithm: HashAlgorithm) -> None:
        """Hashing writes nothing into what is hashed, and keeps no hold of it."""
        data = noise(33 * BLOCK, 5)
        given = bytearray(data)
        with memoryview(given) as view:
            made.hash_blocks(view, BLOCK, algorithm)
        assert difference(bytes(given), data) is None
        given.append(0)  # a BufferError while somebody holds it

    @pytest.mark.parametrize("algorithm", HashAlgorithm)
    def test_digests_are_kept_apart(self, made: BlockHasher, algorithm: HashAlgorithm) -> None:
        """What a call returned does not change when the next one is made."""
        first, second = noise(20 * BLOCK, 1), noise(20 * BLOCK, 2)
        kept = made.hash_blocks(memoryview(first), BLOCK, algorithm)
        made.hash_blocks(memoryview(second), BLOCK, algorithm)
        assert difference(kept, expected(first, BLOCK, algorithm)) is None

    def test_threads_do_not_disturb_each_other(self, made: BlockHasher) -> None:
        """Several threads hash at once, with both algorithms."""

        def wrong(number: int) -> int:
            data = noise((50 + number) * BLOCK, number)
            algorithm = list(HashAlgorithm)[number % 2]
            wanted = expected(data, BLOCK, algorithm)
            return sum(made.hash_blocks(memoryview(data), BLOCK, algorithm) != wanted for _ in range(10))

        with ThreadPoolExecutor(THREADS) as threads:
            assert sum(threads.map(wrong, range(2 * THREADS))) == 0
