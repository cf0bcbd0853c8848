"""Early boot that is added to an initramfs: what is in it by kind, and what cannot be helped."""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest
import zstandard

from cfs_core.plugin import BootArtifacts, BytesContent, EntryKind, InitramfsAddition, read_all
from cfs_initramfs.borrowed import borrow
from cfs_initramfs.cpio import read_initramfs
from cfs_initramfs.examine import EarlyBoot
from cfs_testkit.initrds import cpio
from cfs_testkit.programs import program
from cfs_testkit.trees import image_of

VERSION = "6.12.0-test"
FOLDER = f"/usr/lib/modules/{VERSION}"
UNITS = "usr/lib/systemd/system"
KLIBC = program(interpreter="/lib/klibc-xyz.so")
TOOLS = {f"usr/bin/{name}": program() for name in ("sh", "mount", "umount", "mkdir", "cat", "chmod", "insmod")}
MERGED = {"bin": "-> usr/bin", "lib": "-> usr/lib", "sbin": "-> usr/sbin"}
COMMON = {**MERGED, **TOOLS}

SYSTEMD = {
    **COMMON,
    "init": "-> usr/lib/systemd/systemd",
    "usr/lib/systemd/systemd": program(),
    f"{UNITS}/initrd-root-fs.target": "[Unit]\n",
}
INITRAMFS_TOOLS = {
    **COMMON,
    "init": "#!/bin/sh\n",
    "scripts/functions": "f",
    "scripts/local": "l",
    "scripts/init-top/ORDER": '/scripts/init-top/udev "$@"\n',
}
MKINITCPIO = {
    **COMMON,
    "init": "#!/bin/sh\n",
    "init_functions": "f",
    "config": 'EARLYHOOKS="udev"\nHOOKS="udev"\nLATEHOOKS=""\n',
}
DRACUT = {**COMMON, "init": "#!/bin/sh\n", "var/lib/dracut/hooks/cmdline/10-x.sh": "x"}
KINDS = {"systemd": SYSTEMD, "initramfs-tools": INITRAMFS_TOOLS, "mkinitcpio": MKINITCPIO, "dracut": DRACUT}

MODULES = {
    "kernel/fs/erofs/erofs.ko.xz": lzma.compress(b"erofs", check=lzma.CHECK_CRC32),
    "kernel/fs/overlayfs/overlay.ko.zst": zstandard.ZstdCompressor().compress(b"overlay"),
    "kernel/drivers/nvme/host/nvme-core.ko.gz": gzip.compress(b"core"),
    "kernel/drivers/nvme/host/nvme.ko": b"nvme",
    "kernel/lib/lz4.ko": b"lz4",
    "kernel/crypto/crc.ko": b"crc",
}
DEP = """\
kernel/fs/erofs/erofs.ko.xz: kernel/lib/lz4.ko
kernel/fs/overlayfs/overlay.ko.zst:
kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko.gz
kernel/drivers/nvme/host/nvme-core.ko.gz:
kernel/lib/lz4.ko:
kernel/crypto/crc.ko:
"""
IMAGE = {
    **{f"{FOLDER}/{path}": data for path, data in MODULES.items()},
    f"{FOLDER}/modules.dep": DEP,
    f"{FOLDER}/modules.softdep": "softdep erofs pre: crc post: nvme\n",
    f"{FOLDER}/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
    f"{FOLDER}/config": "CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n",
}


def artifacts(files, **changes):
    made = BootArtifacts(
        kind=EntryKind.BLS,
        kernel_version=VERSION,
        boot_digest="",
        kernel=BytesContent(b"k"),
        initrd=BytesContent(files if isinstance(files, bytes) else cpio(files)),
    )
    return dataclasses.replace(made, **changes)


def supplement(files, image=IMAGE, filesystem="ext4", **changes):
    return EarlyBoot().supplement(artifacts(files, **changes), image_of(image), "composefs", filesystem)


def added(files, image=IMAGE, filesystem="ext4"):
    """Return what is added, by path, after it was examined with the initramfs it is for."""
    offer = supplement(files, image, filesystem)
    assert isinstance(offer, InitramfsAddition), offer
    both = artifacts(files, extra_initrds=(offer.content,))
    assert EarlyBoot().examine(both, image_of(image), "composefs").handler == "cfs"
    with offer.content.open() as file:
        return {each.name: each for each in read_initramfs(file, lambda _: True)}


def without(files, word):
    kept = {path: content for path, content in files.items() if word not in path}
    assert len(kept) < len(files)
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_mounts_composefs_with_what_is_added(kind):
    assert EarlyBoot().examine(artifacts(KINDS[kind]), image_of(IMAGE), "composefs").supported is None
    files = added(KINDS[kind])
    assert files["usr/lib/cfs/cfs-setup-root"].mode & 0o111
    assert files["usr/lib/cfs/load-modules"].mode & 0o111
    # nothing of the image is put in another one's place: the initramfs has all these programs
    assert not [name for name in files if name.startswith("usr/lib/cfs/lib")]


