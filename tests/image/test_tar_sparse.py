"""Sparse members as GNU tar writes them in its four forms: read in archives of images, refused in layers."""

import io
import random
import subprocess

import pytest

from cfs_core.errors import ImageError, LimitError
from cfs_core.tar import TarLimits, read_members
from cfs_testkit.builders.oci import pax_header, raw_header

FORMS = {
    "old": ["--format=gnu"],
    "0.0": ["--format=pax", "--sparse-version=0.0"],
    "0.1": ["--format=pax", "--sparse-version=0.1"],
    "1.0": ["--format=pax", "--sparse-version=1.0"],
}
needs_gnu_tar = pytest.mark.skipif(
    b"GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True, check=False).stdout,
    reason="GNU tar is not installed",
)


def read(data, **options):
    """Return name and content of each file, holes filled."""
    source = io.BytesIO(data)
    found = {}
    for member in read_members(source, with_sparse=True, **options):
        content = source.read(member.size)
        if member.entry is None:
            continue
        if member.areas is not None:
            whole = bytearray(member.entry.what.size)
            at = 0
            for offset, length in member.areas:
                whole[offset : offset + length] = content[at : at + length]
                at += length
            assert at == len(content)
            content = bytes(whole)
        found[member.entry.path.decode()] = content
    return found


def with_holes(path, generator):
    """Write a file of 4 KiB blocks, some of them holes; return what it holds."""
    blocks = [generator.randbytes(4096) if generator.random() < 0.5 else None for _ in range(generator.randint(1, 90))]
    with path.open("wb") as file:
        for number, block in enumerate(blocks):
            if block is not None:
                file.seek(number * 4096)
                file.write(block)
        file.truncate(len(blocks) * 4096 - generator.choice([0, 1, 4000]))
    return path.read_bytes()


@needs_gnu_tar
@pytest.mark.judge
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_what_gnu_tar_wrote_is_read(tmp_path, form, seed):
    generator = random.Random(seed)
    folder = tmp_path / "in"
    folder.mkdir()
    wanted = {}
    for number in range(5):
        name = f"{'long' * generator.choice([1, 40])}{number}"
        wanted[f"/{name}"] = with_holes(folder / name, generator)
    (folder / "only-a-hole").touch()
    with (folder / "only-a-hole").open("wb") as file:
        file.truncate(1 << 20)
    wanted["/only-a-hole"] = bytes(1 << 20)
    (folder / "plain").write_bytes(b"plain")
    wanted["/plain"] = b"plain"
    words = ["--sparse", "--hole-detection=raw", *FORMS[form], "-C", folder, "-cf", "-"]
    names = [name[1:] for name in wanted]
    made = subprocess.run(["tar", *words, *names], check=True, capture_output=True).stdout
    assert read(made) == wanted


def pairs(*areas):
    return b"".join(b"%011o\0%011o\0" % area for area in areas)


def old(areas, real, stored, *blocks):
    header = bytearray(raw_header(b"big", b"S", stored, magic=b"ustar  \0"))
    header[386 : 386 + 24 * len(areas)] = pairs(*areas)
    header[482] = bool(blocks)
    header[483:495] = b"%011o\0" % real
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"".join(blocks)


def block(areas, *, more):
    return (pairs(*areas).ljust(504, b"\0") + bytes([more])).ljust(512, b"\0")


def newest(text, stored):
    records = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
    return pax_header(*records) + raw_header(b"big", b"0", stored) + text.ljust(512, b"\0")


def records(*parts):
    return pax_header(*((b"GNU.sparse." + key, value) for key, value in parts)) + raw_header(b"big", b"0", 2)


CONTENT = b"ab".ljust(512, b"\0")
RIGHT = {
    "old": old([(1, 1), (4, 1)], 9, 2) + CONTENT,
    "old, in more blocks": old([(1, 1)], 9, 2, block([(4, 1)], more=1), block([(9, 0)], more=0)) + CONTENT,
    "0.0": records(
        (b"size", b"9"), (b"offset", b"1"), (b"numbytes", b"1"), (b"offset", b"4"), (b"numbytes", b"1")
    ) + CONTENT,
    "0.1": records((b"size", b"9"), (b"map", b"1,1,4,1")) + CONTENT,
    "1.0": newest(b"2\n1\n1\n4\n1\n", 514) + CONTENT,
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_each_form_by_hand(name):
    assert read(RIGHT[name] + bytes(1024)) == {"/big": b"\0a\0\0b\0\0\0\0"}


@pytest.mark.parametrize(
    "data",
    [
        old([(4, 1), (1, 1)], 9, 2),
        old([(1, 2), (2, 0)], 9, 2),
        old([(1, 1)], 9, 2),
        old([(8, 2)], 9, 2),
        old([(1, 1)], 9, 2, block([(4, 1)], more=1))[:-100],
        records((b"size", b"9"), (b"map", b"1,1,4")),
        records((b"size", b"9"), (b"map", b"1,x,4,1")),
        records((b"size", b"9"), (b"offset", b"1"), (b"offset", b"4")),
        records((b"size", b"9"), (b"numbytes", b"2"), (b"offset", b"4")),
        records((b"map", b"1,1,4,1")),
        records((b"size", b"9" * 30), (b"map", b"1,1,4,1")),
        records((b"major", b"2"), (b"map", b"1,1,4,1")),
        newest(b"2\n1\n1\n4\n1\n", 513),
        newest(b"2\n1\n1\n4\n1\n", 100),
        newest(b"-1\n", 514),
        newest(b"2\n1\n", 514),
        newest(b"x\n", 514),
    ],
)
def test_maps_that_are_none_are_refused(data):
    with pytest.raises(ImageError):
        read(data + CONTENT + bytes(1024))


def test_a_map_has_a_limit():
    limits = TarLimits(extension_bytes=1024)
    with pytest.raises(LimitError, match="map of one sparse file"):
        read(old([], 9, 2, *[block([(0, 0)] * 21, more=1)] * 9), limits=limits)
    with pytest.raises(LimitError, match="map of one sparse file"):
        read(newest(b"99999\n" + b"1\n" * 253, 514) + (b"1\n" * 256) * 9, limits=limits)
    with pytest.raises(LimitError, match="bytes in one file"):
        read(old([(0, 2)], 2000, 2) + CONTENT, limits=TarLimits(file_bytes=1000))


@pytest.mark.parametrize("name", RIGHT)
def test_a_layer_with_one_is_refused_by_name(name):
    """As composefs-rs does: the stream of a layer refers to contents of files, and has none of a sparse one."""
    with pytest.raises(ImageError, match=r"the layer has a sparse file in it \(in the entry 'big'\)"):
        list(read_members(io.BytesIO(RIGHT[name] + bytes(1024))))
