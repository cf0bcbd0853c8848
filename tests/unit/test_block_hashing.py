"""What hashes blocks is chosen by proof and measure; whatever a plugin's library does, the digests are hashlib's."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfs_core.interfaces import block_hashing
from cfs_core.interfaces.block_hashing import BLOCK, Offer
from cfs_core.plugin import BlockHasher, HashAlgorithm, HostError, hash_blocks

SHA512 = HashAlgorithm.SHA512


def reference(data, algorithm=SHA512, size=BLOCK):
    data = bytes(data)
    pieces = [data[at : at + size].ljust(size, b"\0") for at in range(0, len(data), size)]
    return b"".join(hashlib.new(algorithm.value, piece).digest() for piece in pieces)


class Remembering(BlockHasher):
    """As fast as one likes: it knows the digests of what it saw before."""

    def __init__(self):
        self.known = {}
        self.calls = 0

    def hash_blocks(self, data, size, algorithm):
        self.calls += 1
        key = (bytes(data), size, algorithm)
        if key not in self.known:
            self.known[key] = reference(data, algorithm, size)
        return self.known[key]


class Slow(BlockHasher):
    def hash_blocks(self, data, size, algorithm):
        reference(data, algorithm, size)
        return reference(data, algorithm, size)


class Wrong(Remembering):
    """Right for a few blocks."""

    def hash_blocks(self, data, size, algorithm):
        found = super().hash_blocks(data, size, algorithm)
        return found if len(data) < 16 * size else found[:-1] + bytes([found[-1] ^ 1])


class Ending(Remembering):
    """Right until it is used in earnest."""

    def __init__(self, end):
        super().__init__()
        self.end = end
        self.earnest = False

    def hash_blocks(self, data, size, algorithm):
        return self.end() if self.earnest else super().hash_blocks(data, size, algorithm)


def fails():
    msg = "no lanes"
    raise OSError(msg)


@pytest.fixture
def offered():
    """Offer hashers, and collect what is refused."""
    refused = []

    def offer(**hashers):
        offers = [
            Offer(name, hasher if callable(hasher) else lambda made=hasher: made) for name, hasher in hashers.items()
        ]
        block_hashing.offer(lambda: offers, lambda name, reason: refused.append((name, reason)))
        return refused

    yield offer
    block_hashing.offer(tuple)


DATA = bytes(range(256)) * (40 * BLOCK // 256) + b"and less than a block"


def test_the_fastest_that_is_right_is_used(offered):
    fast = Remembering()
    refused = offered(slow=Slow(), wrong=Wrong(), fast=fast)
    assert hash_blocks(DATA, SHA512) == reference(DATA)
    choice = block_hashing.chosen(SHA512)
    assert choice.name == "fast"
    assert set(choice.rates) == {"hashlib", "slow", "fast"}
    assert [name for name, _ in refused] == ["wrong"]
    assert "16 blocks of 4096 bytes" in refused[0][1]


def test_blocks_are_worth_collecting_only_for_a_hasher(offered):
    offered(slow=Slow())
    assert not block_hashing.hashes_together(SHA512)
    offered(fast=Remembering())
    assert block_hashing.hashes_together(SHA512)


def test_one_that_is_slower_than_hashlib_is_not_used_and_not_refused(offered):
    refused = offered(slow=Slow())
    assert block_hashing.chosen(SHA512).name == "hashlib"
    assert refused == []


@pytest.mark.parametrize("error", [HostError("no library", hint="install it"), ValueError("odd"), MemoryError()])
def test_one_that_cannot_be_made_is_refused_once(offered, error):
    def make():
        raise error

    refused = offered(broken=make)
    for algorithm in HashAlgorithm:
        assert hash_blocks(DATA, algorithm) == reference(DATA, algorithm)
    assert len(refused) == 1


@pytest.mark.parametrize("end", [fails, lambda: b"", lambda: None], ids=["raises", "too short", "nothing"])
def test_one_that_fails_later_costs_nothing_but_itself(offered, end):
    hasher = Ending(end)
    refused = offered(ending=hasher)
    assert block_hashing.chosen(SHA512).name == "ending"
    hasher.earnest = True
    assert hash_blocks(DATA, SHA512) == reference(DATA)
    assert block_hashing.chosen(SHA512).name == "hashlib"
    assert [name for name, _ in refused] == ["ending"]


def test_nothing_is_made_before_it_is_needed(offered):
    made = []
    offered(late=lambda: made.append(1) or Remembering())
    hash_blocks(DATA[: 7 * BLOCK], SHA512)
    assert made == []
    hash_blocks(DATA, SHA512)
    hash_blocks(DATA, HashAlgorithm.SHA256)
    assert made == [1]


def test_threads_that_begin_together_choose_once(offered):
    made = []
    offered(late=lambda: made.append(1) or Remembering())
    found = []
    threads = [threading.Thread(target=lambda: found.append(hash_blocks(DATA, SHA512))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert found == [reference(DATA)] * 6


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40).map(lambda blocks: blocks * BLOCK),
    st.integers(-2, 2),
    st.sampled_from(list(HashAlgorithm)),
    st.sampled_from([BLOCK, 256]),
)
def test_any_length_gives_what_hashlib_gives(blocks, more, algorithm, size):
    data = memoryview(DATA)[: max(0, blocks + more)]
    block_hashing.offer(lambda: [Offer("it", Remembering)])
    try:
        assert hash_blocks(data, algorithm, size) == reference(data, algorithm, size)
    finally:
        block_hashing.offer(tuple)


def test_whoever_is_told_may_be_gone():
    def gone(_name, _reason):
        msg = "I/O operation on closed file"
        raise ValueError(msg)

    block_hashing.offer(lambda: [Offer("wrong", Wrong)], gone)
    try:
        assert hash_blocks(DATA, SHA512) == reference(DATA)
    finally:
        block_hashing.offer(tuple)