def test_hooks_of_initramfs_tools_stand_in_the_orders():
    files = added(INITRAMFS_TOOLS)
    lines = files["scripts/init-top/ORDER"].data.decode().splitlines()
    assert (lines[0], lines[-1]) == ('/scripts/init-top/cfs "$@"', '/scripts/init-top/udev "$@"')
    assert files["scripts/local-bottom/ORDER"].data.decode().startswith('/scripts/local-bottom/cfs "$@"\n')


def test_added_twice_a_hook_runs_once():
    first = added(INITRAMFS_TOOLS)
    again = INITRAMFS_TOOLS | {name: first[name].data for name in first if name.endswith("ORDER")}
    assert added(again)["scripts/init-top/ORDER"].data == first["scripts/init-top/ORDER"].data


def test_hooks_of_mkinitcpio_are_called_by_its_configuration(tmp_path):
    config = tmp_path / "config"
    config.write_bytes(added(MKINITCPIO)["config"].data)
    done = subprocess.run(
        ["sh", "-c", f'. {config}; echo "$EARLYHOOKS/$HOOKS/$LATEHOOKS"'], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("/") == ["udev cfs", "udev", " cfs\n"]


def test_units_of_systemd_are_wanted():
    files = added(SYSTEMD)
    for link in (
        "initrd-root-fs.target.requires/cfs-setup-root.service",
        "sysinit.target.wants/cfs-load-modules.service",
    ):
        assert files[f"{UNITS}/{link}"].data.decode() == f"../{link.rpartition('/')[2]}"
        assert f"{UNITS}/{link.rpartition('/')[2]}" in files


def test_modules_come_with_what_they_need_in_order():
    files = added(INITRAMFS_TOOLS)
    listed = files["usr/lib/cfs/modules/list"].data.decode().split()
    assert set(listed) == {"lz4.ko", "crc.ko", "erofs.ko", "overlay.ko", "nvme_core.ko", "nvme.ko"}
    for first, then in (("lz4", "erofs"), ("crc", "erofs"), ("nvme_core", "nvme")):
        assert listed.index(f"{first}.ko") < listed.index(f"{then}.ko")
    data = {name: files[f"usr/lib/cfs/modules/{name}"].data for name in listed}
    assert (data["erofs.ko"], data["overlay.ko"], data["nvme_core.ko"]) == (b"erofs", b"overlay", b"core")


def test_modules_that_are_there_are_not_added():
    there = {f"usr/lib/modules/{VERSION}/kernel/fs/overlayfs/overlay.ko": "m"}
    listed = added(INITRAMFS_TOOLS | there)["usr/lib/cfs/modules/list"].data.decode().split()
    assert "overlay.ko" not in listed
    assert "erofs.ko" in listed


def test_the_module_of_the_root_filesystem():
    image = IMAGE | {
        f"{FOLDER}/modules.dep": f"{DEP}kernel/fs/btrfs/btrfs.ko:\n", f"{FOLDER}/kernel/fs/btrfs/btrfs.ko": b"btrfs"
    }  # fmt: skip
    assert "usr/lib/cfs/modules/btrfs.ko" in added(SYSTEMD, image, "btrfs")
    assert "usr/lib/cfs/modules/btrfs.ko" not in added(SYSTEMD, image)


def test_no_directory_takes_the_place_of_a_link():
    linked = without(DRACUT, "var/lib") | {"lib/dracut/hooks/cmdline/10-x.sh": "x"}
    names = added(linked).keys()
    assert "usr/lib/dracut/hooks/pre-pivot/20-pre-pivot.sh" in names
    assert not {"lib", "bin", "sbin"} & names


def test_it_is_the_same_every_time_and_compressed_as_the_kernel_reads():
    first, second = supplement(SYSTEMD), supplement(SYSTEMD)
    assert read_all(first.content) == read_all(second.content)
    assert read_all(first.content).startswith(b"\x28\xb5\x2f\xfd")
    for setting, magic in (("CONFIG_RD_XZ=y\n", b"\xfd7zXZ"), ("CONFIG_RD_GZIP=y\n", b"\x1f\x8b"), ("\n", b"070701")):
        assert read_all(supplement(SYSTEMD, IMAGE | {f"{FOLDER}/config": setting}).content).startswith(magic)


def test_a_script_of_another_version_is_replaced():
    old = SYSTEMD | {"usr/lib/cfs/cfs-setup-root": "#!/bin/sh\n"}
    assert EarlyBoot().examine(artifacts(old), image_of(IMAGE), "composefs").supported is False
    assert b"CFS_SETUP_ROOT_VERSION=1" in added(old)["usr/lib/cfs/cfs-setup-root"].data


BOOTC = {
    "usr/lib/bootc/initramfs-setup": "ELF",
    f"{UNITS}/initrd-root-fs.target.wants/bootc-root-setup.service": "-> ../bootc-root-setup.service",
    f"usr/lib/modules/{VERSION}/kernel/fs/erofs/erofs.ko": "m",
    f"usr/lib/modules/{VERSION}/kernel/fs/overlayfs/overlay.ko": "m",
}
REFUSED = {
    "no shell": (without(SYSTEMD, "bin/sh"), {}, "the initramfs has no shell"),
    "shell of another CPU": (
        INITRAMFS_TOOLS | {"usr/bin/sh": "#!/bin/gone\n"}, {}, "its interpreter /bin/gone: it is not there"
    ),
    "no mount program": (without(INITRAMFS_TOOLS, "bin/mount"), {}, "has the program mount"),
    "mount of klibc, none in the image": (INITRAMFS_TOOLS | {"usr/bin/mount": KLIBC}, {}, "has the program mount"),
    "mount of busybox, none in the image": (
        INITRAMFS_TOOLS | {"usr/bin/mount": "-> busybox", "usr/bin/busybox": program()}, {}, "has the program mount"
    ),
    "nothing that loads modules": (without(INITRAMFS_TOOLS, "insmod"), {}, "neither insmod nor modprobe"),
    "no erofs": (SYSTEMD, {f"{FOLDER}/modules.dep": DEP.replace("erofs", "x")}, f"no module erofs of kernel {VERSION}"),
    "no overlay": (SYSTEMD, {f"{FOLDER}/modules.dep": DEP.replace("overlay", "x")}, "no module overlay of kernel"),
    "not the root's filesystem": (SYSTEMD, {f"{FOLDER}/modules.builtin": ""}, "no module ext4 of kernel"),
    "module listed and not there": (SYSTEMD, {f"{FOLDER}/kernel/lib/lz4.ko": None}, "though modules.dep lists it"),
    "damaged module": (SYSTEMD, {f"{FOLDER}/kernel/fs/erofs/erofs.ko.xz": b"x"}, "erofs.ko.xz of the image is damaged"),
    "no modules.dep": (
        SYSTEMD, {f"{FOLDER}/modules.dep": None, f"{FOLDER}/modules.builtin": None}, "modules.dep"
    ),
    "modules of another kernel": (
        SYSTEMD | {"usr/lib/modules/6.1/kernel/x.ko": "m"}, {}, f"modules of kernel 6.1, the image boots {VERSION}"
    ),
    "init is missing": (without(INITRAMFS_TOOLS, "init") | {"scripts/local": "l"}, {}, "/init of the initramfs"),
    "compressed as the kernel cannot read": (
        gzip.compress(cpio(SYSTEMD)), {f"{FOLDER}/config": "CONFIG_RD_XZ=y\n"}, "compressed with gzip"
    ),
    "compressed with lzo": (b"\x89LZO" + bytes(99), {}, "compressed with lzo, which cannot be read here"),
    "booster": ({"init": program(), "etc/booster.init.yaml": "x"}, {}, "by booster"),
    "Alpine's mkinitfs": ({**COMMON, "init": "#!/bin/sh\n", "sbin/nlplug-findfs": "x"}, {}, "by Alpine's mkinitfs"),
    "another kind": ({**COMMON, "init": "#!/bin/sh\n"}, {}, "by none of dracut, mkinitcpio and initramfs-tools"),
    "systemd without an initrd's units": (without(SYSTEMD, ".target"), {}, "without its unit initrd-root-fs.target"),
    "bootc's code is there": (SYSTEMD | BOOTC, {}, "the early boot of bootc is in the initramfs"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_helped_is_refused_by_name(name):
    files, changes, reason = REFUSED[name]
    image = {path: data for path, data in (IMAGE | changes).items() if data is not None}
    said = supplement(files, image)
    assert not isinstance(said, InitramfsAddition)
    assert said.supported is False
    assert reason in said.reason
    assert said.hint


def test_nothing_is_added_to_what_is_sealed():
    said = supplement(SYSTEMD, kind=EntryKind.UKI)
    assert "sealed in a unified kernel image" in said.reason
    assert "cfs initramfs install" in said.hint


def test_nothing_is_offered_for_another_storage_format():
    assert EarlyBoot().supplement(artifacts(SYSTEMD), image_of(IMAGE), "ostree", "ext4") is None


class Host:
    """This machine's files as an image."""

    def exists(self, path):
        return Path(path).exists()

    def names(self, path):
        return tuple(sorted(each.name for each in Path(path).iterdir())) if Path(path).is_dir() else ()

    def content(self, path):
        return BytesContent(Path(path).read_bytes()) if Path(path).is_file() else None

    def read(self, path, *, limit=0):
        data = Path(path).read_bytes() if Path(path).is_file() else None
        assert data is None or len(data) <= limit
        return data


@pytest.mark.skipif(not shutil.which("mount"), reason="this machine has no mount (util-linux)")
def test_a_borrowed_program_runs_with_its_own_libraries_only(tmp_path):
    files = borrow(["mount"], Host())
    for path, file in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(file.data.replace(b" /usr/lib/cfs", f" {tmp_path}/usr/lib/cfs".encode()))
        (tmp_path / path).chmod(file.mode)
    done = subprocess.run(
        [tmp_path / "usr/lib/cfs/bin/mount", "--version"], capture_output=True, text=True, check=False,
        env={"LD_DEBUG": "files"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "util-linux" in done.stdout
    assert f"calling init: {tmp_path}/usr/lib/cfs/lib/libmount.so.1" in done.stderr
