"""Real Debian machines, one for each loader: upgraded from a registry, back, switched, collected; bad images left."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from builders import guest_images, guests

pytestmark = [pytest.mark.campaign, pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(5400)]

KINDS = {
    "systemd-boot": ("", "--bootloader", "systemd-boot"),
    "uki": ("-uki", "--bootloader", "systemd-boot"),
    "grub-uefi": ("", "--bootloader", "grub", "--firmware", "uefi"),
    "grub-bios": ("", "--bootloader", "grub", "--firmware", "bios"),
}
"""Which tags a machine follows, and how it is installed."""


@pytest.fixture(scope="session")
def guest_tags(workspace, request):
    """The OCI directory of all images, and a disk with it that a guest's registry serves."""
    images = guest_images.build(workspace, sealed=any("[uki" in item.name for item in request.session.items))
    stick = workspace / "stick.img"
    guests.image_disk(stick, images)
    return images, stick


class Machine:
    """An installed disk of one kind, and the guest that runs from it."""

    def __init__(self, kind, user, guest_tags, folder):
        self.images, stick = guest_tags
        self.suffix, *options = KINDS[kind]
        self.user, self.disk = user, user.home / f"{kind}.img"
        user.cfs(
            "install", "to-disk", "--source-imgref", f"oci:{self.images}:v1{self.suffix}",
            "--target-imgref", self.reference("v2"), "--disk-size", "4G", "--yes", "--seed", kind, *options, self.disk,
        )  # fmt: skip
        firmware = "bios" if "bios" in options else "uefi"
        self.guest = guests.Guest(self.disk, folder, others=[stick], firmware=firmware)
        self.sh = self.guest.sh

    def reference(self, tag):
        return f"docker://{guest_images.REGISTRY}:{tag}{self.suffix}"

    def status(self):
        return json.loads(self.sh("cfs --no-progress status --format json 2>/dev/null", ok=(0, 12)))

    def booted(self):
        return self.status()["status"]["booted"]["composefs"]["verity"]

    def grub(self):
        """What of GRUB is installed: its version from the ESP, or the sector from which BIOS starts its core image."""
        if self.guest.firmware == "bios":
            return self.sh("od -An -tu8 -j92 -N8 /dev/vda").strip()
        return self.status()["cfs"]["bootloader_version"]["installed"]

    def stage(self, *words):
        said = self.sh(f"cfs --no-progress {' '.join(words)} --format json 2>/tmp/errors || (cat /tmp/errors; false)")
        found = json.loads(said)
        assert (found["result"], found["finalized_at_shutdown"]) == ("staged", True)
        return found["image_id"]

    def restart(self):
        self.guest.reboot()
        self.blessed()

    def blessed(self):
        self.sh("while systemctl is-active -q cfs-boot-good.service; do sleep 1; done")


@pytest.fixture(scope="module", params=KINDS)
def machine(request, user, guest_tags, tmp_path_factory):
    made = Machine(request.param, user, guest_tags, tmp_path_factory.mktemp(request.param))
    made.kind = request.param
    made.guest.start()
    yield made
    made.guest.stop()
    made.disk.unlink()


def test_upgrade_and_back(machine):
    """From version 1 to 2 with /etc merged at shutdown, and back: each start has what belongs to it."""
    before = machine.status()
    assert before["cfs"]["problems"] == []
    one = before["status"]["booted"]["composefs"]["verity"]
    sh = machine.sh
    sh("echo mine >/etc/mine; chmod 600 /etc/issue; rm -f /etc/motd; echo kept >/var/kept")
    if machine.kind != "uki":
        sh("cfs kargs add local=1")
    assert "update: " in sh("cfs upgrade --check")
    grub = machine.grub()
    two = machine.stage("upgrade")
    said = machine.guest.console.stat().st_size
    machine.restart()
    if "grub" in machine.kind:
        assert machine.grub() != grub, "version 2 has a newer GRUB"
        with machine.guest.console.open("rb") as file:
            file.seek(said)
            seen = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", file.read())  # it moves about while it draws
        assert machine.kind == "grub-uefi" or b"version 2.12" in seen
    after = machine.status()
    assert sh("systemctl is-system-running --wait", ok=(0, 1)).strip() == "running"
    assert after["status"]["booted"]["composefs"]["verity"] == two != one
    assert after["status"]["rollback"]["composefs"]["verity"] == one
    assert after["cfs"]["problems"] == []
    assert sh("cat /usr/lib/version /etc/from-image /etc/mine /var/kept").split() == ["2", "2", "mine", "kept"]
    assert sh("stat -c %a /etc/issue; ls /etc/motd", ok=(2,)).split()[0] == "600"
    words = set(sh("cat /proc/cmdline").split())
    assert words >= {"second=yes"} | ({"local=1"} if machine.kind != "uki" else set())
    entries = {each["id"]: each["entries"][0]["tries_left"] for each in after["cfs"]["deployments"]}
    assert entries == {one: None, two: None}, "it came up, so it is no longer on trial"
    sh("cfs rollback")
    machine.restart()
    assert machine.booted() == one
    assert sh("ls /usr/lib/version", ok=(2,))
    assert sh("cat /etc/mine /var/kept").split() == ["mine", "kept"]


