"""Dump files: what is accepted, what is refused with its line, and how trees are written."""

import io

import pytest

from cfs_core.plugin import Directory, HashAlgorithm, ImageError, RegularFile, Special, SpecialKind, Symlink
from cfs_storage_composefs.dump import read as dumpfile
from cfs_storage_composefs.dump.read import read_dump, write_dump

ROOT = b"/ 0 40755 2 0 0 0 0.0 - - -\n"
HEX = b"ab" * 32


def parse(text):
    return read_dump(io.BytesIO(text))


def written(tree, algorithm=HashAlgorithm.SHA256):
    out = io.BytesIO()
    write_dump(tree, out, algorithm)
    return out.getvalue()


def only(line):
    (node,) = parse(ROOT + line).entries.values()
    return node


def test_metadata():
    node = only(b"/f 5 104755 7 1 2 0 -3.999999999 - hello - user.b=2 user.a=1\\x00\\x3d= user.b=3\n")
    assert (node.mode, node.uid, node.gid, node.mtime_sec, node.mtime_nsec) == (0o4755, 1, 2, -3, 999_999_999)
    assert node.xattrs == ((b"user.a", b"1\0=="), (b"user.b", b"3"))
    assert (node.data, node.size, node.nlink) == (b"hello", 5, 7)


def test_nanoseconds_are_a_number():
    assert only(b"/f 0 100644 1 0 0 0 1.5 - - -\n").mtime_nsec == 5


def test_contents_of_regular_files():
    stored = only(b"/f 99 100644 1 0 0 0 0.0 %b/%b - %b\n" % (HEX[:2], HEX[2:], HEX))
    assert (stored.object, stored.path, stored.data, stored.size) == (HEX.decode(), None, None, 99)
    elsewhere = only(b"/f 99 100644 1 0 0 0 0.0 some/where - %b\n" % HEX.upper())
    assert (elsewhere.object, elsewhere.path) == (HEX.decode(), b"some/where")
    assert only(b"/f 99 100644 1 0 0 0 0.0 - - %b\n" % HEX).path == b""
    assert only(b"/f 99 100644 1 0 0 0 0.0 some/where - -\n").path == b"some/where"
    hole = only(b"/f 99 100644 1 0 0 0 0.0 - - -\n")
    assert (hole.object, hole.path, hole.data, hole.size) == (None, None, None, 99)
    assert only(b"/f 0 100644 1 0 0 0 0.0 - - -\n").data == b""


def test_bits_above_the_type_are_ignored():
    node = only(b"/l 0 20720777 1 0 0 0 0.0 target - -\n")
    assert isinstance(node, Symlink)
    assert node.mode == 0o777


def test_raw_bytes_and_escapes():
    node = only(b"/\xff\\xfe\\n\\\\\xc3\xa4 0 120777 1 0 0 0 0.0 \x80\\t - -\n")
    assert node.target == b"\x80\t"
    assert parse(ROOT + b"/\xff\\xfe\\n\\\\\xc3\xa4 0 10777 1 0 0 0 0.0 - - -\n").entries.keys() == {
        b"\xff\xfe\n\\\xc3\xa4"
    }


def test_missing_end():
    assert isinstance(only(b"/f 0 10644 1 0 0 0 0.0"), Special)
    assert only(b"/f 0 10644 1 0 0 0 0.0 - - - ").xattrs == ()


def test_devices():
    assert only(b"/d 0 60644 1 0 0 4294967297 0.0 - - -\n").rdev == 1
    assert only(b"/d 0 140644 1 0 0 7 0.0 - - -\n").kind is SpecialKind.SOCKET


def test_hard_links_before_their_target_and_in_chains():
    tree = parse(
        ROOT
        + b"/a 0 @100644 - - - - 0.0 /b - -\n"
        + b"/b 0 @100644 - - - - 0.0 /d/c - -\n"
        + b"/d 0 40755 2 0 0 0 0.0 - - -\n"
        + b"/d/c 1 100644 3 0 0 0 0.0 - x -\n"
    )
    leaf = tree.entries[b"d"].entries[b"c"]
    assert tree.entries[b"a"] is tree.entries[b"b"] is leaf
    assert leaf.nlink == 3


