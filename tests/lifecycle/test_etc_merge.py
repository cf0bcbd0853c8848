"""The merge of /etc: each row of the table in docs/explain/etc-merge.md, then real files with everything they carry."""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cfs_core.lifecycle.etc_merge.accounts import Renumbered, owning, renumbered, without_orphans
from cfs_core.lifecycle.etc_merge.difference import differences
from cfs_core.lifecycle.etc_merge.nodes import DIRECTORY, REGULAR, SPECIAL, SYMLINK, EtcNode, same
from cfs_core.lifecycle.etc_merge.rules import OnConflict, merge
from cfs_core.lifecycle.etc_merge.scan import scan_directory, tree_of_image
from cfs_core.lifecycle.etc_merge.write import clear_flags, write_tree
from cfs_core.model.content import BytesContent
from cfs_core.model.digest import Digest
from cfs_core.model.tree import Directory, RegularFile, SpecialKind, Symlink

DOCUMENT = Path(__file__).parents[2] / "docs/explain/etc-merge.md"


def file(text="", **more):
    data = text.encode()
    return EtcNode(kind=REGULAR, digest=Digest.of(data).hex, content=BytesContent(data), **more)


def folder(**more):
    return EtcNode(kind=DIRECTORY, **{"mode": 0o755, **more})


def link(target):
    return EtcNode(kind=SYMLINK, target=target.encode(), mode=0o777)


def fifo():
    return EtcNode(kind=SPECIAL, special=SpecialKind.FIFO)


def tree(**files):
    """A tree; ``a__b`` is ``a/b``. None leaves it out."""
    made = {name.replace("__", "/").encode(): node for name, node in files.items() if node is not None}
    return {b"": folder(), **made}


OLD, L, N = file("old"), file("local"), file("new")

# rule of the document: (old, local, new) of the file `x` (and `x/y`), what comes out
ROWS = {
    "unchanged-here": [
        (tree(x=OLD), tree(x=OLD), tree(x=N), tree(x=N)),
        (tree(x=OLD), tree(x=OLD), tree(), tree()),
        (tree(), tree(), tree(x=N), tree(x=N)),
        (tree(x=OLD), tree(x=OLD), tree(x=link("y")), tree(x=link("y"))),
        (tree(x=OLD), tree(x=OLD), tree(x=folder(), x__y=N), tree(x=folder(), x__y=N)),
        (tree(x=folder(), x__y=OLD), tree(x=folder(), x__y=OLD), tree(x=link("z")), tree(x=link("z"))),
        (tree(x=folder(), x__y=OLD), tree(x=folder(), x__y=OLD), tree(), tree()),
    ],
    "unchanged-in-the-image": [
        (tree(x=OLD), tree(x=L), tree(x=OLD), tree(x=L)),
        (tree(x=OLD), tree(), tree(x=OLD), tree()),
        (tree(), tree(x=L), tree(), tree(x=L)),
        (tree(x=OLD), tree(x=fifo()), tree(x=OLD), tree(x=fifo())),
        (tree(x=OLD), tree(x=folder(), x__y=L), tree(x=OLD), tree(x=folder(), x__y=L)),
        (tree(x=folder(), x__y=OLD), tree(x=link("/var/x")), tree(x=folder(), x__y=OLD), tree(x=link("/var/x"))),
        (tree(x=folder(), x__y=OLD), tree(), tree(x=folder(), x__y=OLD), tree()),
        (tree(x=link("a")), tree(x=link("b")), tree(x=link("a")), tree(x=link("b"))),
    ],
    "same-change": [
        (tree(x=OLD), tree(x=N), tree(x=N), tree(x=N)),
        (tree(), tree(x=N), tree(x=N), tree(x=N)),
        (tree(x=OLD), tree(), tree(), tree()),
    ],
    "metadata-apart": [
        (tree(x=OLD), tree(x=replace(OLD, mode=0o600)), tree(x=N), tree(x=replace(N, mode=0o600))),
        (tree(x=OLD), tree(x=L), tree(x=replace(OLD, uid=7)), tree(x=replace(L, uid=7))),
        (
            tree(x=OLD),
            tree(x=replace(OLD, xattrs=((b"user.a", b"1"),))),
            tree(x=replace(OLD, mode=0o640)),
            tree(x=replace(OLD, mode=0o640, xattrs=((b"user.a", b"1"),))),
        ),
        (
            tree(x=folder()),
            tree(x=folder(mode=0o700), x__y=L),
            tree(x=folder(gid=5)),
            tree(x=folder(mode=0o700, gid=5), x__y=L),
        ),
        (
            tree(x=OLD),
            tree(x=replace(OLD, mode=0o600)),
            tree(x=replace(OLD, mode=0o640)),
            tree(x=replace(OLD, mode=0o600)),
        ),
    ],
    "both-changed": [
        (tree(x=OLD), tree(x=L), tree(x=N), tree(x=L)),
        (tree(), tree(x=L), tree(x=N), tree(x=L)),
        (tree(x=link("a")), tree(x=link("b")), tree(x=link("c")), tree(x=link("b"))),
        (tree(x=OLD), tree(x=link("b")), tree(x=N), tree(x=link("b"))),
    ],
    "removed-here": [
        (tree(x=OLD), tree(), tree(x=N), tree()),
        (tree(x=folder(), x__y=OLD), tree(), tree(x=folder(), x__y=N), tree()),
        (tree(x=OLD), tree(), tree(x=folder(), x__y=N), tree()),
    ],
    "removed-there": [
        (tree(x=OLD), tree(x=L), tree(), tree(x=L)),
        (tree(x=folder()), tree(x=folder(mode=0o700)), tree(), tree(x=folder(mode=0o700))),
    ],
    "directory-kept": [
        (tree(x=folder(), x__z=OLD), tree(x=folder(), x__y=L, x__z=OLD), tree(), tree(x=folder(), x__y=L)),
    ],
    "conflict": [
        (tree(x=folder(), x__y=OLD), tree(x=folder(), x__y=L), tree(x=N), tree(x=folder(), x__y=L)),
        (tree(x=folder(), x__y=OLD), tree(x=link("/var/x")), tree(x=folder(), x__y=N), tree(x=link("/var/x"))),
        (tree(x=OLD), tree(x=L), tree(x=folder(), x__y=N), tree(x=L)),
        (tree(), tree(x=folder(), x__y=L), tree(x=link("z")), tree(x=folder(), x__y=L)),
        (tree(x=folder()), tree(x=folder(mode=0o700)), tree(x=N), tree(x=folder(mode=0o700))),
    ],
}
QUIET = {"unchanged-here", "unchanged-in-the-image", "same-change", "metadata-apart"}