def test_switch_pin_and_collect(machine):
    """Another system, then a third with the first pinned: what lives starts, everything else is gone."""
    one = machine.booted()
    other = machine.stage("switch", machine.reference("other"))
    machine.restart()
    assert machine.booted() == other
    machine.sh(f"cfs deployments pin {one}")
    third = machine.stage("switch", machine.reference("third"))
    machine.restart()
    machine.sh("cfs gc; cfs fsck", seconds=3000)
    found = machine.status()
    assert found["cfs"]["problems"] == []
    assert {each["id"] for each in found["cfs"]["deployments"]} == {one, other, third}
    assert set(machine.sh("ls /sysroot/state/deploy /sysroot/composefs/images | grep -v :").split()) >= {
        one,
        other,
        third,
    }
    machine.sh("cfs rollback")
    machine.restart()
    assert machine.booted() == other
    machine.sh(f"cfs deployments remove {third[:12]}; cfs rollback")
    machine.restart()
    assert machine.booted() == one
    machine.sh("cfs gc; cfs fsck", seconds=3000)


def test_soft_reboot(machine):
    """Userspace of another version with the same kernel that goes on; refused where its arguments are others."""
    one = machine.booted()
    boot = "cat /proc/sys/kernel/random/boot_id"
    kernel = machine.sh(boot)
    said = machine.sh(f"cfs switch {machine.reference('v2')} --soft-reboot required 2>&1", ok=range(1, 20))
    assert "[state.soft-reboot]" in said
    machine.guest.restarts(f"cfs switch {machine.reference('third')} --apply --soft-reboot required")
    assert machine.sh("cat /usr/lib/version").strip() == "third"
    three = machine.booted()
    assert three != one
    assert machine.sh(boot) == kernel
    assert machine.status()["cfs"]["problems"] == []
    machine.restart()
    assert machine.booted() == three, "and it is what the loader starts"
    machine.sh("cfs rollback")
    machine.restart()
    assert machine.booted() == one


@pytest.mark.parametrize("tag", ["ill", "panics", "hangs"])
def test_what_does_not_come_up_is_left(machine, tag):
    """By itself back on what ran before, with the reason in the status; the image is left alone until it changes."""
    old = machine.booted()
    machine.sh("mkdir -p /etc/cfs; printf '[boot]\\ntries = 1\\ntrial-timeout = 5\\n' >/etc/cfs/cfs.toml")
    bad = machine.stage("switch", machine.reference(tag))
    machine.guest.reboot(image=old)
    machine.sh("while systemctl is-active -q cfs-boot-check.service; do sleep 1; done")
    found = machine.status()
    failed = next(each["failed"] for each in found["cfs"]["deployments"] if each["id"] == bad)
    assert "did not come up" in failed["reason"]
    assert machine.sh("cfs status >/dev/null", ok=(12,)) is not None
    machine.sh(f"cfs edit {machine.reference(tag)}")
    assert "went back from this image" in machine.sh("cfs upgrade")
    machine.sh(f"cfs deployments remove {bad[:12]}; cfs gc")


def test_the_disk_is_in_order(machine, user):
    """What the machine leaves is what the checks of another machine expect."""
    machine.guest.power_off()
    user.cfs("repo", "fsck", "--disk", machine.disk)


def test_a_power_cut_while_it_waits(user, guest_tags, tmp_path):
    """What was staged and not finalized is dropped; the machine starts what it started before and can do it again."""
    machine = Machine("systemd-boot", user, guest_tags, tmp_path / "guest")
    copy = tmp_path / "copy.img"
    try:
        machine.guest.start()
        one = machine.booted()
        machine.stage("upgrade")
        machine.guest.stop()
        subprocess.run(["cp", "--sparse=always", machine.disk, copy], check=True)
        machine.guest.start()
        found = machine.status()
        assert (found["status"]["booted"]["composefs"]["verity"], found["status"]["staged"]) == (one, None)
        assert found["cfs"]["problems"] == []
    finally:
        machine.guest.stop()
        machine.disk.unlink()
        shutil.rmtree(copy, ignore_errors=True)
