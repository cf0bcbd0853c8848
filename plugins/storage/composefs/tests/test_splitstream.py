import contextlib
import io
import random
import struct
import tracemalloc

import pytest
from composefs_builders.repositories import layer_stream, open_repository
from hypothesis import given, settings
from hypothesis import strategies as st

from cfs_core.plugin import HashAlgorithm, StorageError
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.streams.splitstream import (
    BLOB,
    CONFIG,
    LAYER,
    SplitStream,
    SplitStreamSource,
    SplitStreamWriter,
    single_object_stream,
)
from cfs_testkit.builders.oci import Dir, File, layer, pax_header, raw_header

ALGORITHMS = pytest.mark.parametrize("algorithm", list(HashAlgorithm))

parts = st.lists(st.one_of(st.binary(max_size=700), st.tuples(st.binary(min_size=1, max_size=3), st.integers(65, 999))))


def encode(items, algorithm=HashAlgorithm.SHA256, names=()):
    """Return a stream's bytes, what it stands for, and its objects."""
    writer = SplitStreamWriter(LAYER, algorithm)
    whole, objects = b"", {}
    for item in items:
        if isinstance(item, bytes):
            writer.inline(item)
            whole += item
        else:
            seed, size = item
            content = (seed * size)[:size]
            digest = digest_bytes(content, algorithm)
            objects[digest] = content
            writer.external(digest, size)
            whole += content
    for name, digest in names:
        writer.name(name, digest)
    data = b"".join(writer.pieces())
    writer.close()
    return data, whole, objects


def decode(data, objects, algorithm=HashAlgorithm.SHA256):
    with SplitStream.open(io.BytesIO(data), algorithm, "test") as stream:
        chunks = list(stream.chunks())
        return stream, b"".join(
            chunk if isinstance(chunk, bytes) else objects[stream.object_refs[chunk]] for chunk in chunks
        )


@given(items=parts, algorithm=st.sampled_from(list(HashAlgorithm)))
def test_concatenation_is_what_went_in(items, algorithm):
    data, whole, objects = encode(items, algorithm)
    stream, found = decode(data, objects, algorithm)
    assert found == whole
    assert stream.size == len(whole)
    assert sorted(stream.object_refs) == sorted(objects)
    assert stream.content_type == LAYER


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1),
        st.binary(min_size=32, max_size=32),
    )
)
def test_named_references_come_back(names):
    data, _, _ = encode([b"x"], names=names.items())
    stream, _ = decode(data, {})
    assert stream.named_refs == names
    assert set(stream.stream_refs) == set(names.values())


def test_inline_data_is_merged_and_references_are_unique():
    data, _, objects = encode([b"a", b"b", (b"x", 100), b"", (b"y", 100), (b"x", 100), b"c" * 300_000])
    with SplitStream.open(io.BytesIO(data), HashAlgorithm.SHA256, "test") as stream:
        assert [len(chunk) if isinstance(chunk, bytes) else -1 - chunk for chunk in stream.chunks()] == [
            2, -1, -2, -1, 262_144, 300_000 - 262_144,
        ]  # fmt: skip
    assert len(objects) == 2


def old_header(data: bytes) -> bytes:
    """Write the header as composefs-rs did before 0.5."""
    magic, version, flags, hash_id, lg, start, end = struct.unpack("<11sBHBBQQ", data[:32])
    return struct.pack("<QQH11sBBB", start, end, flags, magic, version, hash_id, lg) + data[32:]


@ALGORITHMS
def test_old_header_is_read(algorithm):
    data, whole, objects = encode([b"head", (b"z", 500), b"tail"], algorithm)
    assert decode(old_header(data), objects, algorithm)[1] == whole


def test_longer_info_is_tolerated():
    data = single_object_stream(CONFIG, HashAlgorithm.SHA256, bytes(32), 7, {"a": bytes(32)})
    magic, info, rest = data[:16], list(struct.unpack("<8QQQ", data[32:112])), data[112:]
    info[:8] = [value + 24 for value in info[:8]]
    grown = magic + struct.pack("<QQ", 32, 136) + struct.pack("<8QQQ", *info) + bytes(24) + rest
    stream, _ = decode(grown, {bytes(32): b"1234567"})
    assert stream.named_refs == {"a": bytes(32)}
    assert stream.size == 7


