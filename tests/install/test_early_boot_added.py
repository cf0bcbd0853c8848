"""Early boot added at install: the second initrd on the disk, in the entry, in the digest, and what is said of it."""

from __future__ import annotations

import filecmp
import gzip
import hashlib
import io
import json
import mmap
import os

import pytest
from builders import bootable
from builders.distributions import Site
from builders.outsiders import EXAMPLES
from builders.pe import uki_bytes
from grub_files import program as grub

from cfs_core.app.app import App
from cfs_core.examine.disk import opened_disk
from cfs_core.model.content import read_all
from cfs_core.model.disk import Location, Volume
from cfs_initramfs.contents import read_contents
from cfs_testkit.builders.oci import File, Image, layer
from cfs_testkit.initrds import cpio
from cfs_testkit.programs import kernel, program

M = bootable.MODULES
INITRD = f"{M}/initramfs.img"
KERNEL = f"{M}/vmlinuz"
LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
GRUB = {LOADER: None, "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": File(grub())}
TOOLS = ("sh", "mount", "umount", "mkdir", "cat", "chmod")
STOCK = cpio(
    {
        "init": "#!/bin/sh\n",
        "bin": "-> usr/bin",
        **{f"usr/bin/{name}": program() for name in TOOLS},
        "scripts/functions": "f",
        "scripts/local": "l",
    }
)
"""An initramfs as initramfs-tools builds it, without anything that knows composefs."""


def source(tmp_path, initrd=STOCK, **files):
    made = Image([layer(bootable.tree(**{INITRD: File(initrd), **files}))])
    return bootable.layout(tmp_path / "oci", t=made) + ":t"


def install(cli, tmp_path, image, *options, disk="disk.img"):
    return cli("install", "to-disk", "--source-imgref", image, "--seed", "x", *options, tmp_path / disk)


def shown(cli, tmp_path, image, what, *options):
    status, out, err = install(cli, tmp_path, image, "--show", what, *options)
    assert status == 0, err
    return out


def plan(cli, tmp_path, image, *options):
    status, out, err = install(cli, tmp_path, image, "--dry-run", "--format", "json", *options)
    return status, json.loads(out) if out else None, err


def entry_of(planned):
    lines = [each["what"] for step in planned["steps"] if step["id"] == "menu" for each in step["actions"]]
    return next(
        line.partition("  ")[0] for line in lines if line.partition("  ")[0].endswith(".conf") and "bootc" in line
    )


def test_a_stock_image_is_installed_with_a_second_initrd(cli, tmp_path):
    image = source(tmp_path)
    status, planned, _ = plan(cli, tmp_path, image)
    assert status == 0
    (finding,) = [each for each in planned["findings"] if each["code"] == "boot.early-boot"]
    assert finding["severity"] == "note"
    assert "hooks for initramfs-tools" in finding["message"]
    assert (
        f"the initramfs of kernel {bootable.KERNEL_VERSION} has nothing that can mount composefs" in finding["message"]
    )
    entry = shown(cli, tmp_path, image, entry_of(planned)).splitlines()
    initrds = [line.split()[1].rpartition("/")[2] for line in entry if line.startswith("initrd ")]
    assert initrds == ["initrd", "initrd-2"]
    assert install(cli, tmp_path, image)[0] == 0
    status, out, _ = cli("repo", "fsck", "--disk", tmp_path / "disk.img")
    assert (status, out) == (0, "clean\n")


def test_grub_starts_it_with_both(cli, tmp_path):
    image = source(tmp_path, **GRUB)
    _, planned, _ = plan(cli, tmp_path, image)
    entry = shown(cli, tmp_path, image, entry_of(planned)).splitlines()
    assert [line.rpartition("/")[2] for line in entry if line.startswith("initrd ")] == ["initrd", "initrd-2"]


def test_grub_starts_it_with_both_where_arguments_are_special(cli, tmp_path):
    """Then the kernel is started as an EFI program, with copies of its files on the ESP."""
    image = source(tmp_path, **GRUB)
    options = ("--karg", "a\\b=c", "--separate-boot")
    _, planned, _ = plan(cli, tmp_path, image, *options)
    lines = [each["what"].split()[0] for step in planned["steps"] if step["id"] == "menu" for each in step["actions"]]
    assert [line.rpartition("/")[2] for line in lines if line.startswith("ESP:/EFI/Linux/")].count("initrd-2") == 1
    status, _, err = install(cli, tmp_path, image, *options)
    assert status == 0, err
    assert cli("repo", "fsck", "--disk", tmp_path / "disk.img")[1] == "clean\n"


