import io

import pytest

from cfs_core.errors import ImageError, LimitError
from cfs_core.model.layer import HardLink, Opaque, Whiteout
from cfs_core.model.tree import Directory, RegularFile, Special, SpecialKind, Symlink
from cfs_core.tar import TarLimits, read_members
from cfs_testkit.builders.oci import Device, Dir, Fifo, File, Hard, Link, padded, pax_header, raw_header, tar_bytes

END = bytes(1024)


def members(data: bytes, limits: TarLimits | None = None):
    source = io.BytesIO(data)
    found = []
    rebuilt = b""
    for member in read_members(source, limits):
        found.append(member)
        rebuilt += member.raw + source.read(member.size)
    assert rebuilt + source.read() == data
    assert found[-1].entry is None
    assert found[-1].size == 0
    return found


def entries(data: bytes, limits: TarLimits | None = None):
    return [member.entry for member in members(data, limits) if member.entry is not None]


def one(data: bytes):
    (entry,) = entries(data + END)
    return entry


def test_every_kind_of_file():
    tree = {
        "d": Dir(0o1777, 5, 6),
        "d/f": File(b"hello", 0o4755, 1000, 100, "12.5", {"user.b": b"\x00\xff", "security.capability": b"x=y"}),
        "d/s": Link("../somewhere/else"),
        "d/h": Hard("d/f"),
        "d/c": Device(4, 300),
        "d/b": Device(259, 70000, block=True),
        "d/p": Fifo(),
    }
    found = {entry.path: entry.what for entry in entries(tar_bytes(tree))}
    directory, file = found[b"/d"], found[b"/d/f"]
    assert isinstance(directory, Directory)
    assert (directory.mode, directory.uid, directory.gid) == (0o1777, 5, 6)
    assert isinstance(file, RegularFile)
    assert (file.size, file.data, file.object) == (5, None, None)
    assert (file.mode, file.uid, file.gid, file.mtime_sec, file.mtime_nsec) == (0o4755, 1000, 100, 12, 500_000_000)
    assert file.xattrs == ((b"security.capability", b"x=y"), (b"user.b", b"\x00\xff"))
    symlink, char, block, fifo = (found[b"/d/" + name] for name in (b"s", b"c", b"b", b"p"))
    assert isinstance(symlink, Symlink)
    assert symlink.target == b"../somewhere/else"
    assert found[b"/d/h"] == HardLink(b"/d/f")
    assert isinstance(char, Special)
    assert (char.kind, char.rdev) == (SpecialKind.CHAR, (300 & 0xFF) | 4 << 8 | (300 >> 8) << 20)
    assert isinstance(block, Special)
    assert (block.kind, block.rdev) == (SpecialKind.BLOCK, (70000 & 0xFF) | 259 << 8 | (70000 >> 8) << 20)
    assert isinstance(fifo, Special)
    assert fifo.kind is SpecialKind.FIFO


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a", b"/a"),
        (b"/a", b"/a"),
        (b"./a/b", b"/a/b"),
        (b"a//b", b"/a/b"),
        (b"a/./b/.", b"/a/b"),
        (b"\xff\xfe", b"/\xff\xfe"),
        (b"...", b"/..."),
        (b"..a/b..", b"/..a/b.."),
    ],
)
def test_paths_are_normalised(name, path):
    assert one(raw_header(name)).path == path
    assert one(raw_header(b"h", b"1", link=name)).what == HardLink(path)
    assert one(raw_header(name + b"/", b"5")).path == path


@pytest.mark.parametrize("name", [b"/", b".", b"./", b"//", b"./."])
def test_root(name):
    assert one(raw_header(name, b"5")).path == b"/"


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/../b", b"a/..", b"/..", b"./.."])
@pytest.mark.parametrize("kind", ["path", "pax", "long", "link"])
def test_names_that_leave_the_tree(name, kind):
    data = {
        "path": raw_header(name),
        "pax": pax_header((b"path", name)) + raw_header(b"x"),
        "long": raw_header(b"@", b"L", len(name)) + padded(name) + raw_header(b"x"),
        "link": raw_header(b"x", b"1", link=name),
    }[kind]
    with pytest.raises(ImageError, match="leaves the tree"):
        entries(data)


