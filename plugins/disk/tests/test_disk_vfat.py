import hashlib
import os
import shutil
import subprocess
from dataclasses import replace

import pytest
from conftest_disk import Tree, partition_of, pattern

from cfs_core.plugin import (
    Attributes,
    BytesContent,
    CopyObject,
    DiskError,
    DiskFullError,
    HashAlgorithm,
    MakeSpecial,
    MakeSymlink,
    SpecialKind,
    Volume,
    WriteFile,
)
from cfs_disk.vfat.filesystem import VfatFilesystem
from cfs_disk.vfat.names import ShortNames, fat_time

MIB = 1 << 20
SIZES = [16, 34, 64, 300]


@pytest.fixture
def boot_tree():
    tree = Tree(Volume.ESP)
    for path in ("/EFI", "/EFI/BOOT", "/EFI/Linux", "/loader", "/loader/entries", "/Ünï cöde"):
        tree.directory(path)
    tree.file("/EFI/BOOT/BOOTX64.EFI", pattern(130_001), mtime_sec=1_600_000_001)
    tree.file("/EFI/Linux/bootc_composefs-" + "a" * 128 + ".efi", pattern(5_000_001))
    tree.file("/loader/loader.conf", b"timeout 5")
    tree.file("/loader/empty", b"")
    tree.file("/Ünï cöde/日本 x.txt", b"unicode")
    for number in range(200):
        tree.file(f"/loader/entries/bootc_debian-13-{number}.conf", b"title %d\n" % number)
    return tree


def build(context, make_region, tree, size, name="disk.img"):
    filesystem = VfatFilesystem(context)
    region = make_region(size, name=name)
    filesystem.build(tree.contents, partition_of(region, Volume.ESP), region)
    return filesystem, region


@pytest.mark.parametrize("size", SIZES)
def test_everything_arrives(context, make_region, boot_tree, size):
    filesystem, region = build(context, make_region, boot_tree, size * MIB)
    assert list(filesystem.check(region)) == []
    with filesystem.reader(region) as reader:
        assert reader.geometry.entry_bytes == (2 if size < 34 else 4)
        for path, action in boot_tree.contents.items():
            if not isinstance(action, CopyObject):
                assert reader.kind(path) == "directory"
                continue
            with reader.open(path) as file:
                assert file.read() == action.source.data
            assert reader.size(path) == action.source.size
            assert reader.verity_digest(path) is None
        assert reader.names("/") == ("EFI", "loader", "Ünï cöde")
        assert len(reader.names("/loader/entries")) == 200
        assert reader.kind("/efi/boot/bootx64.efi") == "file"
        assert reader.kind("/efi/none") is None


