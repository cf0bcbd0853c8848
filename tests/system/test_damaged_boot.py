"""Damaged images: what is installed all the same starts, unless what stops it shows in no file.

A boot is direct (QEMU loads the kernel), with kernel, initramfs and arguments that the plan names: some five seconds.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from builders import early_boot
from builders.damaged_tree import damaged

from cfs_testkit.builders.oci import Image, Link, layer, write_layout

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed (qemu-system-x86)"),
]

NEEDED = ("usr/lib/modules/", "usr/lib/os-release", "etc/os-release", "usr/sbin/init", "sbin", "usr/bin/busybox",
          "usr/bin/sh", "usr/lib/bootc/", "usr/lib/composefs/", "boot", "sysroot", "run", "proc", "sys", "dev", "tmp",
          "etc/hostname")  # fmt: skip
"""Where damage matters; elsewhere it is the system's own business."""

SETTINGS = '[var]\nmount = "overlay"\n'
BOOTS, SEED = 6, 1000
CAMPAIGN_BOOTS, CAMPAIGN_SEED = 40, 2000
ASKED = re.compile(r"^(init|rdinit|rd\.break|single)\b")
"""Arguments with which an image asks for something else than its system."""


def cfs(*words):
    return subprocess.run(
        [sys.executable, "-m", "cfs_core", *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )


class Lab:
    """Damages the image, installs it, and boots what was installed."""

    def __init__(self, folder):
        self.folder = folder
        debian = early_boot.trixie()
        busybox = early_boot.locate(debian, "busybox")
        self.tree = early_boot.contents(debian, early_boot.initramfs(debian, None, busybox), busybox, SETTINGS)
        self.paths = [path for path in self.tree if path.startswith(NEEDED)]

    def install(self, change):
        """Return the judgement of what was installed; None if it was refused, with an explanation."""
        shutil.rmtree(self.folder / "oci", ignore_errors=True)
        write_layout(self.folder / "oci", {"t": Image([layer(change.tree, "none")])})
        disk, source = self.folder / "disk.img", f"oci:{self.folder}/oci:t"
        options = ("--bootloader", "systemd-boot", "--repo", self.folder / "repo", "--format", "json")
        added = ("--karg", "console=ttyS0", "--karg", "panic=-1")
        checked = cfs("image", "check", source, *options, *added)
        assert checked.returncode not in {1, 4, 14}, f"{change.what}\n{checked.stderr}"
        if checked.returncode:
            assert "hint: " in checked.stderr, f"{change.what}\n{checked.stderr}"
            return None
        disk.unlink(missing_ok=True)
        done = cfs("install", "to-disk", "--source-imgref", source, *options, *added, disk)
        assert done.returncode == 0, f"{change.what}\n{done.stderr}"
        (judgement,) = json.loads(checked.stdout)["judgements"]
        return judgement

    def boot(self, change, plan):
        """Boot the disk with what the plan says."""
        kernel = plan["kernel"].lstrip("/")
        for name, path in (("kernel", kernel), ("initrd", f"{kernel.rpartition('/')[0]}/initramfs.img")):
            what = change.tree[path]
            while isinstance(what, Link):
                what = change.tree[what.target.lstrip("/")]
            (self.folder / name).write_bytes(what.data)
        words = [each for each in plan["kernel_arguments"] if not each.startswith("root=")]
        return early_boot.start(
            "-kernel", self.folder / "kernel", "-initrd", self.folder / "initrd",
            "-append", " ".join(["root=/dev/vda2", *words]), *early_boot.disk_arguments(self.folder / "disk.img"),
            console=self.folder / "console", seconds=180,
        )  # fmt: skip

    def survivors(self, seed):
        """Yield damage after which the image was installed, with its plan."""
        while True:
            change = damaged(seed, self.tree, paths=self.paths)
            seed += 1
            if change.hidden:
                continue
            plan = self.install(change)
            if plan is not None and not any(ASKED.match(each) for each in plan["kernel_arguments"]):
                yield change, plan

    def try_boots(self, count, seed):
        for (change, plan), number in zip(self.survivors(seed), range(count), strict=False):
            try:
                finished = self.boot(change, plan).finished
            except subprocess.SubprocessError:
                finished = False
            console = (self.folder / "console").read_text(errors="replace")
            print(number, change.what, "started" if finished else "STOPPED")
            assert finished, f"{change.what}\n{plan['findings']}\n{console[-3000:]}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("damaged"))


@pytest.mark.timeout(600)
def test_what_is_installed_in_spite_of_damage_starts(lab):
    lab.try_boots(BOOTS, SEED)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_forty_times(lab):
    lab.try_boots(CAMPAIGN_BOOTS, CAMPAIGN_SEED)
