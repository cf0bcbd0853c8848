"""Images of a distribution's own packages, nothing of cfs in them: early boot is added when they are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile

import pytest
from builders import debian

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed (qemu-system-x86)"),
    pytest.mark.skipif(not shutil.which("umoci"), reason="umoci is not installed; scripts/host-setup does that"),
]

PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "systemd", "systemd-sysv", "udev", "dbus", "systemd-boot-efi",
)  # fmt: skip
# The packages' own kernel and initramfs, where bootable container images have them.
MOVE = (
    'set -e; v=$(basename "$1"/usr/lib/modules/*); m="$1/usr/lib/modules/$v"; mkdir "$1/sysroot"; '
    'mv "$1/boot/vmlinuz-$v" "$m/vmlinuz"; mv "$1/boot/initrd.img-$v" "$m/initramfs.img"'
)
LARGEST = 4 << 20


@pytest.fixture
def stock(workspace):
    """An OCI directory with Debian, its cloud kernel and the initramfs that its packages built."""
    tree, images = workspace / "stock.tar", workspace / "stock"
    debian.make_tree(tree, PACKAGES, f"--customize-hook={MOVE}", "--skip=output/dev")
    with tarfile.open(tree) as tar:
        assert not [name for name in tar.getnames() if "cfs" in name.split("/")[-1]]
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
    yield images
    shutil.rmtree(images)


def test_debian_with_initramfs_tools_boots_as_its_packages_made_it(stock, user, machine):
    disk = user.home / "stock.img"
    words = (
        "install",
        "to-disk",
        "--source-imgref",
        f"oci:{stock}:debian",
        "--karg",
        "console=ttyS0",
        "--seed",
        "stock",
    )
    plan = json.loads(user.cfs(*words, "--dry-run", "--format", "json", disk).stdout)
    (told,) = [finding["message"] for finding in plan["findings"] if finding["code"] == "boot.early-boot"]
    assert "hooks for initramfs-tools" in told
    assert "erofs, overlay" in told
    said = json.loads(user.cfs(*words, "--yes", "--format", "json", disk).stdout)
    esp = subprocess.run(["sfdisk", "--json", disk], capture_output=True, check=True)
    start = json.loads(esp.stdout)["partitiontable"]["partitions"][0]["start"] * 512
    added = subprocess.run(
        ["mtype", "-i", f"{disk}@@{start}", f"::/EFI/Linux/bootc_composefs-{said['image_id']}/initrd-2"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert 0 < len(added.stdout) < LARGEST
    report = machine.boot(disk)
    assert report.failure is None
    assert report.root.image_id == said["image_id"]
    assert report.root.verity_required
    assert report.system_state == "running"
