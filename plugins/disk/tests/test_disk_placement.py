import hashlib
import io

import pytest
from conftest_disk import pattern

from cfs_core.plugin import HashAlgorithm
from cfs_disk.ext4.placement import (
    BLOCK,
    MerkleTree,
    allocated_bytes,
    pack_descriptor,
    parse_descriptor,
    placement,
)
from cfs_testkit.verity import known_digests

SIZES = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 128 * 4096, 128 * 4096 + 1, 3_000_000)


def metadata(data: bytes, algorithm: HashAlgorithm, step: int = 100_001, scratch=None) -> tuple[str, bytes]:
    with MerkleTree(algorithm, scratch) as tree:
        for at in range(0, len(data), step):
            tree.update(data[at : at + step])
        digest, pieces = tree.metadata()
        return digest.hex(), b"".join(pieces)


def test_digests_equal_those_that_fsverity_utils_printed():
    count = 0
    for data, wanted in known_digests(up_to=20 << 20):
        assert {algorithm: metadata(data, algorithm)[0] for algorithm in HashAlgorithm} == wanted, len(data)
        count += 1
    assert count > 20


@pytest.mark.parametrize("algorithm", list(HashAlgorithm))
@pytest.mark.parametrize("size", SIZES)
def test_metadata_is_where_the_kernel_looks(size, algorithm):
    data = pattern(size)
    where = placement(size, algorithm)
    digest, blob = metadata(data, algorithm)
    assert where.start % 65536 == 0
    assert where.start - size < 65536
    assert len(blob) == where.end - where.start
    assert len(blob) % BLOCK == 0
    assert allocated_bytes(size, algorithm) == -(-size // BLOCK) * BLOCK + len(blob)
    # The kernel's way back: descriptor size in the last four bytes, descriptor at the start of a block before it.
    stored = int.from_bytes(blob[-4:], "little")
    position = (len(blob) - 4 - stored) // BLOCK * BLOCK
    descriptor = blob[position : position + stored]
    assert where.start + position == where.descriptor
    assert hashlib.new(algorithm.value, descriptor).hexdigest() == digest
    found, length, root = parse_descriptor(descriptor)
    assert (found, length) == (algorithm, size)
    # The tree proves itself from the root down to the data.
    expected = [root]
    for offset, blocks in reversed(where.levels):
        level = blob[offset - where.start : offset - where.start + blocks * BLOCK]
        hashes = [hashlib.new(algorithm.value, level[at : at + BLOCK]).digest() for at in range(0, len(level), BLOCK)]
        assert hashes == expected[: len(hashes)]
        expected = [level[at : at + algorithm.size] for at in range(0, len(level), algorithm.size)]
    reader = io.BytesIO(data)
    leaves = [
        hashlib.new(algorithm.value, block.ljust(BLOCK, b"\0")).digest()
        for block in iter(lambda: reader.read(BLOCK), b"")
    ]
    assert expected[: len(leaves)] == (leaves or [])


def test_pieces_do_not_depend_on_how_data_comes(tmp_path):
    data = pattern(1_000_000)
    results = {metadata(data, HashAlgorithm.SHA512, step, tmp_path) for step in (1, 4096, 4097, 1 << 20) if step > 1}
    assert len(results) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: b"\2" + raw[1:],
        lambda raw: raw[:1] + b"\3" + raw[2:],
        lambda raw: raw[:2] + b"\xff" + raw[3:],
        lambda raw: raw[:3] + b"\1" + raw[4:],
        lambda raw: raw[:4] + b"\1" + raw[5:],
    ],
)
def test_foreign_descriptors_are_refused(change):
    raw = pack_descriptor(5, b"h" * 32, HashAlgorithm.SHA256)
    assert parse_descriptor(raw) == (HashAlgorithm.SHA256, 5, b"h" * 32)
    with pytest.raises(ValueError, match="version"):
        parse_descriptor(change(raw))
