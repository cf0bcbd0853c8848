"""Several initrds: rEFInd takes one by itself, so the kernel gets all of them by its options, in their order."""

from dataclasses import replace

from cfs_core.plugin import Architecture, BootMenu, BytesContent, Volume
from cfs_core.testing import MemoryTarget
from cfs_refind.menu import CONFIG, MenuPlan, read_menu
from cfs_testkit.disks import partitions_for
from cfs_testkit.trees import deployment


def with_two_initrds():
    entry = deployment("a")
    return replace(entry, artifacts=replace(entry.artifacts, extra_initrds=(BytesContent(b"second"),)))


def written(disk, entry):
    for action in MenuPlan(disk, BootMenu(entries=(entry,)), Architecture.AMD64, generic=True).actions():
        disk.apply(action)
    (found,) = read_menu(disk).entries
    return found, disk.read(CONFIG).decode()


def test_they_are_options_of_the_kernel_and_no_arguments():
    disk = MemoryTarget(partitions_for({Volume.ESP: ("vfat",)}, "ext4"))
    entry, text = written(disk, with_two_initrds())
    assert [disk.read(location) for location in entry.files][1:] == [b"initrd a", b"second"]
    assert "\n    initrd " not in text
    folder = entry.files[0].path.rpartition("/")[0].replace("/", "\\")
    assert f"initrd={folder}\\initrd initrd={folder}\\initrd-2" in text
    assert entry.arguments == with_two_initrds().arguments


def test_they_stay_when_arguments_change():
    disk = MemoryTarget(partitions_for({Volume.ESP: ("vfat",)}, "ext4"))
    before, _ = written(disk, with_two_initrds())
    after, _ = written(disk, replace(before, arguments=(*before.arguments, "more=1"), artifacts=None))
    assert after.files == before.files
    assert after.arguments == (*before.arguments, "more=1")