FILE = b"/f %b 1 0 0 0 0.0 - - -\n"
REFUSED = [
    (b"", 1, "nothing describes the root"),
    (b"/f 0 100644 1 0 0 0 0.0 - - -\n", 1, "root must come first"),
    (b"/ 0 100644 1 0 0 0 0.0 - - -\n", 1, "root must be a directory|root must come first"),
    (ROOT + ROOT, 2, "second root"),
    (ROOT + b"\n", 2, "SIZE is|PATH is|missing"),
    (ROOT + b"f 0 10644 1 0 0 0 0.0 - - -\n", 2, "PATH is b'f'"),
    (ROOT + b"/a/b 0 10644 1 0 0 0 0.0 - - -\n", 2, "no directory b'/a'"),
    (ROOT + b"//b 0 10644 1 0 0 0 0.0 - - -\n", 2, "no directory"),
    (ROOT + b"/.. 0 10644 1 0 0 0 0.0 - - -\n", 2, "cannot be a file name"),
    (ROOT + b"/%b 0 10644 1 0 0 0 0.0 - - -\n" % (b"x" * 256), 2, "cannot be a file name"),
    (ROOT + b"/a\\x00 0 10644 1 0 0 0 0.0 - - -\n", 2, "cannot be a file name"),
    (ROOT + b"/f 0 10644 1 0 0 0 0.0 - - -\n" * 2, 3, "there twice"),
    (ROOT + b"/f x 10644 1 0 0 0 0.0 - - -\n", 2, "SIZE is b'x'"),
    (ROOT + b"/f 0 89 1 0 0 0 0.0 - - -\n", 2, "MODE is b'89'"),
    (ROOT + b"/f 0 0644 1 0 0 0 0.0 - - -\n", 2, "no file type"),
    (ROOT + b"/f 0 10644 1_0 0 0 0 0.0 - - -\n", 2, "NLINK is"),
    (ROOT + b"/f 0 10644 1 +1 0 0 0.0 - - -\n", 2, "UID is"),
    (ROOT + b"/f 0 10644 1 0 4294967296 0 0.0 - - -\n", 2, "over 4294967295"),
    (ROOT + b"/f 0 10644 1 0 0 0 0 - - -\n", 2, "MTIME is"),
    (ROOT + b"/f 0 10644 1 0 0 0 0.1000000000 - - -\n", 2, "MTIME is"),
    (ROOT + b"/f 0 10644 1 0 0 0 9223372036854775808.0 - - -\n", 2, "out of range"),
    (ROOT + b"/f 0 100644 1 0 0 0 0.0 - \\q -\n", 2, "unknown escape"),
    (ROOT + b"/f 0 100644 1 0 0 0 0.0 - \\x4 -\n", 2, "unknown escape"),
    (ROOT + b"/f 0 100644 1 0 0 0 0.0 - \\", 2, "unknown escape"),
    (ROOT + b"/f 2 100644 1 0 0 0 0.0 - abc -\n", 2, "content of 3 bytes, SIZE says 2"),
    (ROOT + b"/f 5001 100644 1 0 0 0 0.0 - %b -\n" % (b"x" * 5001), 2, "at most 5000"),
    (ROOT + b"/f 99 100644 1 0 0 0 0.0 - - abc\n", 2, "DIGEST is"),
    (ROOT + b"/f 99 100644 1 0 0 0 0.0 - - %b\n" % (b"zz" * 32), 2, "DIGEST is"),
    (ROOT + b"/f 99 100644 1 0 0 0 0.0 %b - -\n" % (b"p" * 4096), 2, "an object path of 4096 bytes"),
    (ROOT + b"/l 0 120777 1 0 0 0 0.0 - - -\n", 2, "target of 0 bytes"),
    (ROOT + b"/l 0 120777 1 0 0 0 0.0 %b - -\n" % (b"t" * 4096), 2, "target of 4096 bytes"),
    (ROOT + b"/l 0 120777 1 0 0 0 0.0 a\\x00b - -\n", 2, "target of 3 bytes"),
    (ROOT + b"/f 0 10644 1 0 0 0 0.0 - - - user.a\n", 2, "no extended attribute"),
    (ROOT + b"/f 0 10644 1 0 0 0 0.0 - - - =v\n", 2, "no extended attribute"),
    (ROOT + b"/f 0 10644 1 0 0 0 0.0 - - - a=1  b=2\n", 2, "no extended attribute"),
    (ROOT + b"/f 0 10644 1 0 0 0 0.0 - - - %b=1\n" % (b"n" * 256), 2, "no extended attribute"),
    (ROOT + b"/f 0 10644 1 0 0 0 0.0 - - - a=%b\n" % (b"v" * 32768), 2, "more than 32767 bytes"),
    (ROOT + b"/f 0 10644 1 0 0 0 0.0 - - - a=%b\n" % (b"v" * 65536), 2, "more than 65535 bytes"),
    (ROOT + b"/f 0 @100644 - - - - 0.0 - - -\n", 2, "without a target"),
    (ROOT + b"/f 0 @100644 - - - - 0.0 /f - -\n", 2, "leads to itself"),
    (ROOT + b"/f 0 @100644 - - - - 0.0 /g - -\n/g 0 @100644 - - - - 0.0 /f - -\n", 2, "leads to itself"),
    (ROOT + b"/f 0 @100644 - - - - 0.0 /nothing - -\n", 2, "no file b'/nothing'"),
    (ROOT + b"/f 0 @100644 - - - - 0.0 / - -\n", 2, "directories cannot"),
    (ROOT + b"/f 0 @40755 - - - - 0.0 / - -\n", 2, "directories cannot"),
    (ROOT + b"/f\0 0 10644 1 0 0 0 0.0 - - -\n", 2, "embedded NUL"),
    (ROOT + b"/f 9007199254740993000 100644 1 0 0 0 0.0 - - -\n", 2, "too big"),
]


