"""The Debian image with early boot built into its initramfs: ours by initramfs-tools, composefs-rs's program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from builders import kernels
from composefs_builders.judges import SETUP_ROOT

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="an initramfs is built in a chroot, which needs root"),
]

INITRAMFS_TOOLS = (
    "busybox", "cpio", "initramfs-tools", "initramfs-tools-bin", "initramfs-tools-core", "klibc-utils", "libklibc",
)  # fmt: skip
# As composefs-rs's own: a module of dracut that brings program and unit.
MODULE = """#!/bin/bash
check() { return 0; }
installkernel() { hostonly='' instmods erofs overlay loop; }
install() {
    inst /usr/bin/composefs-setup-root /bin/composefs-setup-root
    inst_simple "${moddir:?}/unit" /usr/lib/systemd/system/composefs-setup-root.service
    mkdir -p "${initdir:?}/usr/lib/systemd/system/initrd-root-fs.target.wants"
    ln -s ../composefs-setup-root.service "$initdir/usr/lib/systemd/system/initrd-root-fs.target.wants/"
}
"""
UNIT = """[Unit]
DefaultDependencies=no
ConditionKernelCommandLine=composefs
Requires=sysroot.mount
After=sysroot.mount
Before=initrd-root-fs.target
OnFailure=emergency.target
OnFailureJobMode=isolate

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/composefs-setup-root
"""


class Tree:
    """The demo image's root, unpacked, to build another initramfs in."""

    def __init__(self, images: Path, folder: Path) -> None:
        self.folder = folder
        manifest = self._blob(images, json.loads((images / "index.json").read_text())["manifests"], "debian")
        (layer,) = json.loads(manifest.read_text())["layers"]
        with tarfile.open(images / "blobs/sha256" / layer["digest"].partition(":")[2]) as tar:
            tar.extractall(folder, filter="tar")
        self.version = next(path.name for path in (folder / "usr/lib/modules").iterdir())
        (folder / "dev/null").touch()

    @staticmethod
    def _blob(images, descriptors, tag):
        wanted = "org.opencontainers.image.ref.name"
        found = next(item for item in descriptors if item.get("annotations", {}).get(wanted) == tag)
        return images / "blobs/sha256" / found["digest"].partition(":")[2]

    @property
    def initramfs(self):
        return f"usr/lib/modules/{self.version}/initramfs.img"

    def write(self, name, text, mode=0o644):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(self, *words):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TMPDIR": "/tmp"}
        done = subprocess.run(
            ["chroot", self.folder, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def tree(demo_image, tmp_path):
    made = Tree(demo_image, tmp_path / "tree")
    yield made
    shutil.rmtree(made.folder)


@pytest.fixture
def installed(demo_image, workspace, user, tree):
    """Put the tree's initramfs into the image; return what installs that under a tag, the disk and what was said."""
    images = workspace / "debian-initramfs"

    def install(tag):
        shutil.copytree(demo_image, images)
        layer = workspace / f"{tag}.tar"
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(tree.folder / tree.initramfs, tree.initramfs)
        subprocess.run(["umoci", "tag", "--image", f"{images}:debian", tag], check=True)
        subprocess.run(
            ["umoci", "raw", "add-layer", "--image", f"{images}:{tag}", "--history.created_by", tag, layer], check=True
        )
        layer.unlink()
        for path in images.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        disk = user.home / f"{tag}.img"
        said = user.cfs(
            "install", "to-disk", "--source-imgref", f"oci:{images}:{tag}", "--composefs-native", "--yes",
            "--bootloader", "systemd-boot", "--seed", tag, "--format", "json", disk,
        )  # fmt: skip
        return disk, json.loads(said.stdout)

    yield install
    shutil.rmtree(images, ignore_errors=True)


def without_root(entry):
    fewer, found = re.subn(rb" root=\S+", b"", entry)
    assert found == 1
    return fewer


def proven(report, image_id):
    assert report.failure is None
    assert report.root.image_id == image_id
    assert report.root.verity_required
    assert report.system_state == "running"
    assert report.failed_units == ()


def test_initramfs_tools_finds_the_root_partition_and_mounts_the_image(tree, installed, damage, machine):
    why = kernels.download(tree.folder, "trixie", "amd64", *INITRAMFS_TOOLS, kernel=False)
    if why is not None:
        pytest.skip(f"Debian's initramfs-tools cannot be had: {why}")
    subprocess.run(
        [sys.executable, "-m", "cfs_core", "initramfs", "install", tree.folder, "--for", "initramfs-tools"], check=True
    )
    tree.run("mkinitramfs", "-o", f"/{tree.initramfs}", tree.version)
    disk, said = installed("initramfs-tools")
    # without root=, local-top must find the partition
    change = damage(disk)
    entry = next(name for name in change.esp_names("loader/entries") if name.endswith(".conf"))
    change.exchange_esp_file(entry, without_root)
    proven(machine.boot(disk), said["image_id"])


@pytest.mark.judge
@pytest.mark.skipif(SETUP_ROOT is None, reason="composefs-setup-root is not installed (see tests/install-judges)")
def test_composefs_rs_mounts_what_was_installed(tree, installed, machine):
    shutil.copy(SETUP_ROOT, tree.folder / "usr/bin/composefs-setup-root")
    tree.write("usr/lib/dracut/modules.d/37composefs/module-setup.sh", MODULE, 0o755)
    tree.write("usr/lib/dracut/modules.d/37composefs/unit", UNIT)
    tree.write("usr/lib/dracut/dracut.conf.d/37-rs.conf", 'hostonly="no"\nadd_dracutmodules+=" composefs "\n')
    tree.run("dracut", "--quiet", "--force", f"/{tree.initramfs}", tree.version)
    disk, said = installed("composefs-rs")
    proven(machine.boot(disk), said["image_id"])