@pytest.mark.parametrize(
    ("rule", "number"), [(rule, number) for rule, rows in ROWS.items() for number in range(len(rows))]
)
def test_a_row_of_the_table(rule, number):
    old, local, new, expected = ROWS[rule][number]
    done = merge(old, local, new)
    assert done.tree == expected
    said = done.conflicts or done.notes
    assert [note.rule for note in said] == ([] if rule in QUIET else [rule])
    assert bool(done.conflicts) == (rule == "conflict")


def test_the_table_has_these_rows():
    said = re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(said) == sorted({*ROWS, "never", "orphan-shadow"})


@pytest.mark.parametrize("number", range(len(ROWS["conflict"])))
def test_the_image_may_win_a_conflict_and_what_loses_is_kept(number):
    old, local, new, _ = ROWS["conflict"][number]
    done = merge(old, local, new, OnConflict.IMAGE)
    assert done.tree == new
    assert done.lost[b"x"] == local[b"x"]
    assert set(done.lost) == {path for path in local if path.startswith(b"x")}


def test_the_marks_of_an_update_are_never_carried():
    done = merge(tree(**{".updated": OLD}), tree(**{".updated": L}), tree(**{".updated": N}))
    assert done.tree == tree()
    assert merge(tree(), tree(d=folder(), **{"d__.updated": L}), tree()).tree[b"d/.updated"] == L


def test_merging_twice_changes_nothing():
    for rows in ROWS.values():
        for old, local, new, _ in rows:
            once = merge(old, local, new).tree
            assert merge(new, once, new).tree == once


def test_labels_are_the_new_policys():
    label = b"security.selinux"
    old, new = (replace(OLD, xattrs=((label, text),)) for text in (b"old_t", b"new_t"))
    assert merge(tree(x=old), tree(x=old), tree(x=new)).notes == []
    assert merge(tree(x=old), tree(x=replace(old, mode=0o600)), tree(x=new)).tree[b"x"].label == b"new_t"
    assert same(old, new)


def test_orphans_leave_the_shadow_files():
    files = tree(
        passwd=file("root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n"),
        shadow=file("root:*:1::::::\ngone:!:1::::::\nme:x:1::::::\nelsewhere:!::::::\n", mode=0o640),
        group=file("root:x:0:\n"),
        gshadow=file("root:*::\n# a comment\n\ngone:!::\n"),
    )
    cleaned, removed = without_orphans(files, frozenset({b"elsewhere"}))
    assert removed == ("shadow: gone", "gshadow: gone")
    assert cleaned[b"shadow"].content.data == b"root:*:1::::::\nme:x:1::::::\nelsewhere:!::::::\n"
    assert (cleaned[b"shadow"].mode, cleaned[b"gshadow"].content.data) == (0o640, b"root:*::\n# a comment\n\n")
    assert without_orphans(tree(shadow=file("a:b\n"))) == (tree(shadow=file("a:b\n")), ())


def test_numbers_that_change_are_found():
    before = tree(passwd=file("root:x:0:0\nnginx:x:990:5\n"), group=file("nginx:x:990:\n"))
    after = tree(passwd=file("root:x:0:0\nnginx:x:991:5\nnew:x:5:5\n"), group=file("nginx:x:990:\n"))
    assert renumbered(before, after) == (Renumbered(kind="user", name="nginx", old=990, new=991),)


def test_only_numbers_that_own_something_matter(tmp_path):
    mine, nobody = os.geteuid(), 4_000_000
    changed = tuple(Renumbered(kind="user", name=f"u{old}", old=old, new=5) for old in (mine, nobody))
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert owning(changed, [tmp_path, tmp_path / "missing"]) == changed[:1]
    assert owning(changed, [tmp_path / "a/b"]) == ()
    assert owning((), [tmp_path]) == ()


