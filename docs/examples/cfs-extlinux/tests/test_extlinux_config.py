"""The text of extlinux.conf, the settings, and where device trees go."""

import dataclasses

import pytest

from cfs_core.plugin import (
    Architecture,
    BootError,
    BootFacts,
    BootMenu,
    BytesContent,
    ConfigError,
    Firmware,
    Location,
    Severity,
    Volume,
)
from cfs_core.testing import MemoryTarget
from cfs_extlinux.bootloader import Extlinux
from cfs_extlinux.config import Config, field
from cfs_extlinux.plugin import cfs_register_bootloaders
from cfs_testkit.disks import files_of, partitions_for
from cfs_testkit.trees import deployment, image_of

TREE = "/usr/lib/linux-image-6.12.0/maker/board.dtb"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("LABEL one two\n", ("label", "one two")),
        ("\tappend a=b c\r\n", ("append", "a=b c")),
        ("# label no\n", ("", "")),
        ("prompt\n", ("prompt", "")),
    ],
)
def test_lines_are_keyword_and_value(line, found):
    assert field(line) == found


@pytest.mark.parametrize("data", [b"", b"timeout 5\n", b"label a\n kernel x\n\nlabel b\n", b"\xff\nlabel \xe9\n"])
def test_nothing_is_lost(data):
    assert Config.parse(data).data() == data


@pytest.mark.parametrize("settings", [{"devicetree": "/x"}, {"devicetree": "../x"}, {"devicetree": 1}])
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError):
        Extlinux.of(settings)


def facts(files):
    return BootFacts(
        architecture=Architecture.ARM64,
        firmware=frozenset({Firmware.UBOOT}),
        image=image_of(files),
        artifacts=deployment("a").artifacts,
    )


def test_a_device_tree_that_is_missing_is_an_error_before_anything_is_written():
    findings = Extlinux("maker/board.dtb").check(facts({"/etc/x": ""}))
    assert [finding.code for finding in findings if finding.severity is Severity.ERROR] == ["boot.devicetree-missing"]


def test_the_device_tree_is_beside_the_kernel_and_named():
    loader = Extlinux("maker/board.dtb")
    disk = MemoryTarget(partitions_for({Volume.BOOT: ("vfat",)}, "ext4"))
    for action in loader.plan_menu(
        disk, BootMenu(entries=()), BootMenu(entries=(deployment("a"),)), facts({TREE: b"tree"})
    ):
        disk.apply(action)
    (entry,) = loader.read_menu(disk).entries
    assert entry.files[-1].path.endswith(".dtb")
    assert disk.read(entry.files[-1]) == b"tree"
    emptied = dataclasses.replace(facts({TREE: b"tree"}), image=None, artifacts=None)
    for action in loader.plan_menu(disk, loader.read_menu(disk), BootMenu(entries=()), emptied):
        disk.apply(action)
    assert set(files_of(disk)) == {Location(Volume.BOOT, "/extlinux/extlinux.conf")}


def test_core_is_told_to_hand_over_one_initrd_and_a_second_is_refused():
    (provider,) = cfs_register_bootloaders()
    assert provider.one_initrd
    entry = deployment("a")
    two = dataclasses.replace(entry.artifacts, extra_initrds=(BytesContent(b"second"),))
    wanted = BootMenu(entries=(dataclasses.replace(entry, artifacts=two),))
    disk = MemoryTarget(partitions_for({Volume.BOOT: ("vfat",)}, "ext4"))
    with pytest.raises(BootError, match="with one initrd"):
        Extlinux().plan_menu(disk, BootMenu(entries=()), wanted, facts({}))
