"""Layers: what they are packed with, tar, and what becomes of several."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile

import zstandard

from cfs_core.archive.decompress import DecompressionLimits, decompress
from cfs_core.archive.kinds import kind_of
from cfs_core.image.merge import merge_layers
from cfs_core.plugin import CfsError, ImageError, walk
from cfs_core.tar import TarLimits, read_members
from cfs_fuzz.target import target
from cfs_testkit.builders.oci import Device, Dir, Fifo, File, Hard, Link, pax_header, raw_header, tar_bytes

_BLOCK = 512
_LIMITS = TarLimits(entries=2000)
_UNPACKED = DecompressionLimits(total_bytes=1 << 22, ratio_free_bytes=1 << 20)
_LONGEST_PART = 1 << 20

TREE = {
    "usr": Dir(0o755),
    "usr/bin/" + "x" * 120: File(b"a" * 700, xattrs={"user.x": b"1", "security.capability": b"\1\0\0\2" + bytes(16)}),
    "usr/big": File(b"b" * 2000, uid=5_000_000, mtime="12.5"),
    "usr/old": File(b"", mtime="-1.25"),
    "usr/l": Link("t" * 150),
    "usr/h": Hard("usr/big"),
    "usr/c": Device(1, 3),
    "usr/p": Fifo(),
    "usr/.wh.gone": b"",
    "usr/.wh..wh..opq": b"",
}


def tars() -> list[bytes]:
    """Return layers in the three formats of tar, and odd ones."""
    plain = {"a": b"x", "d/e": Link("../a"), "f": Dir(0o700)}
    made = [tar_bytes(TREE), tar_bytes(TREE, format=tarfile.GNU_FORMAT), tar_bytes(plain, format=tarfile.USTAR_FORMAT)]
    made.append(tar_bytes({"deep/er/file": b"1"}, parents=False))
    records = (
        (b"path", b"/a/b"),
        (b"size", b"1"),
        (b"mtime", b"-7.5"),
        (b"SCHILY.xattr.user.a", b"b"),
        (b"linkpath", b"x"),
    )
    made.append(pax_header(*records) + raw_header(b"f", b"0", size=1) + b"x".ljust(_BLOCK, b"\0") + bytes(1024))
    made.append(pax_header((b"GNU.sparse.major", b"1"), kind=b"g") + raw_header(b"f", b"S") + bytes(1024))
    return made


def with_checksums(data: bytes) -> bytes:
    """Return *data* with right checksums in all that may be a header: the fuzzer would have to find them."""
    out = bytearray(data)
    for at in range(0, len(out) - _BLOCK + 1, _BLOCK):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + _BLOCK])
    return bytes(out)


def entries_of(data: bytes):
    """Read a layer as `merge_layers` takes it."""
    source = io.BytesIO(data)
    for member in read_members(source, _LIMITS):
        if len(source.read(member.size)) != member.size:
            msg = "it ends early"
            raise ImageError(msg)
        if member.entry is not None:
            yield member.entry


@target(
    "tar",
    tars,
    (b"ustar\x0000", b"ustar  \0", b"././@LongLink", b"20 path=", b"SCHILY.xattr.", b".wh.", b".wh..wh..opq"),
)
def read_tar(data: bytes) -> None:
    """One layer, with the checksums that it has and with right ones."""
    with contextlib.suppress(CfsError):
        list(entries_of(data))
    for entry in entries_of(with_checksums(data)):
        assert entry.path.startswith(b"/"), entry.path
        assert b".." not in entry.path.split(b"/"), entry.path
        assert b"\0" not in entry.path, entry.path


def stacks() -> list[bytes]:
    """Return several layers after one another, each with its length."""
    low, high = tar_bytes(TREE), tar_bytes({"usr/.wh.big": b"", "etc/x": b"1", "usr/l": Dir(0o755), "usr/l/m": b"2"})
    return [b"".join(len(tar).to_bytes(3, "big") + tar for tar in stack) for stack in ([low, high], [high, low, high])]


@target("layers", stacks, (b".wh.", b".wh..wh..opq", b"ustar\x0000"))
def merge(data: bytes) -> None:
    """Layers over one another."""
    layers, at = [], 0
    while at + 3 <= len(data) and len(layers) < 8:
        size = int.from_bytes(data[at : at + 3], "big")
        layers.append(with_checksums(data[at + 3 : at + 3 + size]))
        at += 3 + size
    for _ in walk(merge_layers((entries_of(layer) for layer in layers), entry_limit=4000)):
        pass


def packed() -> list[bytes]:
    """Return a layer in every packing, also those that no image may have."""
    tar = tar_bytes({"a": b"x" * 3000})
    frame = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(tar)
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    made = [tar, gzip.compress(tar, mtime=0), frame, skippable + frame + skippable, frame + frame, bz2.compress(tar)]
    window = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27))
    return [*made, lzma.compress(tar), window.compress(b"a"), b"PK\3\4", b"", b"<!DOCTYPE html>", b"\x04\x22\x4d\x18"]


@target("decompress", packed, (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"BZh9", b"\xfd7zXZ\0"))
def unpack(data: bytes) -> None:
    """What a layer's bytes are packed with, by the bytes."""
    kind_of(data[:1024])
    for chunk in decompress(iter([data[:7], data[7:]]), "application/vnd.docker.image.rootfs.diff.tar.gzip", _UNPACKED):
        assert len(chunk) <= _LONGEST_PART, len(chunk)
