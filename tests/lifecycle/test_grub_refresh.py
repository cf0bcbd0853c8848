"""GRUB that is made of the image's modules follows the image: on BIOS beside the core image that starts."""

from __future__ import annotations

import os
import re
import struct

import pytest
from builders.lifecycle_kit import PowerCut, Versions, copied, finalized, staged, version
from builders.machines import Installed, install_below
from grub_files import modules

from cfs_testkit.builders.oci import File

pytestmark = pytest.mark.slow

HALF, FIRST = 1 << 19, 2048
"""Bytes of half of the BIOS boot partition, and the sector it begins at."""

MAKER = """#!/bin/sh
# grub-mkimage, but for compressing: the first sector of a core image, kernel and modules.
while [ $# -gt 0 ]; do
    case $1 in
        -d) from=$2 ;;
        -O|-p) ;;
        -c) config=$2 ;;
        -o) out=$2 ;;
        *) names="$names $1"; shift; continue ;;
    esac
    shift 2
done
{ cat "$from/diskboot.img" "$from/kernel.img" "$config"; for name in $names; do cat "$from/$name.mod"; done; } >"$out"
"""


def grub(number, text):
    """Version *number* of a system with GRUB for BIOS whose module ``normal`` is *text*."""
    files = {path.lstrip("/"): File(data) for path, data in modules("i386-pc").items()}
    files["usr/lib/grub/i386-pc/normal.mod"] = File(text)
    return version(number, **files, **{"usr/lib/systemd/boot/efi/systemd-bootx64.efi": None})


def on_a_disk(machine):
    """Say what the kernel of a machine says that runs from the third partition of a disk for BIOS."""
    root = machine.root
    disk, block = root / "sys/devices/vda", root / "sys/dev/block"
    block.mkdir(parents=True, exist_ok=True)
    for number, name, first, size in ((1, "BIOS-BOOT", FIRST, HALF * 2), (3, "root", 8192, 1 << 30)):
        part = disk / f"vda{number}"
        part.mkdir(parents=True, exist_ok=True)
        facts = {"partition": number, "start": first, "size": size // 512, "dev": f"254:{number}"}
        for key, value in facts.items():
            (part / key).write_text(f"{value}\n")
        (part / "uevent").write_text(f"PARTNAME={name}\n")
        link = block / f"254:{number}"
        if not link.is_symlink():
            link.symlink_to(f"../../devices/vda/vda{number}")
    names = root / "dev/disk/by-uuid"
    names.mkdir(parents=True, exist_ok=True)
    uuid = (root / "sysroot/boot/grub2/i386-pc/early.cfg").read_text().split()[1]
    if not (names / uuid).is_symlink():
        (names / uuid).symlink_to("../../vda3")
    (root / "proc/self/mountinfo").write_text("30 1 254:3 / /sysroot rw - ext4 /dev/vda3 rw\n")


class Machine(Installed):
    """One whose first sector counts."""

    def reboot(self):
        assert b"".join(self.core()), "nothing starts"
        started = super().reboot()
        on_a_disk(self)
        return started

    def core(self):
        """Return the first sector, and the rest of the core image that the disk's first sector leads to."""
        (sector,) = struct.unpack_from("<Q", (self.root / "dev/vda").read_bytes(), 0x5C)
        at = (sector - FIRST) * 512
        assert at in (0, HALF)
        found = (self.root / "dev/vda1").read_bytes()[at : at + HALF]
        assert struct.unpack_from("<Q", found, 500) == (sector + 1,), "it looks for the rest of itself elsewhere"
        return found[:500], found[512:].rstrip(b"\0")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A machine with grub-mkimage."""
    place = tmp_path / "tools"
    place.mkdir()
    (place / "grub-mkimage").write_text(MAKER)
    (place / "grub-mkimage").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "oci")


@pytest.fixture
def machine(tmp_path, versions, tools):
    versions.publish(grub(1, "normal of 2.06\n"))
    made = install_below(tmp_path, versions.reference, **{"install.bootloader": "grub", "install.firmware": "bios"})
    made = Machine(made.root, made.folder)
    on_a_disk(made)
    return made


def test_a_core_image_follows_beside_the_one_that_starts(machine, versions):
    """Equal: untouched; another one: in the other half, and the first sector leads there; and back."""
    old = machine.core()
    assert b"normal of 2.06" in old[1]
    before = {name: (machine.root / "dev" / name).read_bytes() for name in ("vda", "vda1")}
    versions.publish(grub(2, "normal of 2.06\n"))
    staged(machine)
    assert finalized(machine).loader.result == "none"
    machine.reboot()
    assert {name: (machine.root / "dev" / name).read_bytes() for name in before} == before
    versions.publish(grub(3, "normal of 2.12\n"))
    staged(machine)
    done = finalized(machine).loader
    assert (done.result, done.files[-2:]) == ("done", ("DISK:/", "ROOT:/boot/grub2/i386-pc/made-of"))
    machine.reboot()
    new = machine.core()
    assert new[0] == old[0]
    assert b"normal of 2.12" in new[1]
    kept = (machine.root / "dev/vda1").read_bytes()[:HALF]
    assert kept == before["vda1"][:HALF], "the old one is whole"
    versions.publish(grub(4, "normal of 2.14\n"))
    staged(machine)
    assert finalized(machine).loader.result == "done"
    assert b"normal of 2.14" in machine.core()[1]


def test_power_cuts(machine, versions, tmp_path):
    """Whatever is cut off, the first sector leads to a core image that is one of the two; the next upgrade ends it."""
    first = machine.core()[1]
    versions.publish(grub(2, "normal of 2.12\n"))
    staged(machine)
    seen, count = set(), 0
    while True:
        made = copied(machine, tmp_path / f"cut-{count}")
        made = Machine(made.root, made.folder)
        with PowerCut(count) as cut:
            finalized(made)
        started = made.core()[1]
        assert started == first or re.search(b"normal of 2.12\n", started)
        seen.add(started)
        made.reboot()
        if made.read().running.staged is None and staged(made, retry=True).result == "staged":
            finalized(made)
        if cut.done < count:
            break
        count += 1
    assert len(seen) == 2
    versions.publish(grub(3, "normal of 2.12\n"))
    for number in range(count):
        made = Machine(tmp_path / f"cut-{number}" / "machine", tmp_path / f"cut-{number}")
        made.reboot()
        staged(made, retry=True)
        finalized(made)
        assert b"normal of 2.12\n" in made.core()[1]


@pytest.mark.parametrize("why", ["tool", "setting"])
def test_without_the_tool_it_is_told(machine, versions, monkeypatch, why):
    """Nothing is half, and the upgrade goes on; where GRUB is the same nobody is told anything."""
    before = (machine.root / "dev/vda1").read_bytes()
    if why == "tool":
        monkeypatch.setattr("cfs_grub.mkimage.TOOLS", ("grub-mkimage-that-is-not-here",))
    else:
        monkeypatch.setenv("CFS_INSTALL_HOST_TOOLS", "false")
    versions.publish(grub(2, "normal of 2.06\n"))
    staged(machine)
    assert finalized(machine).loader.result == "none"
    machine.reboot()
    versions.publish(grub(3, "normal of 2.12\n"))
    new = staged(machine).image_id
    done = finalized(machine).loader
    assert (done.result, done.files) == ("failed", ())
    assert "grub-mkimage" in done.why
    assert machine.reboot() == new
    assert (machine.root / "dev/vda1").read_bytes() == before
    assert "normal of 2.06" in (machine.root / "sysroot/boot/grub2/i386-pc/normal.mod").read_text()
