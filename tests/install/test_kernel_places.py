"""Kernels where distributions put them: found, chosen by version, installed."""

from __future__ import annotations

import json

import pytest
from builders import bootable

from cfs_testkit.builders.oci import File
from cfs_testkit.programs import kernel

V = bootable.KERNEL_VERSION
M = bootable.MODULES
NOWHERE = {f"{M}/vmlinuz": None, f"{M}/initramfs.img": None}
KERNEL = File(kernel(version=V))
INITRD = File(bootable.initramfs())
PLACES = {
    "Debian": (f"vmlinuz-{V}", f"initrd.img-{V}"),
    "Fedora": (f"vmlinuz-{V}", f"initramfs-{V}.img"),
    "openSUSE": (f"vmlinuz-{V}", f"initrd-{V}"),
    "Alpine, whose names have the flavour": ("vmlinuz-lts", "initramfs-lts"),
    "Arch": ("vmlinuz-linux", "initramfs-linux.img"),
}


def judged(cli, tmp_path, files):
    image = bootable.layout(tmp_path / "oci", t=bootable.image(**files)) + ":t"
    _, out, _ = cli("image", "check", image, "--format", "json")
    (judgement,) = json.loads(out)["judgements"]
    return image, judgement


@pytest.mark.parametrize("names", PLACES.values(), ids=PLACES)
def test_they_are_found_by_their_names(names, cli, tmp_path):
    linux, initrd = names
    files = {**NOWHERE, f"boot/{linux}": KERNEL, f"boot/{initrd}": INITRD}
    image, judgement = judged(cli, tmp_path, files)
    assert (judgement["result"], judgement["findings"]) == ("bootable", [])
    assert (judgement["kernel_version"], judgement["kernel"]) == (V, f"/boot/{linux}")
    status, _, err = cli("install", "to-disk", "--source-imgref", image, tmp_path / "disk.img")
    assert status == 0, err
    assert cli("repo", "fsck", "--disk", tmp_path / "disk.img")[1] == "clean\n"


def test_the_newest_of_several_is_started(cli, tmp_path):
    newer = {f"boot/vmlinuz-6.13.0-{n}": File(kernel(version=f"6.13.0-{n}")) for n in (9, 10)}
    initrds = {f"boot/initrd.img-6.13.0-{n}": INITRD for n in (9, 10)}
    modules = {f"usr/lib/modules/6.13.0-{n}/modules.builtin": File("kernel/fs/ext4/ext4.ko\n") for n in (9, 10)}
    builtin = File("kernel/fs/erofs/erofs.ko\nkernel/fs/overlayfs/overlay.ko\nkernel/fs/ext4/ext4.ko\n")
    _, judgement = judged(cli, tmp_path, {**newer, **initrds, **dict.fromkeys(modules, builtin)})
    assert judgement["kernel"] == "/boot/vmlinuz-6.13.0-10"
    left = [finding["message"] for finding in judgement["findings"] if finding["code"] == "boot.kernel-left-out"]
    assert [text.split(" is ")[0] for text in left] == ["kernel 6.13.0-9", f"kernel {V}"]


def test_beside_its_modules_comes_first(cli, tmp_path):
    files = {f"boot/vmlinuz-{V}": File("no kernel"), f"boot/initrd.img-{V}": File("no initramfs")}
    _, judgement = judged(cli, tmp_path, files)
    assert (judgement["result"], judgement["kernel"]) == ("bootable", f"/{M}/vmlinuz")


def test_a_flavour_is_taken_at_the_word_of_its_kernel_only(cli, tmp_path):
    files = {**NOWHERE, "boot/vmlinuz-lts": File(kernel(version="6.9.9")), "boot/initramfs-lts": INITRD}
    _, judgement = judged(cli, tmp_path, files)
    assert judgement["result"] == "refused"
    assert judgement["code"] == "image.no-kernel"