def test_differences():
    image = tree(a=OLD, b=OLD, d=folder(), d__e=OLD, k=OLD, m=OLD, **{".updated": OLD})
    local = tree(a=L, c=L, f=folder(), f__g=L, k=link("x"), m=replace(OLD, mode=0o600, uid=4))
    assert [(each.path, each.change, each.what) for each in differences(image, local)] == [
        ("a", "modified", ("content",)), ("b", "removed", ()), ("c", "added", ()), ("d", "removed", ()),
        ("f", "added", ()), ("k", "modified", ("kind", "mode")), ("m", "modified", ("mode", "owner")),
    ]  # fmt: skip


def test_real_files_go_over_with_everything_they_carry(tmp_path):
    etc = tmp_path / "etc"
    (etc / "d").mkdir(parents=True, mode=0o750)
    (etc / "d/one").write_text("content")
    (etc / "d/one").chmod(0o4711)
    os.link(etc / "d/one", etc / "two")
    (etc / "link").symlink_to("/outside")
    (etc / os.fsdecode(b"\xfe")).symlink_to(os.fsdecode(b"/\xff"))
    os.mkfifo(etc / "fifo", 0o620)
    os.setxattr(etc / "d", "user.x", b"1\0")
    os.utime(etc / "d/one", ns=(5, 1234567891))
    import socket

    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(etc / "socket"))
    found = scan_directory(etc)
    assert set(found) == {b"", b"d", b"d/one", b"two", b"link", b"\xfe", b"fifo"}
    write_tree(found, tmp_path / "copy")
    again = scan_directory(tmp_path / "copy")
    assert again == {path: replace(node, identity=None) for path, node in found.items()}
    assert (tmp_path / "copy/two").samefile(tmp_path / "copy/d/one")
    assert stat.S_IMODE((tmp_path / "copy/d/one").stat().st_mode) == 0o4711
    with pytest.raises(FileExistsError):
        write_tree(found, tmp_path / "copy")


@pytest.mark.skipif(os.geteuid() != 0, reason="capabilities, owners and flags need root")
def test_owners_capabilities_acls_and_flags(tmp_path):
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "f").write_text("x")
    os.chown(etc / "f", 12, 34)
    capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, who)
        for tag, bits, who in ((1, 6, 2**32 - 1), (2, 4, 99), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1))
    )
    for name, value in (("security.capability", capability), ("system.posix_acl_access", acl)):
        try:
            os.setxattr(etc / "f", name, value)
        except OSError:
            pytest.skip(f"no {name} on this filesystem")
    write_tree(scan_directory(etc), tmp_path / "copy")
    copy = tmp_path / "copy/f"
    assert (copy.stat().st_uid, copy.stat().st_gid) == (12, 34)
    assert os.getxattr(copy, "security.capability") == capability
    assert os.getxattr(copy, "system.posix_acl_access") == os.getxattr(etc / "f", "system.posix_acl_access")
    if subprocess.run(["chattr", "+i", etc / "f"], check=False, capture_output=True).returncode:
        pytest.skip("no immutable flag on this filesystem")
    try:
        write_tree(scan_directory(etc), tmp_path / "second")
        with pytest.raises(PermissionError):
            (tmp_path / "second/f").unlink()
    finally:
        for each in (etc, tmp_path / "second"):
            clear_flags(each)
    (tmp_path / "second/f").unlink()


def test_what_an_image_has_reads_like_the_copy_of_it(tmp_path):
    made = Directory(0o755)
    one = RegularFile(0o640, mtime_sec=5, mtime_nsec=6)
    one.data, one.size = b"x", 1
    stored = RegularFile(0o600)
    stored.object = "id"
    made.entries = {b"a": one, b"b": one, b"c": Symlink(0o777, target=b"a"), b"d": stored}
    made.uid = made.gid = one.uid = one.gid = stored.uid = stored.gid = 0
    found = tree_of_image(made, lambda _: BytesContent(b"stored"))
    own = {path: replace(node, uid=os.geteuid(), gid=os.getegid()) for path, node in found.items()}
    write_tree(own, tmp_path / "copy")
    assert scan_directory(tmp_path / "copy") == own
    assert (tmp_path / "copy/a").samefile(tmp_path / "copy/b")
    assert (tmp_path / "copy/d").read_bytes() == b"stored"


def test_a_link_out_of_etc_is_never_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "d").symlink_to(outside)
    local = scan_directory(etc)
    old, new = tree(d=folder()), tree(d=folder(), d__file=file("new"))
    own = {"uid": os.geteuid(), "gid": os.getegid()}
    done = merge(old, local, {path: replace(node, **own) for path, node in new.items()}, OnConflict.LOCAL)
    assert [note.path for note in done.conflicts] == [b"d"]
    write_tree({path: replace(node, **own) for path, node in done.tree.items()}, tmp_path / "merged")
    assert (tmp_path / "merged/d").readlink() == outside
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
