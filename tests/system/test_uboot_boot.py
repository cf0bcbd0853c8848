"""An arm64 system on a board without EFI: U-Boot reads the example plugin's extlinux.conf and starts the kernel."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import subprocess
import threading

import pytest
from builders import early_boot, kernels, uboot
from builders.kept import kept
from builders.outsiders import EXAMPLES, Outside, core_and_default_plugins

pytestmark = [pytest.mark.vm, pytest.mark.slow]

QEMU = "qemu-system-aarch64"
FIRMWARE = "usr/lib/u-boot/qemu_arm64/u-boot.bin"
BOOT_SECONDS = 240


@pytest.fixture(scope="module")
def debian():
    """Kernel, busybox and U-Boot of Debian, unpacked, kept between runs."""
    if not shutil.which(QEMU):
        pytest.skip(f"{QEMU} is not installed (package qemu-system-arm)")

    def make(folder):
        why = kernels.download(folder, "trixie", "arm64", "u-boot-qemu", "busybox-static")
        if why is not None:
            pytest.skip(f"Debian's arm64 packages cannot be had: {why}")

    return kept("uboot-arm64", make)


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    projects = [*core_and_default_plugins(), EXAMPLES / "cfs-extlinux", EXAMPLES / "cfs-transport-http-tarball"]
    return Outside.make(tmp_path_factory.mktemp("uboot") / "outside", projects)


def install(outside, folder, data):
    """Return a disk installed from a tar file on a web server, and what the install said."""
    (folder / "www").mkdir()
    (folder / "www/rootfs.tar").write_bytes(data)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder / "www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http-tarball:http://127.0.0.1:{server.server_port}/rootfs.tar@sha256:{hashlib.sha256(data).hexdigest()}"
        try:
            done = outside.run(
                "cfs", "install", "to-disk", "--source-imgref", url, "--architecture", "arm64",
                "--bootloader", "extlinux", "--composefs-native", "--karg", "console=ttyAMA0", "--yes",
                "--seed", "uboot", "--repo", folder / "repo", folder / "disk.img",
            )  # fmt: skip
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "disk.img", done.stderr


def boot(debian, disk, log):
    """Let U-Boot start the disk; what was on the console."""
    subprocess.run(
        [QEMU, "-M", "virt", "-cpu", "cortex-a57", "-smp", "2", "-m", "1024", "-accel", "tcg", "-nodefaults",
         "-display", "none", "-serial", f"file:{log}", "-no-reboot", "-bios", debian / FIRMWARE,
         "-drive", f"if=none,id=disk,file={disk},format=raw,snapshot=on", "-device", "virtio-blk-pci,drive=disk"],
        stdin=subprocess.DEVNULL, check=True, timeout=BOOT_SECONDS,
    )  # fmt: skip
    return log.read_text(errors="replace")


def test_uboot_reads_the_menu_and_the_root_is_verified(debian, outside, tmp_path):
    disk, _ = install(outside, tmp_path, uboot.rootfs(debian, "marker-of-this-test"))
    text = boot(debian, disk, tmp_path / "console")
    assert "with extlinux" in text, text[-3000:]
    assert "1:\tU-Boot test system" in text
    assert "cfs-setup-root: root is composefs" in text, text[-3000:]
    assert "verity required" in text
    assert "the system runs: marker-of-this-test" in text


@pytest.mark.campaign
def test_a_stock_image_starts_with_what_was_added_in_the_one_initrd_that_uboot_takes(debian, outside, tmp_path):
    userland = early_boot.unpacked("arm64-userland", "trixie", *early_boot.PACKAGES, kernel=False, architecture="arm64")
    disk, said = install(outside, tmp_path, uboot.stock_rootfs(debian, userland, "marker-of-a-stock-image"))
    assert "in one file with the image's initrd" in said
    assert "hooks for mkinitcpio" in said
    text = boot(debian, disk, tmp_path / "console")
    assert ":: running run_latehook [cfs]" in text, text[-3000:]
    assert "cfs-setup-root: root is composefs" in text, text[-3000:]
    assert "verity required" in text
    assert "the system runs: marker-of-a-stock-image" in text