@pytest.mark.skipif(shutil.which("mcopy") is None, reason="mtools not installed")
@pytest.mark.parametrize("size", SIZES)
def test_mtools_reads_the_same(context, make_region, boot_tree, tmp_path, size):
    _, region = build(context, make_region, boot_tree, size * MIB)
    out = tmp_path / "out"
    out.mkdir()
    image = f"{region.path}@@{region.offset}"
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    subprocess.run(["mcopy", "-s", "-m", "-i", image, "::/EFI", "::/loader", str(out)], check=True, env=environment)
    for path, action in boot_tree.contents.items():
        if isinstance(action, CopyObject) and path.isascii():
            assert (out / path[1:]).read_bytes() == action.source.data
    assert int((out / "EFI/BOOT/BOOTX64.EFI").stat().st_mtime) == 1_600_000_000  # FAT counts in two seconds


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_the_kernel_reads_the_same(context, make_region, boot_tree, tmp_path):
    _, region = build(context, make_region, boot_tree, 64 * MIB)
    point = tmp_path / "mounted"
    point.mkdir()
    done = subprocess.run(
        ["mount", "-t", "vfat", "-o", f"loop,ro,utf8,offset={region.offset}", str(region.path), str(point)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot loop-mount FAT here: {done.stderr.strip()}")
    try:
        for path, action in boot_tree.contents.items():
            if isinstance(action, CopyObject):
                assert (point / path[1:]).read_bytes() == action.source.data
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_two_runs_are_byte_identical(context, make_region, boot_tree):
    digests = set()
    for name in ("one.img", "two.img"):
        _, region = build(context, make_region, boot_tree, 64 * MIB, name)
        digests.add(hashlib.sha256(region.path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_estimate_suffices(context, make_region):
    for count, size in ((0, 0), (3, 30 * MIB), (3000, 10)):
        tree = Tree(Volume.ESP)
        for number in range(count):
            tree.file(f"/file number {number} with a long name.bin", bytes(size))
        filesystem = VfatFilesystem(context)
        needed = filesystem.bytes_needed(tree.contents)
        region = make_region(needed)
        filesystem.build(tree.contents, partition_of(region, Volume.ESP), region)
        assert list(filesystem.check(region)) == []


def test_stale_bytes_do_not_come_back(context, make_region):
    region = make_region(34 * MIB)
    with region.path.open("r+b") as file:
        file.write(os.urandom(10 * MIB))
    tree = Tree(Volume.ESP)
    tree.file("/a.txt", b"a")
    filesystem = VfatFilesystem(context)
    filesystem.build(tree.contents, partition_of(region, Volume.ESP), region)
    assert list(filesystem.check(region)) == []
    with filesystem.reader(region) as reader:
        assert reader.names("/") == ("a.txt",)


def test_full_is_disk_full_with_numbers(context, make_region):
    tree = Tree(Volume.ESP)
    tree.file("/kernel", bytes(40 * MIB))
    with pytest.raises(DiskFullError) as caught:
        build(context, make_region, tree, 34 * MIB)
    assert caught.value.facts["needed"] >= 40 * MIB
    with pytest.raises(DiskFullError, match="at least"):
        build(context, make_region, tree, 1 * MIB)


class Huge:
    size = 4 << 30

    def open(self):
        raise AssertionError


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["/a", "/A"], "clashes with 'a'"),
        (["/é", "/É"], "clashes"),
        (["/a:b"], "one of"),
        (["/a\x01"], "control character"),
        (["/dot."], "a dot or a space"),
        (["/space "], "a dot or a space"),
        (["/" + "x" * 256], "255 characters"),
        (["/\udcff"], "not UTF-8"),
        (["/none/file"], "no such directory"),
    ],
)
def test_names_fat_cannot_hold_are_errors_before_writing(context, paths, message):
    tree = Tree(Volume.ESP)
    for path in paths:
        tree.file(path, b"")
    with pytest.raises(DiskError, match=message):
        VfatFilesystem(context).bytes_needed(tree.contents)


def test_other_things_fat_cannot_hold(context):
    for kind, facts, message in (
        (MakeSymlink, {"target": "x"}, "no symlink"),
        (MakeSpecial, {"kind": SpecialKind.FIFO}, "no special"),
        (CopyObject, {"source": Huge()}, "at most"),
        (CopyObject, {"source": BytesContent(b""), "verity": HashAlgorithm.SHA256}, "fs-verity"),
        (WriteFile, {"data": b"", "attributes": Attributes(xattrs=((b"user.a", b"b"),))}, "extended attributes"),
    ):
        tree = Tree(Volume.ESP)
        tree.add(kind, "/x", **facts)
        with pytest.raises(DiskError, match=message):
            VfatFilesystem(context).bytes_needed(tree.contents)


def test_short_names():
    names = ShortNames()
    assert names.entries("BOOTX64.EFI") == ([], b"BOOTX64 EFI")
    entries, short = names.entries("bootx64.efi")
    assert short == b"BOOTX6~1EFI"
    assert len(entries) == 1
    assert names.entries("bootx64 2.efi")[1] == b"BOOTX6~2EFI"
    assert names.entries("日本")[1] == b"__~1       "
    assert names.entries(".hidden")[1] == b"HIDDEN~1   "
    short_names = {names.entries(f"same prefix {number}.conf")[1] for number in range(1200)}
    assert len(short_names) == 1200
    assert {len(short) for short in short_names} == {11}


def test_times_are_kept_within_what_fat_has():
    assert fat_time(0) == fat_time(315532800) == (0x21, 0)
    assert fat_time(1 << 40)[0] >> 9 == 127


@pytest.mark.parametrize("where", [11, 13, 14, 16, 32, 36, 44, 510])
def test_damaged_boot_sectors_are_one_clear_error(context, make_region, boot_tree, where):
    filesystem, region = build(context, make_region, boot_tree, 64 * MIB)
    with region.path.open("r+b") as file:
        file.seek(region.offset + where)
        file.write(b"\xfe\xca\xfe\xca")
    with pytest.raises(DiskError), filesystem.reader(region) as reader:
        reader.names("/EFI/BOOT")


def test_a_loop_in_a_chain_ends(context, make_region, boot_tree):
    filesystem, region = build(context, make_region, boot_tree, 64 * MIB)
    with filesystem.reader(region) as reader:
        geometry = reader.geometry
        cluster = reader._lookup("/loader/entries").cluster
    with region.path.open("r+b") as file:
        file.seek(region.offset + geometry.fat_start + 4 * (cluster + 1))
        file.write(cluster.to_bytes(4, "little"))
    with filesystem.reader(region) as reader:
        reader.names("/loader/entries")
        with reader.open("/loader/loader.conf") as file:
            assert file.read() == b"timeout 5"
    assert list(filesystem.check(region))


def test_random_damage_never_escapes_as_another_exception(context, make_region, boot_tree):
    import random

    filesystem, region = build(context, make_region, boot_tree, 34 * MIB)
    clean = region.path.read_bytes()
    source = random.Random(5)
    for _ in range(60):
        with region.path.open("r+b") as file:
            for _ in range(30):
                file.seek(region.offset + source.randrange(2 * MIB))
                file.write(source.randbytes(4))
        try:
            with filesystem.reader(region) as reader:
                for path in boot_tree.contents:
                    if reader.kind(path) == "file":
                        with reader.open(path) as file:
                            file.read(100_000)
                    else:
                        reader.names(path)
        except (DiskError, OSError):
            pass
        region.path.write_bytes(clean)


def test_missing_tools_are_a_finding(context):
    class Nothing:
        def find(self, name):
            return None

    (finding,) = VfatFilesystem(replace(context, commands=Nothing())).check_host()
    assert "dosfstools" in finding.hint


@pytest.mark.parametrize("mib", [4, 5, 15, 16, 17, 31, 32, 33, 34, 35, 127, 128, 259, 260, 261, 262, 512, 513])
def test_sizes_at_the_borders_of_fat_types(context, make_region, mib):
    """16 and 32 bits, and each number of sectors in a cluster: fsck.fat and the boot sector agree about the type."""
    tree = Tree(Volume.ESP)
    tree.directory("/EFI")
    tree.file("/EFI/file", pattern(700_000))
    filesystem = VfatFilesystem(context)
    assert filesystem.bytes_needed(tree.contents) == 4 << 20
    region = make_region(mib << 20)
    filesystem.build(tree.contents, partition_of(region, Volume.ESP), region)
    assert filesystem.check(region) == []
    with filesystem.reader(region) as reader, reader.open("/EFI/file") as file:
        assert file.read() == pattern(700_000)


def test_what_just_fits_is_written(context, make_region):
    """The least size that is asked for is enough, for many small files as for a large one."""
    for count, size in ((1, 30 << 20), (3000, 3000), (200, 70_000)):
        tree = Tree(Volume.ESP)
        tree.directory("/EFI")
        for number in range(count):
            tree.file(f"/EFI/a long name {number}", bytes(size))
        filesystem = VfatFilesystem(context)
        region = make_region(filesystem.bytes_needed(tree.contents))
        filesystem.build(tree.contents, partition_of(region, Volume.ESP), region)
        assert filesystem.check(region) == []


def test_the_largest_one_can_be_made_and_read(context, make_region):
    filesystem = VfatFilesystem(context)
    region = make_region(VfatFilesystem.largest)
    filesystem.build({}, partition_of(region, Volume.ESP), region)
    with filesystem.reader(region) as reader:
        assert reader.names("/") == ()
