"""The tar reader against Python's tarfile, GNU tar, and bytes nobody meant."""

import contextlib
import io
import os
import random
import resource
import shutil
import subprocess
import tarfile
import tracemalloc
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfs_core.archive.tar_fields import device_number
from cfs_core.errors import ImageError
from cfs_core.model.layer import HardLink
from cfs_core.model.tree import Directory, RegularFile, Special, SpecialKind, Symlink
from cfs_core.tar import TarLimits, read_members
from cfs_testkit.builders.oci import Device, Dir, Fifo, File, Hard, Link, padded, pax_header, raw_header, tar_bytes

FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def read(data: bytes, limits: TarLimits | None = None):
    """Return entries with contents; checks that the stream comes back byte for byte."""
    source = io.BytesIO(data)
    found, position = [], 0
    for member in read_members(source, limits):
        assert data[position : position + len(member.raw)] == member.raw
        position += len(member.raw)
        content = source.read(member.size)
        if len(content) != member.size:
            msg = "short"
            raise ImageError(msg)
        position += member.size
        if member.entry is not None:
            found.append((member.entry, content))
    return found


def facts_of(entry, content):
    what = entry.what
    path = os.fsdecode(entry.path)
    if isinstance(what, HardLink):
        return path, "hard", os.fsdecode(what.target)
    if isinstance(what, Directory):
        kind = ("dir",)
    elif isinstance(what, Symlink):
        kind = ("link", os.fsdecode(what.target))
    elif isinstance(what, Special):
        kind = (what.kind.value, what.rdev)
    else:
        kind = ("file", content)
    return path, what.mode, what.uid, what.gid, what.mtime_sec, *kind


def tarfile_facts(data: bytes):
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            path = "/" + "/".join(part for part in info.name.split("/") if part not in {"", "."})
            common = (path, info.mode & 0o7777, info.uid, info.gid, int(info.mtime))
            if info.islnk():
                yield path, "hard", "/" + info.linkname.removeprefix("./").lstrip("/")
            elif info.isdir():
                yield *common, "dir"
            elif info.issym():
                yield *common, "link", info.linkname
            elif info.isfifo():
                yield *common, "fifo", 0
            elif info.isdev():
                kind = SpecialKind.CHAR if info.ischr() else SpecialKind.BLOCK
                yield *common, kind.value, device_number(info.devmajor, info.devminor)
            else:
                yield *common, "file", tar.extractfile(info).read()


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in {".", ".."} and not name.startswith(".wh.") and len(name.encode()) <= 255
)
paths = st.lists(names, min_size=1, max_size=6).map("/".join)
metadata = {
    "mode": st.integers(0, 0o7777),
    "uid": st.integers(0, (1 << 32) - 1),
    "gid": st.sampled_from([0, 5, 2097151, 2097152]),
    "mtime": st.integers(0, 1 << 34),
}
xattrs = st.dictionaries(names.filter(lambda name: "=" not in name), st.binary(max_size=100), max_size=3)
things = st.one_of(
    st.builds(File, st.binary(max_size=1500), xattrs=xattrs, **metadata),
    st.builds(Dir, xattrs=xattrs, **metadata),
    st.builds(Link, paths),
    st.builds(Hard, paths),
    st.builds(Device, st.integers(0, 4095), st.integers(0, 255), st.booleans()),
    st.builds(Fifo),
)


@given(st.lists(st.tuples(paths, things), max_size=8), st.sampled_from(["gnu", "pax"]))
@settings(max_examples=150, deadline=None)
def test_we_read_what_tarfile_reads(tree, form):
    data = tar_bytes(tree, parents=False, format=FORMATS[form])
    assert [facts_of(*each) for each in read(data)] == list(tarfile_facts(data))
    if form == "pax":
        found = [entry.what for entry, _ in read(data)]
        for what, (_, thing) in zip(found, tree, strict=True):
            if isinstance(thing, File | Dir):
                wanted = {name.encode(): value for name, value in thing.xattrs.items()}
                assert dict(what.xattrs) == wanted
                assert what.xattrs == tuple(sorted(what.xattrs))


@given(st.lists(st.binary(min_size=512, max_size=512) | st.just(bytes(512)) | st.just(raw_header(b"a")), max_size=6))
@settings(max_examples=200, deadline=None)
def test_blocks_of_anything(blocks):
    with contextlib.suppress(ImageError):
        read(b"".join(blocks))


@given(st.binary(max_size=300), st.sampled_from([b"x", b"L", b"K", b"g"]))
@settings(max_examples=300, deadline=None)
def test_extension_data_of_anything(data, kind):
    with contextlib.suppress(ImageError):
        read(raw_header(b"e", kind, len(data)) + padded(data) + raw_header(b"f"))


PAX_KEYS = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.xattr.user.a", b"GNU.sparse.name", b"x"]
PAX_VALUES = st.one_of(
    st.binary(max_size=30), st.integers(-5, 1 << 70).map(lambda n: str(n).encode()), st.just(b"../x")
)


@given(
    st.lists(st.tuples(st.sampled_from(PAX_KEYS), PAX_VALUES), max_size=5), st.sampled_from(list(b"01234567SVgxLK\0"))
)
@settings(max_examples=300, deadline=None)
def test_records_of_anything(records, kind):
    with contextlib.suppress(ImageError):
        for entry, _ in read(pax_header(*records) + raw_header(b"f", bytes([kind]), link=b"l")):
            assert entry.path.startswith(b"/")
            assert b".." not in entry.path.split(b"/")
            assert b"\0" not in entry.path


