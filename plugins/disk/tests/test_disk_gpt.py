import json
import shutil
import subprocess
from dataclasses import replace

import pytest

from cfs_core.plugin import (
    Architecture,
    ConfigError,
    DiskError,
    LayoutRequest,
    RefusedError,
    Volume,
    VolumeNeed,
)
from cfs_disk.gpt.layout import MIB, TYPE_LINUX, GptLayout, merge_needs

BOOT_NEEDS = (
    VolumeNeed(volume=Volume.BIOS_BOOT, bytes_needed=30_000),
    VolumeNeed(volume=Volume.ESP, bytes_needed=100 * MIB, filesystems=("vfat",)),
    VolumeNeed(volume=Volume.XBOOTLDR, bytes_needed=1, filesystems=("vfat", "ext4")),
    VolumeNeed(volume=Volume.BOOT, bytes_needed=1, filesystems=("ext4",)),
    VolumeNeed(volume=Volume.ROOT, bytes_needed=300 * MIB + 1),
)


def request(needs=BOOT_NEEDS, **facts):
    return LayoutRequest(
        **{"needs": needs, "architecture": Architecture.AMD64, "root_filesystem": "ext4", "seed": "s", **facts}
    )


@pytest.fixture
def disk(tmp_path):
    layout = GptLayout()
    partitions = layout.plan(request())
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(layout.disk_bytes(partitions))
    layout.write(path, partitions, seed="s")
    return path, partitions


def test_volumes_come_in_order_aligned_and_large_enough():
    partitions = GptLayout().plan(request())
    assert [part.volume for part in partitions] == [need.volume for need in BOOT_NEEDS]
    assert [part.number for part in partitions] == [1, 2, 3, 4, 5]
    assert all(part.start % MIB == part.size % MIB == 0 for part in partitions)
    assert all(part.size >= need.bytes_needed for part, need in zip(partitions, BOOT_NEEDS, strict=True))
    sizes = {part.volume: part.size // MIB for part in partitions}
    assert sizes == {Volume.BIOS_BOOT: 1, Volume.ESP: 512, Volume.XBOOTLDR: 512, Volume.BOOT: 512, Volume.ROOT: 301}
    starts = [part.start for part in partitions]
    assert starts == [MIB, 2 * MIB, 514 * MIB, 1026 * MIB, 1538 * MIB]


def test_only_what_is_needed_is_made():
    (root,) = GptLayout().plan(request(()))
    assert root.volume is Volume.ROOT
    assert root.filesystem == "ext4"


def test_a_large_need_gives_room_for_several_deployments():
    needs = (VolumeNeed(volume=Volume.ESP, bytes_needed=250 * MIB, filesystems=("vfat",)),)
    esp = GptLayout().plan(request(needs))[0]
    assert esp.size == 1000 * MIB


def test_a_size_that_was_asked_for_is_taken_unless_too_small():
    esp = GptLayout().plan(request(volume_sizes={Volume.ESP: 2000 * MIB + 1}))[1]
    assert esp.size == 2001 * MIB
    with pytest.raises(RefusedError, match="ESP of 99 MiB is too small: its contents need 100 MiB"):
        GptLayout().plan(request(volume_sizes={Volume.ESP: 99 * MIB}))


@pytest.mark.parametrize("architecture", list(Architecture))
def test_the_root_type_is_that_of_the_architecture(architecture):
    types = {GptLayout().plan(request((), architecture=other))[0].type_guid for other in Architecture}
    assert len(types) == len(Architecture)
    assert GptLayout().plan(request((), architecture=architecture))[0].type_guid in types


def test_seeds_decide_identifiers():
    layout = GptLayout()
    assert layout.plan(request()) == layout.plan(request())
    assert layout.plan(request(seed=None)) != layout.plan(request(seed=None))
    uuids = {part.uuid for part in layout.plan(request())} | {part.uuid for part in layout.plan(request(seed="t"))}
    assert len(uuids) == 10
    esp = layout.plan(request())[1]
    assert len(esp.fs_uuid) == 9
    assert esp.fs_uuid[4] == "-"


def test_the_rest_of_a_disk_goes_to_root():
    layout = GptLayout()
    partitions = layout.plan(request(disk_size=10_000 * MIB))
    assert layout.disk_bytes(partitions) == 10_000 * MIB
    partitions = layout.plan(request(disk_size=10_000 * MIB, root_size=400 * MIB))
    assert partitions[-1].size == 400 * MIB


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"disk_size": 1500 * MIB}, "a disk of 1500 MiB is too small: .*ESP 512 MiB.*"),
        ({"root_size": 100 * MIB}, "a root of 100 MiB is too small: its contents need 301 MiB"),
        ({"root_size": 1000 * MIB, "disk_size": 2000 * MIB}, "too small"),
    ],
)
def test_what_does_not_fit_says_what_needs_how_much(facts, message):
    with pytest.raises(RefusedError, match=message) as caught:
        GptLayout().plan(request(**facts))
    assert caught.value.hint
    assert caught.value.facts["needed"] > caught.value.facts["available"]