def test_whiteouts():
    assert one(raw_header(b"a/.wh.b")).what == Whiteout()
    assert one(raw_header(b"a/.wh.b")).path == b"/a/b"
    assert one(raw_header(b".wh.b")).path == b"/b"
    assert one(raw_header(b"a/.wh..wh..opq")).what == Opaque()
    assert one(raw_header(b"a/.wh..wh..opq")).path == b"/a"
    assert one(raw_header(b".wh..wh..opq")).path == b"/"
    for name in (b".wh.", b"a/.wh..", b"a/.wh..."):
        with pytest.raises(ImageError, match="whiteout of nothing"):
            one(raw_header(name))


def test_names_longer_than_a_header():
    long = b"/".join([b"d" * 60] * 4)
    assert one(raw_header(b"f" * 100, prefix=b"p" * 100)).path == b"/" + b"p" * 100 + b"/" + b"f" * 100
    assert one(raw_header(b"@", b"L", len(long) + 1) + padded(long + b"\0") + raw_header(b"x")).path == b"/" + long
    linked = raw_header(b"@", b"K", len(long) + 1) + padded(long + b"\0")
    assert one(linked + raw_header(b"x", b"2")).what.target == long
    assert one(linked + raw_header(b"x", b"1")).what == HardLink(b"/" + long)
    assert one(raw_header(b"f", link=b"l" * 100, kind=b"2")).what.target == b"l" * 100
    both = raw_header(b"@", b"L", 3) + padded(b"gnu") + pax_header((b"path", b"pax")) + raw_header(b"header")
    assert one(both).path == b"/pax"


def test_the_prefix_counts_only_in_ustar_headers():
    assert one(raw_header(b"f", prefix=b"p", magic=b"ustar  \0")).path == b"/f"


def test_numbers():
    big = raw_header(
        b"f", uid=b"\x80\0\0\0" + (70000).to_bytes(4, "big"), mtime=b"\x80" + (1 << 34).to_bytes(11, "big")
    )
    assert (one(big).what.uid, one(big).what.mtime_sec) == (70000, 1 << 34)
    spaced = raw_header(b"f", uid=b"   17 \0 ", gid=b"00000021", mode=b"100755\0 ")
    assert (one(spaced).what.uid, one(spaced).what.gid, one(spaced).what.mode) == (0o17, 0o21, 0o755)
    assert one(raw_header(b"f", uid=bytes(8))).what.uid == 0
    records = pax_header((b"uid", b"4294967295"), (b"gid", b"5"), (b"mtime", b"1.0000000019"))
    node = one(records + raw_header(b"f")).what
    assert (node.uid, node.gid, node.mtime_sec, node.mtime_nsec) == (4294967295, 5, 1, 1)


@pytest.mark.parametrize(
    "data",
    [
        raw_header(b"f", uid=b"\xff" * 8),
        raw_header(b"f", uid=b"\x80" + b"\x7f" * 7),
        raw_header(b"f", mtime=b"\x80" + b"\x7f" * 11),
        raw_header(b"f", uid=b"0000+17\0"),
        raw_header(b"f", uid=b"00_0017\0"),
        raw_header(b"f", uid=b"0o00017\0"),
        raw_header(b"f", uid=b"0000018\0"),
        raw_header(b"f", size=b"-0000000017\0"),
        raw_header(b"f", checksum=b"000000\0 "),
        raw_header(b"f", checksum=b"zzzzzz\0 "),
        pax_header((b"uid", b"4294967296")) + raw_header(b"f"),
        pax_header((b"size", b"-1")) + raw_header(b"f"),
        pax_header((b"size", b"9" * 19)) + raw_header(b"f"),
        pax_header((b"size", b"9" * 5000)) + raw_header(b"f"),
        pax_header((b"mtime", b"-")) + raw_header(b"f"),
        pax_header((b"mtime", b"--5")) + raw_header(b"f"),
        pax_header((b"uid", b"-5")) + raw_header(b"f"),
        pax_header((b"mtime", b"1.5e3")) + raw_header(b"f"),
        pax_header((b"mtime", b".5")) + raw_header(b"f"),
        raw_header(b"c", b"3", major=b"0010000\0"),
        raw_header(b"c", b"3", minor=b"\x80\0\0\0\0\x10\0\0"),
        raw_header(b"c", b"3", magic=bytes(8)),
    ],
)
def test_numbers_that_are_none(data):
    with pytest.raises(ImageError):
        entries(data + END)


