"""Digests of many contents at once are those of each by itself."""

from __future__ import annotations

import random

import pytest

from cfs_core.plugin import HashAlgorithm
from cfs_storage_composefs.digest_batch import DigestBatch
from cfs_storage_composefs.fsverity import digest_bytes

ROOM = 600 * 4096
# Around one block, the 64 and 128 hashes of a tree's block, and two levels above the data.
SIZES = [0, 1, 4095, 4096, 4097, 63 * 4096, 64 * 4096, 64 * 4096 + 1, 65 * 4096, 128 * 4096 - 1, 128 * 4096 + 1, ROOM]


@pytest.mark.parametrize("algorithm", HashAlgorithm)
def test_each_gets_its_own(algorithm):
    chance = random.Random(5)
    contents = [
        chance.randbytes(size) for size in [*SIZES, *(chance.randrange(20_000) for _ in range(300)), *SIZES[::-1]]
    ]
    batch = DigestBatch(algorithm, ROOM)
    found = {}
    for number, data in enumerate(contents):
        batch.slot(len(data))[:] = data
        batch.add(len(data), lambda digest, number=number: found.__setitem__(number, digest))
    batch.flush()
    batch.flush()
    assert found == {number: digest_bytes(data, algorithm) for number, data in enumerate(contents)}


def test_what_was_there_before_does_not_count():
    """A shorter content after a longer one in the same room: its last block is padded with zeros."""
    batch = DigestBatch(HashAlgorithm.SHA512, ROOM)
    found = []
    for data in (b"\xff" * ROOM, b"x", b"y" * 5000):
        batch.slot(len(data))[:] = data
        batch.add(len(data), found.append)
        batch.flush()
    assert found == [digest_bytes(data, HashAlgorithm.SHA512) for data in (b"\xff" * ROOM, b"x", b"y" * 5000)]


def test_more_than_the_room_is_an_error():
    with pytest.raises(ValueError, match="do not fit"):
        DigestBatch(HashAlgorithm.SHA512, ROOM).slot(ROOM + 1)
