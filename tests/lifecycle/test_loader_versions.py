"""Which version of its loader a machine has, and which one the running image has: in `cfs status`, for people."""

from __future__ import annotations

import json

from builders.lifecycle_kit import Versions, finalized, grub, run, staged, version
from builders.machines import install_below
from builders.pe import pe_bytes
from grub_files import program

from cfs_core.lifecycle.loader_versions import MountedTree
from cfs_testkit.builders.oci import File

LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
SBAT = (
    b"\0sbat,1,SBAT Version,sbat,1,https://x\ngrub,5,Free Software Foundation,grub,2.12,https://x\n"
    b"grub.debian,5,Debian,grub2,2.12-9+deb13u1,https://x\ngrub.peimage,2,Canonical,grub2,2.12-9,https://x\n"
)


def systemd_boot(number):
    magic = f"#### LoaderInfo: systemd-boot {number} ####\0".encode()
    return pe_bytes([(".text", b"loader" * 50), (".sdmagic", magic)], 0x8664)


def told(machine):
    return json.loads(run(machine, "status", "--json").stdout)["cfs"]["bootloader_version"]


def test_systemd_boot(machine, versions):
    image = machine.root / LOADER
    image.parent.mkdir(parents=True)
    image.write_bytes(systemd_boot("257.1"))
    assert told(machine) == {"installed": "257.1", "offered": "257.1"}
    assert "bootloader systemd-boot 257.1\n" in run(machine, "status").stdout
    image.write_bytes(systemd_boot("258.2-1~deb13u1"))
    assert told(machine) == {"installed": "257.1", "offered": "258.2-1~deb13u1"}
    assert "257.1; the running image has 258.2-1~deb13u1" in run(machine, "status").stdout
    versions.publish(version(2, **{LOADER: File(systemd_boot("258.2-1~deb13u1"))}))
    staged(machine)
    finalized(machine)
    assert told(machine)["installed"] == "258.2-1~deb13u1"


def test_grub(tmp_path):
    """Its distribution's version, where it says one; one that was made of modules says none."""
    versions = Versions(tmp_path / "oci")
    path = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"
    versions.publish(grub(1, **{path: File(program() + SBAT)}))
    machine = install_below(tmp_path, versions.reference)
    assert told(machine) == {"installed": "2.12-9+deb13u1", "offered": None}
    image = machine.root / path
    image.parent.mkdir(parents=True)
    image.write_bytes(program() + SBAT.replace(b"grub.debian,5,Debian,grub2,2.12-9+deb13u1,https://x\n", b""))
    assert told(machine)["offered"] == "2.12"
    (machine.root / "boot/EFI/BOOT/BOOTX64.EFI").write_bytes(program())
    assert told(machine)["installed"] is None
    assert "bootloader" not in run(machine, "status").stdout


def test_a_mounted_image_is_not_left(tmp_path):
    top = tmp_path / "top"
    (top / "usr/lib").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (top / "out").symlink_to("../secret")
    (top / "lib").symlink_to("usr/lib")
    (top / "usr/lib/file").write_text("text")
    tree = MountedTree(top)
    assert (tree.exists("/out"), tree.read("/out"), tree.content("/out")) == (False, None, None)
    assert (tree.read("/lib/file"), tree.names("/lib"), tree.names("/lib/file")) == (b"text", ("file",), ())