@settings(max_examples=300)
@given(st.data())
def test_damage_is_one_kind_of_error(data):
    whole, _, objects = encode([b"head" * 30, (b"z", 500), b"tail", (b"q", 70)], names=[("n", bytes(32))])
    how = data.draw(st.sampled_from(["flip", "cut", "grow"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    if how == "flip":
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    elif how == "cut":
        damaged = whole[:at]
    else:
        damaged = whole[:at] + data.draw(st.binary(max_size=50)) + whole[at:]
    # KeyError: a reference to another digest, and whoever looks for that object finds out
    with contextlib.suppress(StorageError, KeyError):
        decode(damaged, objects)


def test_lying_sizes_cost_no_memory():
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(struct.pack("<q", -(1 << 40)) + bytes(64 << 20))
    head = single_object_stream(BLOB, HashAlgorithm.SHA256, bytes(32), 7, {})
    info = list(struct.unpack("<8QQQ", head[32:112]))
    info[4:6] = [len(head), len(head) + len(bomb)]
    lying = head[:32] + struct.pack("<8QQQ", *info) + head[112:] + bomb
    tracemalloc.start()
    with SplitStream.open(io.BytesIO(lying), HashAlgorithm.SHA256, "test") as stream, pytest.raises(StorageError):
        for _ in stream.chunks():
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_source_refuses_what_stands_in_the_wrong_place():
    data, _, _ = encode([b"a" * 10, (b"z", 500)])
    with SplitStream.open(io.BytesIO(data), HashAlgorithm.SHA256, "test") as stream:
        source = SplitStreamSource(stream, "test")
        with pytest.raises(StorageError):
            source.external()
    with SplitStream.open(io.BytesIO(data), HashAlgorithm.SHA256, "test") as stream:
        source = SplitStreamSource(stream, "test")
        assert source.read(10) == b"a" * 10
        with pytest.raises(StorageError):
            source.read(1)


def random_layer(seed: int) -> bytes:
    """Make a tar with everything that affects how it is split."""
    rng = random.Random(seed)
    tree = {}
    for number in range(rng.randrange(60)):
        size = rng.choice([0, 1, 63, 64, 65, 511, 512, 513, 4096, rng.randrange(20_000)])
        name = rng.choice(["usr", "etc", "x" * 90 + "/" + "y" * 120]) + f"/{number}"
        xattrs = {"user.a": b"v" * rng.randrange(50)} if rng.random() < 0.3 else {}
        tree[name] = File(rng.randbytes(size), xattrs=xattrs) if rng.random() < 0.9 else Dir()
    tar = layer(tree, "none").tar
    if rng.random() < 0.3:
        tar = pax_header((b"comment", b"global"), kind=b"g") + tar
    return tar + bytes(rng.choice([0, 512, 1, 10_240, 700]))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    with open_repository(tmp_path_factory.mktemp("split") / "r") as opened:
        yield opened


@pytest.mark.parametrize("seed", range(25))
def test_layers_come_back_byte_for_byte(repository, seed):
    tar = random_layer(seed)
    stream = layer_stream(tar)
    repository.import_layer(stream)
    assert repository.has_layer(stream.diff_id)
    with repository._catalog.open_stream(f"oci-layer-{stream.diff_id}") as stored:
        parts = []
        for chunk in stored.chunks():
            if isinstance(chunk, bytes):
                parts.append(chunk)
            else:
                with repository._store.content(stored.object_refs[chunk]).open() as file:
                    parts.append(file.read())
    assert b"".join(parts) == tar
    listed = [entry.path for entry in repository.layer_entries(stream.diff_id)]
    assert listed == [member.entry.path for member in layer_stream(tar).members() if member.entry]


def test_long_runs_of_small_files_are_cut_before_headers(repository):
    blocks = raw_header(b"small", size=10) + b"0123456789".ljust(512, b"\0")
    tar = blocks * 3000 + bytes(1024)
    stream = layer_stream(tar)
    repository.import_layer(stream)
    with repository._catalog.open_stream(f"oci-layer-{stream.diff_id}") as stored:
        heads = []
        while (head := stored.next_chunk()) is not None:
            heads.append(-head)
            stored.inline(-head)
    assert len(heads) > 2
    assert all(head % 1024 == 0 for head in heads[:-1])
    assert len(list(repository.layer_entries(stream.diff_id))) == 3000