@pytest.mark.parametrize(
    ("data", "seconds", "nanoseconds"),
    [
        (raw_header(b"f", mtime=b"\xff" * 12), -1, 0),
        (raw_header(b"f", mtime=b"\xff" * 11 + b"\xf6"), -10, 0),
        (pax_header((b"mtime", b"-5")) + raw_header(b"f"), -5, 0),
        (pax_header((b"mtime", b"-1.5")) + raw_header(b"f"), -2, 500_000_000),
        (pax_header((b"mtime", b"-0.000000001")) + raw_header(b"f"), -1, 999_999_999),
        (pax_header((b"mtime", b"-0")) + raw_header(b"f"), 0, 0),
    ],
)
def test_times_before_1970(data, seconds, nanoseconds):
    node = one(data).what
    assert (node.mtime_sec, node.mtime_nsec) == (seconds, nanoseconds)


def test_empty_pax_values_take_back_what_was_said():
    names = ((b"path", b"other"), (b"uid", b"7"), (b"mtime", b"9.5"))
    empty = tuple((key, b"") for key in (b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime", b"uname"))
    for records in (empty, (*names, *empty)):
        entry = one(pax_header(*records) + raw_header(b"f"))
        plain = one(raw_header(b"f"))
        assert entry.path == b"/f"
        assert (entry.what.uid, entry.what.mtime_sec, entry.what.mtime_nsec) == (
            plain.what.uid,
            plain.what.mtime_sec,
            0,
        )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pax_header((b"path", b"a\0b")) + raw_header(b"f"), "impossible path"),
        (pax_header((b"linkpath", b"a\0b")) + raw_header(b"f", b"2"), "impossible link"),
        (pax_header((b"SCHILY.xattr.", b"v")) + raw_header(b"f"), "impossible name"),
        (pax_header((b"SCHILY.xattr.user.\0", b"v")) + raw_header(b"f"), "impossible name"),
        (pax_header((b"a", b"b")) * 2 + raw_header(b"f"), "two pax headers"),
        ((raw_header(b"@", b"L", 1) + padded(b"a")) * 2 + raw_header(b"f"), "two GNU long name"),
        ((raw_header(b"@", b"K", 1) + padded(b"a")) * 2 + raw_header(b"f"), "two GNU long link"),
        (raw_header(b"@", b"L", 3) + padded(b"a\0b") + raw_header(b"f"), "NUL"),
        (raw_header(b"@", b"L", 3) + padded(b"\0\0\0") + raw_header(b"f"), "empty"),
        (pax_header((b"a", b"b")), "not followed"),
        (pax_header((b"a", b"b")) + pax_header((b"a", b"b"), kind=b"g") + raw_header(b"f"), "not followed"),
        (raw_header(b"p", b"x", 6) + padded(b"6 abc\n") + raw_header(b"f"), "malformed"),
        (raw_header(b"p", b"x", 8) + padded(b"8 abc=\0\0") + raw_header(b"f"), "malformed"),
        (raw_header(b"p", b"x", 9) + padded(b"99 a=bcd\n") + raw_header(b"f"), "malformed"),
        (raw_header(b"p", b"x", 9) + padded(b"-9 a=bcd\n") + raw_header(b"f"), "malformed"),
        (raw_header(b"p", b"x", 9) + padded(b"0 a=bcdd\n") + raw_header(b"f"), "malformed"),
        (raw_header(b"p", b"x", 9) + padded(b"3 a=bcdd\n") + raw_header(b"f"), "malformed"),
        (raw_header(b"p", b"x", 7, magic=bytes(8)) + padded(b"7 a=bc\n") + raw_header(b"f"), "neither in ustar"),
        (raw_header(b"f", b"S"), "sparse"),
        (pax_header((b"GNU.sparse.major", b"1")) + raw_header(b"f"), "sparse"),
        (pax_header((b"GNU.sparse.map", b"0,1")) + raw_header(b"f"), "sparse"),
        (raw_header(b"f", b"V"), "unsupported tar entry type 'V'"),
        (raw_header(b""), "no name"),
        (raw_header(b"s", b"2"), "nowhere"),
        (raw_header(b"s", b"1"), "nowhere"),
        (raw_header(b"d", b"5", 5) + padded(b"12345"), "claims 5 bytes"),
        (raw_header(b"s", b"1", 5, link=b"a") + padded(b"12345"), "claims 5 bytes"),
        (raw_header(b"d/", b"\0"), "named like a directory"),
        (bytes(512) + raw_header(b"f"), "single zero block"),
    ],
)
def test_malformed(data, message):
    with pytest.raises(ImageError, match=message) as caught:
        entries(data + END)
    assert caught.value.message
    assert "after_entry" in caught.value.facts