def test_the_added_part_is_in_the_boot_digest_and_reproducible(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1750000000")
    image = source(tmp_path)
    for name in ("one.img", "two.img"):
        assert install(cli, tmp_path, image, disk=name)[0] == 0
    assert filecmp.cmp(tmp_path / "one.img", tmp_path / "two.img", shallow=False)
    without = hashlib.sha256(kernel(version=bootable.KERNEL_VERSION) + STOCK).hexdigest()
    with (tmp_path / "one.img").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert data.find(b"digest = ") > 0
        assert data.find(without.encode()) < 0


def test_a_changed_byte_of_it_is_found(cli, tmp_path):
    image, disk = source(tmp_path, **{f"{M}/config": "\n"}), tmp_path / "disk.img"
    assert install(cli, tmp_path, image)[0] == 0
    with disk.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        # not compressed, as this kernel can unpack nothing: the archive's last hook
        at = data.find(b"Loads kernel modules before udev")
        data[at : at + 5] = b"LOADS"
    status, out, _ = cli("repo", "fsck", "--disk", disk)
    assert status == 9
    assert "initrd-2: differs from what was installed" in out


def test_never_leaves_it_as_it_is(cli, tmp_path):
    status, _, err = install(cli, tmp_path, source(tmp_path), "--early-boot", "never")
    assert status != 0
    assert "[boot.initramfs]" in err
    assert "--early-boot never" in err
    assert not (tmp_path / "disk.img").exists()


def test_the_setting_says_the_same(cli, tmp_path):
    config = tmp_path / "cfs.toml"
    config.write_text('[install]\nearly-boot = "never"\n')
    check = ("--config", config, "image", "check", source(tmp_path))
    assert "[boot.initramfs]" in cli(*check)[2]
    assert cli(*check, "--early-boot", "auto")[0] == 0


def test_an_initramfs_that_mounts_is_left_alone(cli, tmp_path):
    _, planned, _ = plan(cli, tmp_path, source(tmp_path, bootable.initramfs()))
    assert "boot.early-boot" not in {each["code"] for each in planned["findings"]}
    assert shown(cli, tmp_path, source(tmp_path, bootable.initramfs()), entry_of(planned)).count("\ninitrd ") == 1


def test_always_is_refused_where_another_program_mounts(cli, tmp_path):
    status, _, err = install(cli, tmp_path, source(tmp_path, bootable.initramfs()), "--early-boot", "always")
    assert status != 0
    assert "[boot.early-boot]" in err
    assert "the early boot of bootc is in the initramfs" in err


def test_what_cannot_be_helped_is_refused_with_both_reasons(cli, tmp_path):
    status, _, err = install(cli, tmp_path, source(tmp_path, bootable.initramfs(capable=False)))
    assert status != 0
    assert "has nothing that can mount composefs, and early boot cannot be added: " in err
    assert "by none of dracut, mkinitcpio and initramfs-tools" in err


def test_a_sealed_image_names_the_way_out(cli, tmp_path):
    uki = File(
        uki_bytes("x=1", version=bootable.KERNEL_VERSION, linux=kernel(version=bootable.KERNEL_VERSION), initrd=STOCK)
    )
    status, _, err = install(cli, tmp_path, source(tmp_path, **{"boot/EFI/Linux/test.efi": uki}))
    assert status != 0
    assert "sealed in a unified kernel image" in err
    assert "cfs initramfs install" in err


def test_the_check_says_it_too(cli, tmp_path):
    status, out, _ = cli("image", "check", source(tmp_path), "--format", "json")
    assert status == 0
    (judgement,) = json.loads(out)["judgements"]
    _, planned, _ = plan(cli, tmp_path, source(tmp_path))
    assert judgement["findings"] == planned["findings"], "with the added part counted in"
    assert cli("image", "check", source(tmp_path), "--early-boot", "never")[0] != 0


@pytest.fixture
def extlinux(tmp_path):
    """Cfs with the example's bootloader, which gives a kernel one initrd."""
    folder = EXAMPLES / "cfs-extlinux/cfs_extlinux"
    modules = {f"cfs_extlinux/{path.name}": path.read_text() for path in folder.glob("*.py")}
    site = Site(tmp_path / "site").install("cfs-extlinux", "0.1.0", {"extlinux": "cfs_extlinux.plugin"}, modules)
    common = ("--config", tmp_path / "none.toml", "install", "to-disk", "--source-imgref")
    (tmp_path / "none.toml").touch()

    def run(image, *options):
        words = (*common, image, "--bootloader", "extlinux", "--seed", "x", *options, tmp_path / "disk.img")
        return site.cfs(*map(str, words), CFS_DISABLE_PLUGINS="", HOME=str(tmp_path), CFS_REPO=str(tmp_path / "repo"))

    return run


# an archive whose length is no multiple of four, and one that is
@pytest.mark.parametrize("stock", [gzip.compress(STOCK, mtime=0) + bytes(1), STOCK])
def test_a_loader_that_takes_one_initrd_gets_both_in_one_file(extlinux, tmp_path, stock):
    image = source(tmp_path, stock, **{f"{M}/config": File("CONFIG_RD_GZIP=y\n")})
    planned = json.loads(extlinux(image, "--dry-run", "--format", "json").stdout)
    (told,) = [each["message"] for each in planned["findings"] if each["code"] == "boot.early-boot"]
    assert "early boot is added" in told
    assert "in one file with the image's initrd" in told
    done = extlinux(image)
    assert done.returncode == 0, done.stderr
    with App(dict(os.environ)) as app, opened_disk(app, tmp_path / "disk.img") as disk:
        menu = read_all(disk.content(Location(Volume.BOOT, "/extlinux/extlinux.conf"))).decode()
        (path,) = [line.split()[1] for line in menu.splitlines() if line.strip().startswith("initrd ")]
        data = read_all(disk.content(Location(Volume.BOOT, path)))
    padding = bytes(-len(stock) % 4)
    assert data.startswith(stock + padding)
    assert len(data) > len(stock + padding)
    assert set(read_contents(io.BytesIO(data)).handlers) == {"cfs"}, "the second archive is found"
    digest = hashlib.sha256(kernel(version=bootable.KERNEL_VERSION) + data).hexdigest()
    with (tmp_path / "disk.img").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as written:
        assert written.find(digest.encode()) > 0