@pytest.mark.parametrize(("text", "line", "message"), REFUSED)
def test_refused_with_its_line(text, line, message):
    with pytest.raises(ImageError, match=f"^line {line} of the dump file: .*({message})") as caught:
        parse(text)
    assert caught.value.hint
    assert caught.value.facts == {"line": line}


class Endless(io.RawIOBase):
    """A line without end."""

    given = 0

    def read(self, size=-1):
        self.given += size
        return b"/" * size


def test_endless_line_is_given_up():
    source = Endless()
    with pytest.raises(ImageError, match="longer than"):
        read_dump(source)
    assert source.given < 4 * dumpfile.LINE_MAX


def test_written_form():
    tree = Directory(0o755, mtime_sec=5, mtime_nsec=7)
    tree.xattrs = ((b"user.eq=", b"-"), (b"user.empty", b""))
    shared = RegularFile(0o644)
    shared.data = b"-"
    shared.size = 1
    stored = RegularFile(0o600, 70_000, 5)
    stored.object = HEX.decode()
    stored.size = 100
    sub = Directory(0o700)
    sub.entries = {b"z z": shared, b"\xff\t\\": Symlink(0o777, target=b"a=b\n")}
    empty = RegularFile(0o644)
    empty.data = b""
    tree.entries = {
        b"sub": sub,
        b"a-": shared,
        b"x": stored,
        b"dev": Special(0o600, kind=SpecialKind.CHAR, rdev=259),
        b"e": empty,
    }
    assert written(tree) == (
        b"/ 0 40755 3 0 0 0 5.7 - - - user.empty= user.eq\\x3d=-\n"
        b"/a- 1 100644 2 0 0 0 0.0 - \\x2d -\n"
        b"/dev 0 20600 1 0 0 259 0.0 - - -\n"
        b"/e 0 100644 1 0 0 0 0.0 - - -\n"
        b"/sub 0 40700 2 0 0 0 0.0 - - -\n"
        b"/sub/z\\x20z 0 @120000 - - - - 0.0 /a- - -\n"
        b"/sub/\\xff\\t\\\\ 4 120777 1 0 0 0 0.0 a=b\\n - -\n"
        b"/x 100 100600 1 70000 5 0 0.0 ab/%b - %b\n" % (HEX[2:], HEX)
    )


def test_objects_of_another_hash_are_refused():
    stored = RegularFile(0o600)
    stored.object = HEX.decode()
    tree = Directory(0o755)
    tree.entries = {b"x": stored}
    with pytest.raises(ImageError, match="sha512"):
        written(tree, HashAlgorithm.SHA512)
