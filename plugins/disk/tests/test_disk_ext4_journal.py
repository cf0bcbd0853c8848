"""Disks that lost power: a journal with newer contents than the disk is read through, and never written."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

import pytest
from conftest_disk import EPOCH, Tree, partition_of

from cfs_core.plugin import DiskError, Region
from cfs_disk.ext4.crc32c import SEED, crc32c, crc32c_each
from cfs_disk.ext4.filesystem import Ext4Filesystem
from cfs_disk.ext4.read import Ext4Reader

pytestmark = pytest.mark.skipif(shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin") is None, reason="e2fsprogs")
MAGIC = bytes.fromhex("c03b3998")


def test_checksums():
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283  # RFC 3720 has others; this one is the catalogue's
    blocks = [bytes([index]) * 100 + bytes(range(150)) for index in range(37)]
    seeds = [SEED ^ index * 77 for index in range(37)]
    assert crc32c_each(blocks, seeds) == [crc32c(block, seed) for block, seed in zip(blocks, seeds, strict=True)]
    assert crc32c_each([], []) == []


@pytest.fixture
def made(context, make_region):
    tree = Tree()
    tree.directory("/")
    tree.directory("/d")
    for number in range(6):
        tree.file(f"/d/{number}", bytes([65 + number]) * 4096)
    filesystem = Ext4Filesystem(context)
    region = make_region(filesystem.bytes_needed(tree.contents))
    filesystem.build(tree.contents, partition_of(region), region)
    return filesystem, region


def debugfs(region, *lines):
    done = subprocess.run(
        ["debugfs", "-w", "-f", "-", f"{region.path}?offset={region.offset}"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if line and not line.startswith("debugfs 1.")]
    assert complaints == [], done.stdout


def block_of(region, path):
    with Ext4Reader(region) as reader:
        return reader.extents(reader.lookup(path))[0][2]


def contents(region):
    with Ext4Reader(region) as reader:
        found = {}
        for path, inode in reader.walk():
            data = reader.open(path).read() if reader.kind(path) == "file" else b""
            found[path] = (inode.mode, inode.size, inode.links, data)
        return found, reader.replayed_blocks


def digest_of(region):
    return hashlib.sha256(region.path.read_bytes()).digest()


@pytest.mark.parametrize("checksums", ["", " -c", " -c -v 2", " -c -v 3"])
def test_committed_blocks_are_read_and_nothing_is_written(made, tmp_path, checksums):
    filesystem, region = made
    new = tmp_path / "new"
    first, second, third, fourth = (block_of(region, f"/d/{number}") for number in range(4))
    for number, data in enumerate((b"n" * 4096, MAGIC + b"m" * 4092, b"r" * 4096, b"o" * 4096)):
        (tmp_path / f"new{number}").write_bytes(data)
    debugfs(
        region,
        f"jo{checksums}",
        f"jw -b {first} {new}0",
        f"jw -b {second} {new}1",
        f"jw -b {third} {new}2",
        f"jw -b {fourth} {new}3",
        f"jw -r {third}",
        f"jw -b {fourth} {new}0",
        "jc",
    )
    before = digest_of(region)
    found, blocks = contents(region)
    assert (found["/d/0"][3], found["/d/1"][3]) == (b"n" * 4096, MAGIC + b"m" * 4092)
    assert (found["/d/2"][3], found["/d/3"][3], found["/d/4"][3]) == (b"C" * 4096, b"n" * 4096, b"E" * 4096)
    assert blocks == 3
    assert filesystem.check(region) == []
    assert digest_of(region) == before
    assert contents(replayed(region)) == (found, 0)


def test_what_was_not_committed_does_not_count(made, tmp_path):
    _, region = made
    (tmp_path / "new").write_bytes(b"n" * 4096)
    first, second = block_of(region, "/d/0"), block_of(region, "/d/1")
    debugfs(region, "jo", f"jw -b {first} {tmp_path}/new", f"jw -b {second} {tmp_path}/new -c", "jc")
    found, blocks = contents(region)
    assert (found["/d/0"][3][:1], found["/d/1"][3][:1], blocks) == (b"n", b"B", 1)


def test_a_damaged_block_of_the_journal_says_what_must_be_done(made, tmp_path):
    _, region = made
    (tmp_path / "new").write_bytes(b"n" * 4096)
    debugfs(region, "jo -c", f"jw -b {block_of(region, '/d/0')} {tmp_path}/new", "jc")
    data = region.path.read_bytes()
    at = data.rindex(b"n" * 4096)
    region.path.write_bytes(data[:at] + b"x" + data[at + 1 :])
    with pytest.raises(DiskError, match="the journal of this ext4 must be replayed") as caught, Ext4Reader(region):
        pass
    assert "e2fsck -p" in caught.value.hint


def test_the_reader_says_that_the_journal_must_be_replayed(made, tmp_path, monkeypatch):
    filesystem, region = made
    (tmp_path / "new").write_bytes(b"n" * 4096)
    debugfs(region, "jo", f"jw -b {block_of(region, '/d/0')} {tmp_path}/new", "jc")
    said = []
    log = filesystem._context.log
    monkeypatch.setattr(log, "warning", lambda event, **facts: said.append((event, facts)), raising=False)
    with filesystem.reader(region) as reader:
        assert reader.open("/d/0").read(1) == b"n"
    ((event, facts),) = said
    assert event == "filesystem.journal-replayed"
    assert "the journal of this ext4 must be replayed" in facts["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_copied_while_the_kernel_writes_to_it(made, tmp_path):
    """The kernel's own journal: files made, renamed and removed, then the plug is pulled (the image is copied)."""
    filesystem, region = made
    point = tmp_path / "mounted"
    point.mkdir()
    options = f"loop,offset={region.offset},sizelimit={region.size},commit=300"
    done = subprocess.run(["mount", "-o", options, region.path, point], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot loop-mount here: {done.stderr.strip()}")
    try:
        for number in range(300):
            (point / f"d/made-{number}").write_text(f"{number}\n")
        (point / "d/0").rename(point / "d/renamed")
        (point / "d/1").unlink()
        folder = os.open(point / "d", os.O_RDONLY)
        for number in range(300):
            with (point / f"d/made-{number}").open("rb") as file:
                os.fsync(file.fileno())
        os.fsync(folder)
        os.close(folder)
        copy = tmp_path / "pulled.img"
        subprocess.run(["cp", "--sparse=always", region.path, copy], check=True)
    finally:
        subprocess.run(["umount", point], check=True)
    pulled = Region(path=copy, offset=region.offset, size=region.size)
    before = digest_of(pulled)
    found, blocks = contents(pulled)
    assert blocks > 3
    assert found["/d/made-299"][3] == b"299\n"
    assert found["/d/renamed"][3] == b"A" * 4096
    assert "/d/1" not in found
    assert filesystem.check(pulled) == []
    assert digest_of(pulled) == before
    assert contents(replayed(pulled)) == (found, 0)


def replayed(region):
    """Return the same disk after e2fsck replayed its journal."""
    place = region.path.with_name("replayed.img")
    with region.path.open("rb") as file:
        file.seek(region.offset)
        place.write_bytes(file.read(region.size))
    environment = {**os.environ, "E2FSPROGS_FAKE_TIME": str(EPOCH)}
    done = subprocess.run(["e2fsck", "-p", place], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode in {0, 1}, done.stdout
    return Region(path=place, offset=0, size=region.size)
