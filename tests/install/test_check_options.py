"""`cfs image check` takes the options of an install that change the judgement, and ends as the install does."""

from __future__ import annotations

import re

import click
import pytest
from builders import bootable
from builders.pe import uki_bytes
from grub_files import program as grub

from cfs_core.cli.check import check
from cfs_core.cli.install import to_disk
from cfs_testkit.builders.oci import File, Image, layer

UKI = "boot/EFI/Linux/test.efi"
IMAGES = {
    "plain": {},
    "grub": {
        "usr/lib/systemd/boot/efi/systemd-bootx64.efi": None,
        "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": File(grub()),
    },
    "uki": {
        UKI: File(uki_bytes("x=1", version=bootable.KERNEL_VERSION, initrd=bootable.initramfs())),
        f"{UKI}.extra.d/a.addon.efi": File(bootable.addon_bytes("a=1")),
    },
}
CASES = [
    ("plain", "--root-size 4M", "refused"),
    ("plain", "--root-size 4G", None),
    ("plain", "--esp-size 1M", "refused"),
    ("plain", "--esp-size 64M", None),
    ("plain", "--disk-size 10M", "refused"),
    ("plain", "--disk-size 8G", None),
    ("plain", "--separate-boot", "disk.no-boot-volume"),
    ("plain", "--xbootldr", None),
    ("plain", "--separate-boot --xbootldr", "usage"),
    ("plain", "--composefs-native", None),
    ("plain", "--early-boot always", "boot.early-boot"),
    ("plain", "--uki-addon a", "usage"),
    ("plain", "--bootloader nothing", "plugin"),
    ("plain", "--filesystem vfat", "disk"),
    ("plain", "--firmware u-boot", "plugin"),
    ("plain", "--karg composefs=1", "boot.karg-composefs"),
    ("grub", "--separate-boot", None),
    ("uki", "--uki-addon nothing", "usage"),
    ("uki", "--uki-addon a", "boot.uki-unsealed"),
]  # fmt: skip
ELSEWHERE = {
    "--source-imgref": "it is the argument",
    "--target-imgref": "where updates come from",
    "--root-ssh-authorized-keys": "somebody's keys, whatever the image",
    "--secure-boot-enroll": "somebody's keys, whatever the image",
    **dict.fromkeys(
        ["--hostname", "--keymap", "--locale", "--machine-id", "--root-password-hash", "--timezone", "--user"],
        "of one machine: what the image lacks for them, the install tells",
    ),
    "--seed": "the same judgement with any",
    "--dry-run": "it is one",
    "--show": "of one disk",
    "--yes": "nothing is replaced",
    "--prove": "of a disk",
    "--progress-fd": "of how it is run",
}
"""Options of an install that say nothing about the image, and why."""


def options(command: click.Command) -> set[str]:
    return {parameter.opts[0] for parameter in command.params if isinstance(parameter, click.Option)}


def test_no_option_that_changes_the_judgement_is_missing():
    assert options(to_disk) - options(check) == set(ELSEWHERE)
    assert options(check) - options(to_disk) == set()


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    return {
        name: bootable.layout(folder / name, t=Image([layer(bootable.tree(**files))])) + ":t"
        for name, files in IMAGES.items()
    }


@pytest.mark.parametrize(("image", "words", "code"), CASES)
def test_it_ends_as_the_install_would(cli, tmp_path, layouts, image, words, code):
    checked, _, said = cli("image", "check", layouts[image], *words.split())
    disk = tmp_path / "disk.img"
    planned, _, err = cli("install", "to-disk", "--source-imgref", layouts[image], "--dry-run", *words.split(), disk)
    codes = [re.findall(r"^error: .*\[([a-z.-]+)\]$", text, re.MULTILINE)[-1:] for text in (said, err)]
    assert (checked, codes[0]) == (planned, codes[1])
    assert codes[0] == ([code] if code else []), said
    assert (checked == 0) is (code is None)