def samples() -> list[bytes]:
    tree = {
        "usr/bin/" + "x" * 120: File(b"a" * 700, xattrs={"user.x": b"1"}, mtime="12.5"),
        "usr/big": File(b"b" * 2000, uid=5_000_000),
        "usr/l": Link("t" * 150),
        "usr/h": Hard("usr/big"),
        "usr/c": Device(1, 3),
        "usr/.wh.gone": b"",
    }
    return [tar_bytes(tree), tar_bytes(tree, format=tarfile.GNU_FORMAT)]


def fixed_checksum(block: bytearray) -> None:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)


@pytest.mark.parametrize("seed", range(4))
def test_mutations_raise_nothing_else(seed):
    generator = random.Random(seed)
    interesting = [0, 10, 32, 45, 48, 57, 128, 255]
    for original in samples() * 200:
        headers = [at for at in range(0, len(original), 512) if original[at + 257 : at + 262] == b"ustar"]
        data = bytearray(original)
        for _ in range(generator.randint(1, 6)):
            data[generator.randrange(len(data))] = generator.choice([*interesting, generator.randrange(256)])
        if generator.random() < 0.8:
            for at in headers:
                block = data[at : at + 512]
                fixed_checksum(block)
                data[at : at + 512] = block
        if generator.random() < 0.2:
            del data[generator.randrange(len(data)) :]
        with contextlib.suppress(ImageError):
            read(bytes(data))


class Endless:
    """A source that makes entries up as they are asked for, and never ends."""

    def __init__(self, make):
        self._make = make
        self._pending = b""
        self.given = 0

    def read(self, count):
        while len(self._pending) < count:
            self._pending += self._make(self.given)
            self.given += 1
        found, self._pending = self._pending[:count], self._pending[count:]
        return found


@pytest.mark.parametrize(
    "make",
    [
        lambda n: raw_header(b"dir/%d" % n, uid=b"%07o\0" % (n % 2**20)),
        lambda n: pax_header((b"SCHILY.xattr.user.a", b"%d" % n * 50)) + raw_header(b"f%d" % n),
        lambda n: pax_header((b"comment", b"%d" % n), kind=b"g"),
        lambda n: raw_header(b"x", b"L", 600_000) + bytes(600_064),
    ],
    ids=["entries", "xattrs", "global headers", "long names"],
)
def test_endless_streams_take_bounded_memory(make):
    source = Endless(make)
    found = read_members(source, TarLimits(entries=10_000))
    tracemalloc.start()
    with pytest.raises(ImageError):
        deque(found, maxlen=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.given <= 10_002
    assert peak < 8 << 20


@pytest.mark.slow
def test_a_million_members_one_after_another():
    """A layer past the limit is read up to it, in memory that does not grow."""

    class Same:
        header = raw_header(b"dir/file", size=512)
        given = 0

        def read(self, count):
            self.given += 1
            return self.header

    source = Same()
    tracemalloc.start()
    deque(zip(range(10_000), read_members(source), strict=False), maxlen=0)
    early = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    limits = TarLimits(entries=1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="more than 1000000 entries"):
        deque(read_members(Same(), limits), maxlen=0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000
    assert early < 1 << 20


needs_gnu_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")


@pytest.fixture
def files(tmp_path):
    top = tmp_path / "files"
    deep = top / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (top / "empty").write_bytes(b"")
    (deep / ("f" * 100)).write_bytes(b"deep" * 1000)
    (top / "name with\nnewline and \xff").write_bytes(b"x" * 512)
    (top / "link").symlink_to("t" * 200)
    os.link(top / "empty", top / "zz-hard")
    os.mkfifo(top / "fifo")
    os.utime(top / "empty", ns=(0, 1_234_567_890_123_456_789))
    return top


@needs_gnu_tar
@pytest.mark.judge
@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax", "ustar", "v7"])
def test_gnu_tar(tmp_path, files, form):
    if form in {"ustar", "v7"}:
        shutil.rmtree(files / ("d" * 100))
        (files / "link").unlink()
    if form == "v7":
        (files / "fifo").unlink()
    out = tmp_path / "out.tar"
    argv = ["tar", f"--format={form}", "--sort=name", "-C", str(files), "-cf", str(out), "."]
    subprocess.run(argv, check=True, capture_output=True)
    data = out.read_bytes()
    found = read(data)
    assert [facts_of(*each) for each in found] == list(tarfile_facts(data))
    by_path = {entry.path: entry.what for entry, _ in found}
    empty = by_path[b"/empty"]
    assert isinstance(empty, RegularFile)
    assert empty.mtime_nsec == (123_456_789 if form == "pax" else 0)
    assert by_path[b"/zz-hard"] == HardLink(b"/empty")


@needs_gnu_tar
@pytest.mark.judge
def test_xattrs_as_gnu_tar_writes_them(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"x")
    try:
        os.setxattr(file, "user.cfs", b"\x00\x01=\n")
    except OSError:
        pytest.skip("no user.* attributes on this filesystem")
    argv = ["tar", "--xattrs", "-C", str(tmp_path), "-cf", str(tmp_path / "out.tar"), "f"]
    subprocess.run(argv, check=True, capture_output=True)
    ((entry, _),) = read((tmp_path / "out.tar").read_bytes())
    assert entry.what.xattrs == ((b"user.cfs", b"\x00\x01=\n"),)
