import bz2
import gzip
import io
import lzma
import os
import tracemalloc
import zlib

import pytest
import zstandard

from cfs_core.archive.decompress import CHUNK, DecompressionLimits, decompress
from cfs_core.errors import ImageError, LimitError
from cfs_testkit.builders.oci import COMPRESSIONS, SKIPPABLE, compress

OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
DATA = os.urandom(40_000) + bytes(300_000) + os.urandom(1000)


def unpacked(blob: bytes, media_type: str, size: int = 1 << 16, **limits) -> bytes:
    chunks = [blob[i : i + size] for i in range(0, len(blob), size)]
    found = list(decompress(chunks, media_type, DecompressionLimits(**limits)))
    assert all(len(chunk) <= CHUNK for chunk in found)
    return b"".join(found)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("size", [1, 13, 4096, 1 << 20])
def test_round_trip(compression, size):
    data = DATA[:5000] if size < 100 else DATA
    blob, suffix, _ = compress(data, compression)
    assert unpacked(blob, OCI + suffix, size) == data


@pytest.mark.parametrize("options", [{}, {"write_checksum": True}, {"write_content_size": False}])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_zstd_frames_of_all_forms(options, size):
    once = zstandard.ZstdCompressor(**options).compress(DATA[:size])
    stream = zstandard.ZstdCompressor(**options).compressobj()
    streamed = stream.compress(DATA[:size]) + stream.flush()
    assert unpacked(once + SKIPPABLE + streamed, OCI + "+zstd", 7) == DATA[:size] * 2


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "none"])
@pytest.mark.parametrize("cut", [10, 0.5, -9, -1])
def test_torn(compression, cut):
    blob, suffix, _ = compress(DATA, compression)
    torn = blob[: int(len(blob) * cut) if isinstance(cut, float) else cut]
    with pytest.raises(ImageError, match=r"ends too early|damaged"):
        unpacked(torn, OCI + suffix)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_damaged(compression):
    blob, suffix, _ = compress(DATA, compression)
    for at in (len(blob) // 2, len(blob) - 20):
        damaged = bytearray(blob)
        damaged[at] ^= 0x55
        try:
            found = unpacked(bytes(damaged), OCI + suffix)
        except ImageError:
            continue
        assert found != DATA  # zstd without a checksum cannot tell; the diff-id will
        assert compression == "zstd"


def test_what_may_follow_a_gzip_member():
    blob = gzip.compress(DATA)
    assert unpacked(blob + bytes(3000), OCI + "+gzip") == DATA
    for garbage in (b"garbage", b"\x1f\x8cxxxx", bytes(10) + b"x"):
        with pytest.raises(ImageError):
            unpacked(blob + garbage, OCI + "+gzip")


def test_the_first_bytes_decide_and_a_wrong_media_type_is_told():
    gz, zst = gzip.compress(DATA), zstandard.compress(DATA)
    for blob, media_type in ((gz, OCI), (gz, OCI + "+zstd"), (zst, OCI + "+gzip"), (DATA, OCI + "+gzip"), (zst, OCI)):
        told = []
        assert b"".join(decompress([blob], media_type, mismatch=told.append)) == DATA
        assert len(told) == 1
        assert media_type in told[0]
    told = []
    assert b"".join(decompress([gz], OCI + "+gzip", mismatch=told.append)) == DATA
    assert told == []
    for blob in (gz, zst, DATA):
        for suffix in ("", ".gzip"):
            assert unpacked(blob, DOCKER + suffix) == DATA
    for media_type in ("application/octet-stream", OCI + "+bzip2", OCI + "+gzip+encrypted", ""):
        with pytest.raises(ImageError, match="media type"):
            unpacked(DATA, media_type)


def test_an_empty_blob():
    assert unpacked(b"", OCI) == b""
    for suffix in ("+gzip", "+zstd"):
        with pytest.raises(ImageError):
            unpacked(b"", OCI + suffix)


def bomb(compression: str, size: int) -> bytes:
    zeros = bytes(1 << 20)
    zstd = zstandard.ZstdCompressor(level=3).compressobj
    packer = zstd() if compression == "zstd" else zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(zeros) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_bombs(compression):
    blob = bomb(compression, 256 << 20)
    kwargs = {"ratio": 100, "ratio_free_bytes": 1 << 20}
    tracemalloc.start()
    with pytest.raises(LimitError, match=r"bomb|grew"):
        unpacked(blob, f"{OCI}+{compression}", **kwargs)
    with pytest.raises(LimitError, match="longer than"):
        for _ in decompress([blob], f"{OCI}+{compression}", DecompressionLimits(total_bytes=64 << 20)):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_zstd_windows_are_bounded():
    packer = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=28))
    out = io.BytesIO()
    with packer.stream_writer(out, closefd=False) as writer:
        writer.write(DATA)
    with pytest.raises(LimitError, match="window of more than 128 MiB"):
        unpacked(out.getvalue(), OCI + "+zstd")


@pytest.mark.parametrize(
    ("blob", "name"),
    [
        (bz2.compress(DATA), "bzip2"),
        (lzma.compress(DATA), "xz"),
        (b"\x04\x22\x4d\x18" + DATA, "lz4"),
        (b"\x02\x21\x4c\x18" + DATA, "lz4"),
    ],
)
@pytest.mark.parametrize("suffix", ["", "+gzip"])
def test_compressions_that_no_image_may_have_are_named(blob, name, suffix):
    with pytest.raises(ImageError, match=f"compressed with {name}") as caught:
        unpacked(blob, OCI + suffix)
    assert caught.value.code == "image"
    assert caught.value.hint
