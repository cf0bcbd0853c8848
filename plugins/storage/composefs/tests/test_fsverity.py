"""fs-verity digests against known values, against each other, and against a naive computation."""

from __future__ import annotations

import hashlib
import os

import pytest

from cfs_core.plugin import HashAlgorithm
from cfs_storage_composefs import fsverity
from cfs_storage_composefs.fsverity import Digester, digest_bytes, digest_file
from cfs_testkit.verity import known_digests

BOTH = list(HashAlgorithm)

HELLO = {
    HashAlgorithm.SHA256: "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64",
    HashAlgorithm.SHA512: (
        "18430270729d162d4e469daca123ae61893db4b0583d8f7081e3bf4f92b88ba5"
        "14e7982f10733fb6aa895195c5ae8fd2eb2c47a8be05513ce5a0c51a6f570409"
    ),
}
ZEROS = {  # sha256, as fsverity-utils prints them
    4095: "5372beb83c78537c8970c8361e3254119fafdf1763854ecd57d3f0fe2da7c719",
    4096: "babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e",
    4097: "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743",
}
BORDERS = [
    0,
    1,
    4095,
    4096,
    4097,
    8192,
    64 * 4096,
    64 * 4096 + 1,
    128 * 4096 - 1,
    128 * 4096,
    128 * 4096 + 1,
    4096**2 + 5,
]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def naive(data: bytes, algorithm: HashAlgorithm) -> bytes:
    def h(block: bytes) -> bytes:
        return hashlib.new(algorithm.value, block).digest()

    level = [h(data[at : at + 4096].ljust(4096, b"\0")) for at in range(0, len(data), 4096)]
    per_block = 4096 // algorithm.size
    while len(level) > 1:
        level = [h(b"".join(level[at : at + per_block]).ljust(4096, b"\0")) for at in range(0, len(level), per_block)]
    root = level[0] if level else bytes(algorithm.size)
    return h(
        bytes([1, fsverity.kernel_id(algorithm), 12, 0, 0, 0, 0, 0])
        + len(data).to_bytes(8, "little")
        + root.ljust(64, b"\0")
        + bytes(176)
    )


@pytest.mark.parametrize("algorithm", BOTH)
def test_known_digest(algorithm):
    assert digest_bytes(b"hello world", algorithm).hex() == HELLO[algorithm]


@pytest.mark.parametrize("size", ZEROS)
def test_zeros(size):
    assert digest_bytes(bytes(size), HashAlgorithm.SHA256).hex() == ZEROS[size]


@pytest.mark.parametrize("algorithm", BOTH)
@pytest.mark.parametrize("size", BORDERS)
def test_level_borders(size, algorithm):
    data = pattern(size)
    assert digest_bytes(data, algorithm) == naive(data, algorithm)
    assert digest_bytes(memoryview(data), algorithm) == naive(data, algorithm)


@pytest.mark.parametrize("algorithm", BOTH)
@pytest.mark.parametrize("step", [1000, 4096, 65536, 1 << 20, 4096 * 130 + 7])
def test_streaming_equals_whole(algorithm, step):
    for size in (*BORDERS[:11], 4096 * 300 + 11):
        data = pattern(size)
        digester = Digester(algorithm)
        for at in range(0, size, step):
            digester.update(data[at : at + step])
        assert digester.digest() == digest_bytes(data, algorithm), (size, step)
        assert digester.size == size


def test_digest_in_the_middle_changes_nothing():
    digester = Digester(HashAlgorithm.SHA512)
    for _ in range(70):
        digester.update(pattern(4100))
        digester.digest()
    assert digester.digest() == digest_bytes(pattern(4100) * 70, HashAlgorithm.SHA512)


def test_file_is_read_from_its_start(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pattern(600_000))
    wanted = digest_bytes(pattern(600_000), HashAlgorithm.SHA256)
    assert digest_file(path, HashAlgorithm.SHA256) == wanted
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, 1000, os.SEEK_SET)
        assert digest_file(fd, HashAlgorithm.SHA256) == wanted
        assert os.lseek(fd, 0, os.SEEK_CUR) == 1000
    finally:
        os.close(fd)


def test_measure_of_a_plain_file_is_none(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        assert fsverity.measure(file.fileno()) is None


def test_enable_seals_or_says_why_not(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello world")
    with path.open("rb") as file:
        refused = []
        try:
            fsverity.enable(file.fileno(), HashAlgorithm.SHA256)
        except fsverity.VerityUnsupportedError as error:
            refused.append(error)
        measured = fsverity.measure(file.fileno())
    if refused:
        assert str(path) in refused[0].message
        assert refused[0].hint
        assert measured is None
    else:
        assert measured == (HashAlgorithm.SHA256, bytes.fromhex(HELLO[HashAlgorithm.SHA256]))


def test_digests_that_fsverity_utils_printed():
    count = 0
    for data, wanted in known_digests():
        assert {algorithm: digest_bytes(data, algorithm).hex() for algorithm in BOTH} == wanted, len(data)
        count += 1
    assert count == 32