def test_later_pax_records_win():
    node = one(
        pax_header((b"uid", b"1"), (b"SCHILY.xattr.a", b"1"), (b"uid", b"2"), (b"SCHILY.xattr.a", b"2"))
        + raw_header(b"f")
    )
    assert node.what.uid == 2
    assert node.what.xattrs == ((b"a", b"2"),)


def test_other_records_and_global_headers_say_nothing():
    data = pax_header((b"path", b"other"), (b"uid", b"7"), kind=b"g")
    data += pax_header((b"LIBARCHIVE.xattr.a", b"1"), (b"atime", b"x"), (b"comment", b"=a=\n")) + raw_header(b"f") + END
    found = members(data)
    assert [member.entry and member.entry.path for member in found] == [None, b"/f", None]
    assert found[1].entry.what.xattrs == ()


def test_equal_xattr_sets_are_one_tuple():
    data = (pax_header((b"SCHILY.xattr.b", b"1"), (b"SCHILY.xattr.a", b"2")) + raw_header(b"f")) * 2
    first, second = entries(data + END)
    assert first.what.xattrs is second.what.xattrs


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1024) + b"odd bytes behind the end"])
def test_ends(end):
    data = raw_header(b"f", size=3) + padded(b"abc")
    assert [entry.path for entry in entries(data + end)] == [b"/f"]


@pytest.mark.parametrize("cut", [1, 511, 515, 600, 1023, 1024 + 100, 1024 + 600, 1024 + 1024 + 100])
def test_truncated(cut):
    data = raw_header(b"f", size=3) + padded(b"abc") + pax_header((b"uid", b"2")) + raw_header(b"g")
    with pytest.raises(ImageError, match=r"ends|not followed"):
        members(data[:cut])


def test_limits():
    ten = b"".join(raw_header(b"%d" % i) for i in range(10)) + END
    assert len(entries(ten, TarLimits(entries=10))) == 10
    deep = raw_header(b"/".join([b"d"] * 20))
    with pytest.raises(LimitError, match="9 entries"):
        entries(ten, TarLimits(entries=9))
    with pytest.raises(LimitError, match="components"):
        entries(deep, TarLimits(path_depth=19))
    with pytest.raises(LimitError, match="file name"):
        entries(pax_header((b"path", b"x" * 256)) + raw_header(b"f"))
    with pytest.raises(LimitError, match="one path"):
        entries(pax_header((b"path", b"x/" * 33_000)) + raw_header(b"f"))
    with pytest.raises(LimitError, match="target"):
        entries(pax_header((b"linkpath", b"x" * 5000)) + raw_header(b"f", b"2"))
    with pytest.raises(LimitError, match="one file"):
        entries(raw_header(b"f", size=100), TarLimits(file_bytes=99))
    with pytest.raises(LimitError, match="attributes"):
        entries(pax_header((b"SCHILY.xattr.a", b"x" * 70000)) + raw_header(b"f"))
    with pytest.raises(LimitError, match="attributes"):
        entries(pax_header(*((b"SCHILY.xattr.%d" % i, b"") for i in range(300))) + raw_header(b"f"))
    with pytest.raises(LimitError, match="name of an extended"):
        entries(pax_header((b"SCHILY.xattr." + b"a" * 256, b"")) + raw_header(b"f"))
    for kind in (b"x", b"L", b"K", b"g"):
        with pytest.raises(LimitError, match="extension headers"):
            entries(raw_header(b"p", kind, 2 << 20))
