"""Images of a distribution's own packages, nothing of cfs in them: early boot is added when they are installed.

The demo's image, by dracut with its systemd module, is another: test_boot.py and test_grub_boot.py boot it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile

import pytest
from builders import debian

from cfs_core.plugin import Firmware

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed (qemu-system-x86)"),
    pytest.mark.skipif(not shutil.which("umoci"), reason="umoci is not installed; scripts/host-setup does that"),
]

SYSTEM = ("linux-image-cloud-amd64", "systemd", "systemd-sysv", "udev", "dbus", "systemd-boot-efi")
GRUB = ("grub-efi-amd64-unsigned", "grub-pc-bin")
# The one thing that no package has: where the root partition is mounted. All else stays as the packages made it.
MOUNT_POINT = 'mkdir "$1/sysroot"'
LARGEST = 4 << 20


def image_of(workspace, name, packages, *options):
    """Make an OCI directory of *packages* with tag debian."""
    tree, images = workspace / f"{name}.tar", workspace / name
    debian.make_tree(tree, packages, *options, f"--customize-hook={MOUNT_POINT}", "--skip=output/dev")
    with tarfile.open(tree) as tar:
        assert not [name for name in tar.getnames() if name.split("/")[-1].startswith(("cfs", "90cfs", "composefs"))]
    for words in (
        ("init", "--layout", images),
        ("new", "--image", f"{images}:debian"),
        ("raw", "add-layer", "--image", f"{images}:debian", tree),
        ("config", "--image", f"{images}:debian", "--architecture", "amd64", "--os", "linux"),
    ):
        subprocess.run(["umoci", *words], check=True)
    tree.unlink()
    for path in images.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return images


@pytest.fixture(scope="module")
def initramfs_tools(workspace):
    """Debian, its cloud kernel, the initramfs that its packages built by themselves, and GRUB."""
    images = image_of(workspace, "stock", (*SYSTEM, *GRUB, "initramfs-tools"))
    yield images
    shutil.rmtree(images)


@pytest.fixture(scope="module")
def dracut(workspace):
    """The same with dracut, and an initramfs whose init is a shell script."""
    rebuild = 'chroot "$1" dracut --quiet --force --no-hostonly --omit "systemd systemd-initrd dracut-systemd"'
    rebuild = f'v=$(basename "$1"/usr/lib/modules/*); {rebuild} "/boot/initrd.img-$v" "$v"'
    images = image_of(workspace, "dracut", (*SYSTEM, "dracut", "zstd"), f"--customize-hook={rebuild}")
    yield images
    shutil.rmtree(images)


def words(images, *options):
    return (
        "install", "to-disk", "--source-imgref", f"oci:{images}:debian", "--karg", "console=ttyS0", "--seed", "stock",
        *options,
    )  # fmt: skip


def told(user, images, *options):
    """Return what the plan says of early boot."""
    plan = json.loads(user.cfs(*words(images, *options), "--dry-run", "--format", "json", user.home / "d.img").stdout)
    (found,) = [finding["message"] for finding in plan["findings"] if finding["code"] == "boot.early-boot"]
    return found


def installed(user, images, name, *options):
    disk = user.home / f"{name}.img"
    said = json.loads(user.cfs(*words(images, *options), "--yes", "--format", "json", disk).stdout)
    return disk, said["image_id"]


def added(disk, image_id):
    """Return the second initrd on the ESP of a disk."""
    table = subprocess.run(["sfdisk", "--json", disk], capture_output=True, check=True)
    start = json.loads(table.stdout)["partitiontable"]["partitions"][0]["start"] * 512
    path = f"::/EFI/Linux/bootc_composefs-{image_id}/initrd-2"
    return subprocess.run(["mtype", "-i", f"{disk}@@{start}", path], capture_output=True, check=True).stdout


def proven(machine, disk, image_id, **options):
    report = machine.boot(disk, **options)
    disk.unlink()
    assert report.failure is None
    assert report.root.image_id == image_id
    assert report.root.verity_required
    assert report.system_state == "running"


def test_debian_with_initramfs_tools_boots_as_its_packages_made_it(initramfs_tools, user, machine):
    message = told(user, initramfs_tools, "--bootloader", "systemd-boot")
    assert "hooks for initramfs-tools" in message
    assert "erofs, overlay" in message
    disk, image_id = installed(user, initramfs_tools, "stock", "--bootloader", "systemd-boot")
    part = added(disk, image_id)
    assert 0 < len(part) < LARGEST
    again, _ = installed(user, initramfs_tools, "again", "--bootloader", "systemd-boot", "--karg", "another=1")
    assert added(again, image_id) == part, "it depends on the image alone"
    again.unlink()
    proven(machine, disk, image_id)


@pytest.mark.parametrize("firmware", [Firmware.UEFI, Firmware.BIOS])
def test_grub_starts_it(initramfs_tools, firmware, user, machine):
    disk, image_id = installed(user, initramfs_tools, "grub", "--bootloader", "grub", "--firmware", firmware.value)
    proven(machine, disk, image_id, firmware=firmware)


def test_debian_with_dracut_without_systemd_in_it(dracut, user, machine):
    assert "hooks for dracut" in told(user, dracut)
    disk, image_id = installed(user, dracut, "dracut")
    proven(machine, disk, image_id)
