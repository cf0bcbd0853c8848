"""Reading initramfs archives: every compression, concatenation, damage."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import random
import shutil
import subprocess

import lz4.block
import pytest
import zstandard

from cfs_core.plugin import CfsError, ImageError, LimitError
from cfs_initramfs.cpio import HEAD, read_initramfs
from cfs_initramfs.segments import UnknownCompressionError
from cfs_testkit.initrds import cpio

FILES = {
    "init": "-> usr/lib/systemd/systemd",
    "etc": None,
    "etc/initrd-release": "ID=x\n",
    "usr/lib/big": random.Random(1).randbytes(300_000),
    "usr/lib/zeros": bytes(5_000_000),
    "odd": "123",
}


def lz4_legacy(data):
    blocks = b""
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        blocks += len(block).to_bytes(4, "little") + block
    return b"\x02\x21\x4c\x18" + blocks


PACKERS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": lambda data: zstandard.ZstdCompressor(level=3).compress(data),
    "lz4": lz4_legacy,
}


def read(data, keep=lambda _name: True):
    return {entry.name: entry for entry in read_initramfs(io.BytesIO(data), keep)}


@pytest.mark.parametrize("packer", PACKERS)
def test_every_compression_of_the_kernel_but_lzo(packer):
    found = read(PACKERS[packer](cpio(FILES)))
    assert set(FILES) <= set(found)
    assert found["init"].is_link
    assert found["init"].data == b"usr/lib/systemd/systemd"
    assert found["odd"].data == b"123"
    assert found["usr/lib/big"].data == FILES["usr/lib/big"]
    assert found["usr/lib/zeros"].data is None, "over the limit of what is kept"
    assert found["usr/lib/zeros"].size == 5_000_000


@pytest.mark.parametrize("first", PACKERS)
@pytest.mark.parametrize("second", ["plain", "gzip", "zstd", "xz"])
def test_archives_one_behind_the_other(first, second):
    data = PACKERS[first](cpio({"kernel/x86/microcode/GenuineIntel.bin": b"u" * 1001})) + bytes(508)
    data += bytes(-len(data) % 4)
    found = read(data + PACKERS[second](cpio({"init": "x"})) + bytes(1024))
    assert {"kernel/x86/microcode/GenuineIntel.bin", "init"} <= set(found)


def test_two_archives_in_one_compressed_member():
    found = read(gzip.compress(cpio({"a": "1"}) + bytes(512) + cpio({"b": "2"}) + bytes(100)))
    assert {"a", "b"} <= set(found)


def test_content_that_is_not_wanted_is_not_kept():
    found = read(cpio(FILES), keep=lambda _name: False).values()
    assert all(entry.data is None for entry in found if not entry.is_link)
    assert all(len(entry.head) <= HEAD for entry in found)


def test_names_are_relative_and_plain():
    data = cpio({"x": "1"}).replace(b"x\0", b"x\0")
    assert set(read(data)) == {"x"}
    assert set(read(cpio({"./a//b": "1"}))) >= {"a/b"}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("cut", [8, 60, 5_000, 100_000])
def test_truncated(packer, cut):
    data = PACKERS[packer](cpio({"a": random.Random(2).randbytes(200_000), "b": "x"}))
    with pytest.raises(ImageError):
        read(data[:-cut])


@pytest.mark.parametrize("packer", PACKERS)
def test_damaged_bytes_give_no_other_error_than_ours(packer):
    data = bytearray(PACKERS[packer](cpio({"a": random.Random(3).randbytes(3_000), "b": "x" * 5_000})))
    chance = random.Random(4)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(3):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(CfsError):
            read(bytes(broken))


@pytest.mark.parametrize("data", [b"\x89LZO\0\r\n\x1a\n" + bytes(100), b"\x7fELF" + bytes(100), b"070707" + bytes(100)])
def test_what_cannot_be_read_is_named(data):
    with pytest.raises(UnknownCompressionError):
        read(data)


def test_a_name_longer_than_a_path_is_over_the_limit():
    header = b"070701" + b"".join(b"%08X" % value for value in (1, 0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1 << 30, 0))
    with pytest.raises(LimitError):
        read(header + bytes(1000))


def test_a_size_that_lies_is_truncation():
    header = b"070701" + b"".join(b"%08X" % value for value in (1, 0o100644, 0, 0, 1, 0, 0xFFFFFFFF, 0, 0, 0, 0, 2, 0))
    with pytest.raises(ImageError):
        read(header + b"a\0" + bytes(1000))


def test_an_empty_file_has_no_entries():
    assert read(b"") == {}
    assert read(bytes(10_000)) == {}


@pytest.mark.skipif(not shutil.which("zstd"), reason="no zstd here")
def test_what_the_zstd_program_writes(tmp_path):
    path = tmp_path / "initrd"
    path.write_bytes(cpio(FILES))
    packed = subprocess.run(["zstd", "-q", "-19", "-T0", "-c", path], capture_output=True, check=True).stdout
    assert set(FILES) <= set(read(packed))