def test_needs_are_merged():
    needs = (
        VolumeNeed(volume=Volume.BOOT, bytes_needed=5, filesystems=("vfat", "ext4"), why="one"),
        VolumeNeed(volume=Volume.BOOT, bytes_needed=7, filesystems=("ext4", "xfs"), why="two"),
    )
    merged = merge_needs(needs)[Volume.BOOT]
    assert (merged.bytes_needed, merged.filesystems) == (12, ("ext4",))
    with pytest.raises(RefusedError, match=r"one takes vfat, ext4, three takes btrfs|no filesystem fits"):
        merge_needs((needs[0], VolumeNeed(volume=Volume.BOOT, bytes_needed=1, filesystems=("btrfs",), why="three")))
    with pytest.raises(RefusedError, match="root filesystem btrfs"):
        GptLayout().plan(
            request((VolumeNeed(volume=Volume.ROOT, bytes_needed=1, filesystems=("ext4",)),), root_filesystem="btrfs")
        )


def test_settings_are_checked():
    assert GptLayout({"boot_volume_mib": 64}).plan(request())[1].size == 400 * MIB
    with pytest.raises(ConfigError, match="boot_volume_mib"):
        GptLayout({"boot_volume_mib": "much"})


def test_what_was_written_is_read_back(disk):
    path, partitions = disk
    found = GptLayout().read(path)
    assert [replace(part, filesystem=None, fs_uuid=None, label=None) for part in partitions] == list(found)
    assert list(GptLayout().check(path)) == []


@pytest.mark.skipif(shutil.which("sfdisk", path="/usr/sbin:/sbin") is None, reason="sfdisk not installed")
def test_sfdisk_reads_the_same(disk):
    path, partitions = disk
    done = subprocess.run(["/sbin/sfdisk", "--json", str(path)], capture_output=True, text=True, check=True)
    table = json.loads(done.stdout)["partitiontable"]
    assert table["label"] == "gpt"
    for part, seen in zip(partitions, table["partitions"], strict=True):
        assert (seen["start"] * 512, seen["size"] * 512) == (part.start, part.size)
        assert (seen["type"].lower(), seen["uuid"].lower(), seen["name"]) == (part.type_guid, part.uuid, part.name)
    done = subprocess.run(["/sbin/sfdisk", "--verify", str(path)], capture_output=True, text=True, check=True)
    assert "No errors detected" in done.stdout
    assert not done.stderr


def test_boot_code_survives_a_new_table(disk):
    path, partitions = disk
    with path.open("r+b") as file:
        file.write(b"B" * 440)
    GptLayout().write(path, partitions, seed="s")
    with path.open("rb") as file:
        assert file.read(440) == b"B" * 440
    assert list(GptLayout().check(path)) == []


@pytest.mark.parametrize("where", [510, 512 + 8, 512 + 60, 1024 + 40, -512 + 20, -5000])
def test_every_damage_is_found(disk, where):
    path, _ = disk
    with path.open("r+b") as file:
        file.seek(where, 2 if where < 0 else 0)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x55]))
    problems = GptLayout().check(path)
    assert problems
    assert all(problem.code.startswith("gpt.") for problem in problems)
    assert len(GptLayout().read(path)) == 5  # the other table still serves


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(1 << 20), b"EFI PART" * 65536])
def test_no_table_is_one_clear_error(tmp_path, content):
    path = tmp_path / "junk"
    path.write_bytes(content)
    with pytest.raises(DiskError, match="no usable partition table"):
        GptLayout().read(path)
    assert GptLayout().check(path)


def test_a_truncated_disk_is_found(disk):
    path, _ = disk
    with path.open("r+b") as file:
        file.truncate(100 * MIB)
    assert GptLayout().check(path)
    with pytest.raises(DiskError):
        GptLayout().read(path)


def test_overlapping_partitions_are_refused(disk):
    path, partitions = disk
    overlapping = (partitions[0], replace(partitions[1], start=partitions[0].start))
    with pytest.raises(DiskError, match="overlaps"):
        GptLayout().write(path, overlapping, seed="s")
    outside = (replace(partitions[0], start=path.stat().st_size),)
    with pytest.raises(DiskError, match="leaves the disk"):
        GptLayout().write(path, outside, seed="s")


def test_volumes_made_by_others_are_recognised_by_name(disk):
    path, partitions = disk
    GptLayout().write(path, [replace(partitions[3], number=1, type_guid=TYPE_LINUX)], seed="s")
    (found,) = GptLayout().read(path)
    assert found.volume is Volume.BOOT


def test_a_missing_file_is_a_disk_error(tmp_path):
    with pytest.raises(DiskError, match="cannot read"):
        GptLayout().read(tmp_path / "none")
