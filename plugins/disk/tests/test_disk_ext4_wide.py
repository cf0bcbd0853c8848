"""Directories with many names: made with an index, in linear time, right for e2fsck and the kernel."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import time
import uuid

import pytest
from conftest_disk import EPOCH, Tree, partition_of

from cfs_core.plugin import DiskError, HashAlgorithm, MakeSpecial, MakeSymlink, SpecialKind, read_all
from cfs_disk.ext4.filesystem import Ext4Filesystem
from cfs_disk.ext4.index import arrange
from cfs_disk.ext4.name_hash import name_hash
from cfs_disk.ext4.nodes import collect
from cfs_disk.ext4.read import Ext4Reader
from cfs_disk.ext4.wide import WIDE, hash_words

pytestmark = pytest.mark.skipif(shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin") is None, reason="e2fsprogs")
ROUTES = [pytest.param(True, id="tar"), pytest.param(False, id="staging")]
SEED = "11111111-2222-3333-4444-555555555555"
INDEXED = 0x1000


def build(context, make_region, tree, *, prefer_tar=True):
    filesystem = Ext4Filesystem(context, prefer_tar=prefer_tar)
    if prefer_tar and not filesystem._reads_tar():
        pytest.skip("this mkfs.ext4 does not read tar streams")
    region = make_region(filesystem.bytes_needed(tree.contents))
    filesystem.build(tree.contents, partition_of(region), region)
    assert list(filesystem.check(region)) == []
    return region


@pytest.fixture
def wide_tree():
    """Wide directories below, beside and within each other; names in them that are anything a name can be."""
    tree = Tree()
    tree.directory("/")
    tree.directory("/.cfs-wide")
    tree.directory("/lost+found", mode=0o700)
    tree.directory("/wide", mode=0o1770, uid=7, mtime_sec=5, mtime_nsec=6, xattrs=((b"user.a", b"b"),))
    for number in range(WIDE):
        tree.file(f"/wide/{number}", b"")
    tree.file("/wide/verity", b"v" * 70_000, HashAlgorithm.SHA512, uid=70_000, mtime_nsec=3)
    for name in ("é" * 100, "\udcff\udcfe", 'q"uo te\nline', "n" * 255, "\x01"):
        tree.file(f"/wide/{name}", name.encode("utf-8", "surrogateescape"))
    tree.add(MakeSymlink, "/wide/link", target="x" * 100)
    tree.add(MakeSpecial, "/wide/null", kind=SpecialKind.CHAR, rdev=0x103)
    tree.add(MakeSpecial, "/wide/fifo", kind=SpecialKind.FIFO)
    tree.directory("/wide/plain")
    tree.directory("/wide/plain/sub")
    tree.file("/wide/plain/sub/file", b"below")
    tree.directory("/wide/within", mode=0o711)
    for number in range(WIDE + 1):
        tree.directory(f"/wide/within/{number}")
    tree.directory("/wide/plain/wide")
    for number in range(WIDE + 1):
        tree.file(f"/wide/plain/wide/{number}", b"%d" % number)
    tree.link("/wide/hard", "/wide/verity")
    tree.link("/outside", "/wide/plain/sub/file")
    return tree


@pytest.mark.parametrize("prefer_tar", ROUTES)
def test_everything_is_in_its_place(context, make_region, wide_tree, prefer_tar):
    region = build(context, make_region, wide_tree, prefer_tar=prefer_tar)
    wanted = collect(wide_tree.contents, EPOCH)
    with Ext4Reader(region) as reader:
        found = {path.encode("utf-8", "surrogateescape"): inode for path, inode in reader.walk()}
        expected = {node.path for node in wanted.nodes} | {name for name, _ in wanted.links}
        assert found.keys() == expected - {b"/"}
        for node in wanted.nodes:
            path = node.path.decode("utf-8", "surrogateescape")
            inode = reader.lookup(path)
            assert (inode.mode, inode.uid, inode.mtime) == (node.mode, node.uid, node.mtime), path
            assert reader.xattrs(inode) == node.xattrs
            if node.content is not None:
                assert reader.open(path).read() == read_all(node.content)
        for path, count in (("/wide", 4), ("/wide/within", WIDE + 3), ("/wide/plain", 4), ("/wide/within/7", 2)):
            assert reader.lookup(path).links == count
        for path in ("/wide", "/wide/within", "/wide/plain/wide"):
            assert reader.lookup(path).flags & INDEXED
        assert reader.lookup("/outside").number == reader.lookup("/wide/plain/sub/file").number


def test_twice_is_the_same(context, make_region, wide_tree):
    first = build(context, make_region, wide_tree).path.read_bytes()
    assert build(context, make_region, wide_tree).path.read_bytes() == first


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("length", [60, 250], ids=["one level", "two levels"])
def test_the_kernel_finds_and_changes_names(context, make_region, tmp_path, length):
    tree = Tree()
    tree.directory("/")
    tree.directory("/d")
    names = [f"{number:05d}{'ä' * (length // 2 - 4)}" for number in range(8000)]
    for name in names:
        tree.file(f"/d/{name}", b"")
    region = build(context, make_region, tree)
    point = tmp_path / "mounted"
    point.mkdir()
    options = f"loop,offset={region.offset},sizelimit={region.size}"
    done = subprocess.run(["mount", "-o", options, region.path, point], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot loop-mount here: {done.stderr.strip()}")
    try:
        assert sorted(os.listdir(point / "d")) == names  # noqa: PTH208 - names only
        for name in names:
            assert (point / "d" / name).stat().st_size == 0  # found by its hash
        for number in range(500):
            (point / "d" / f"more {number}").touch()
            (point / "d" / names[number]).unlink()
    finally:
        subprocess.run(["umount", point], check=True)
    assert Ext4Filesystem(context).check(region) == []
    with Ext4Reader(region) as reader:
        assert len(reader.names("/d")) == 8000


@pytest.mark.slow
def test_more_subdirectories_than_a_count_of_links_holds(context, make_region):
    tree = Tree()
    tree.directory("/")
    tree.directory("/d")
    for number in range(65_010):
        tree.directory(f"/d/{number}")
    region = build(context, make_region, tree)
    with Ext4Reader(region) as reader:
        inode = reader.lookup("/d")
        assert (inode.links, stat.S_ISDIR(inode.mode), len(reader.names("/d"))) == (1, True, 65_010)


def test_more_hard_links_than_ext4_counts_are_refused():
    tree = Tree()
    tree.directory("/")
    tree.file("/a", b"")
    for number in range(65_000):
        tree.link(f"/{number}", "/a")
    with pytest.raises(DiskError, match="'/a' has 65001 names"):
        collect(tree.contents, EPOCH)


def test_the_hash_is_e2fsprogs_own():
    names = ["a", "ab", "abc", "abcd", "x" * 31, "x" * 32, "x" * 33, "ä" * 50, "z" * 255, "0123456789" * 7 + "é"]
    commands = "\n".join(f"dx_hash -h half_md4 -s {SEED} {name}" for name in names) + "\n"
    done = subprocess.run(["debugfs", "-f", "-"], input=commands, capture_output=True, text=True, check=True)
    seed = hash_words(SEED)
    found = [int(value, 16) for value in re.findall(r"is 0x([0-9a-f]+)", done.stdout)]
    assert found == [name_hash(name.encode(), seed) for name in names]


def test_names_of_one_hash_in_two_leaves_are_found(monkeypatch):
    """A leaf that goes on with the hash of the one before says so in its lowest bit."""
    monkeypatch.setattr("cfs_disk.ext4.index.name_hash", lambda _name, _seed: 8)
    leaves = arrange([b"n" * 200 + b"%d" % number for number in range(40)], hash_words(str(uuid.UUID(int=1))))
    assert [leaf.hash for leaf in leaves] == [0] + [9] * (len(leaves) - 1)
    assert len(leaves) > 1


@pytest.mark.slow
def test_time_grows_with_the_number_of_names(context, make_region):
    """Ten times the names may take thirty times as long on a busy machine; what is quadratic takes a hundred."""
    took = []
    for count in (3_000, 30_000):
        tree = Tree()
        tree.directory("/")
        tree.directory("/d")
        for number in range(count):
            tree.file(f"/d/{'n' * 60}{number}", b"")
        started = time.process_time() + sum(os.times()[2:4])
        build(context, make_region, tree)
        took.append(time.process_time() + sum(os.times()[2:4]) - started)
    assert took[1] < 30 * took[0]
