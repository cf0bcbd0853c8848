"""The early-boot script in a running kernel: what it mounts, what it refuses. Some five seconds a boot."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import early_boot, kernels, mkinitcpio

from cfs_testkit.builders.oci import write_layout

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed (qemu-system-x86)"),
]

OVMF = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
IMAGE_SETTINGS = '[var]\nmount = "overlay"\n'


@pytest.fixture(scope="module")
def trixie():
    return early_boot.trixie()


@pytest.fixture(scope="module")
def busybox(trixie):
    return early_boot.locate(trixie, "busybox")


@dataclass
class System:
    """A disk that has the system, and its kernel; boots it with any initramfs and command line."""

    disk: Path
    image_id: str
    kernel: Path
    folder: Path

    @property
    def image_path(self):
        return f"/composefs/objects/{self.image_id[:2]}/{self.image_id[2:]}"

    @property
    def state(self):
        return f"/state/deploy/{self.image_id}"

    def boot(self, initrd, words, *, kernel=None, disk=None):
        (self.folder / "initrd").write_bytes(initrd)
        seen = early_boot.start(
            "-kernel", kernel or self.kernel, "-initrd", self.folder / "initrd",
            "-append", f"console=ttyS0 panic=-1 root=/dev/vda2 {words}",
            *early_boot.disk_arguments(disk or self.disk), console=self.folder / "console",
        )  # fmt: skip
        print(seen.console)
        return seen


def cfs(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "cfs_core", *map(str, words)], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def initrds(trixie, busybox):
    """Initramfs by what mounts in them."""
    older = early_boot.unpacked("bookworm-userland", "bookworm", *early_boot.PACKAGES, kernel=False)
    return {
        "mount-2.41": early_boot.initramfs(trixie, trixie, busybox),
        "mount-2.38": early_boot.initramfs(trixie, older, busybox),
        "busybox": early_boot.initramfs(trixie, None, busybox),
    }


@pytest.fixture(scope="module")
def system(trixie, busybox, initrds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("early-boot")
    image = early_boot.image(trixie, initrds["mount-2.41"], busybox, IMAGE_SETTINGS)
    write_layout(folder / "oci", {"latest": image})
    disk = folder / "disk.img"
    said = cfs(
        folder, "install", "to-disk", "--source-imgref", f"oci:{folder}/oci:latest", "--composefs-native", "--yes",
        "--bootloader", "systemd-boot", "--repo", folder / "repo", "--format", "json", "--karg", "panic=-1", disk,
    )  # fmt: skip
    kernel = trixie / f"boot/vmlinuz-{kernels.kernel_version(trixie)}"
    return System(disk, json.loads(said)["image_id"], kernel, folder)


@pytest.fixture
def copied(system, damage):
    """A copy of the disk to change; gone after the test."""
    copy = system.folder / "copy.img"
    subprocess.run(["cp", "--sparse=always", system.disk, copy], check=True)
    yield damage(copy)
    copy.unlink()


def test_the_image_is_verified_and_everything_mounted(system, initrds):
    """The kernel reads the EROFS file itself; the command line has digests of both algorithms, the repository one."""
    words = f"composefs.digest=v1-sha256-12:{'ab' * 32} composefs.digest=v1-sha512-12:{system.image_id}"
    seen = system.boot(initrds["mount-2.41"], words)
    assert seen.finished
    root = seen.mount("/")
    assert (root.source, root.kind) == (f"composefs:{system.image_id}", "overlay")
    assert {"ro", "verity=require", "metacopy=on", "redirect_dir=on"} <= {*root.options}
    assert seen.all("loop") == []
    assert seen.mount("/etc").kind == "ext4"
    assert "ro" in seen.mount("/sysroot").options
    assert seen.all("writable") == ["/etc/", "/var/"]
    # /etc is bound; the image's own settings make an overlay of /var
    assert sorted(seen.all("kept")) == [f"{system.state}/etc/written", "/state/os/default/var/upper/written"]
    assert seen.all("content") == [hashlib.sha256(early_boot.LARGE).hexdigest()]
    assert seen.all("etc") == ["box"]


@pytest.mark.parametrize("userland", ["mount-2.38", "busybox"])
def test_a_mount_that_knows_no_file_backed_erofs_takes_a_loop_device(userland, system, initrds):
    initrd = early_boot.with_settings(initrds[userland], '[etc]\nmount = "overlay"\n[var]\nmount = "transient"\n')
    seen = system.boot(initrd, f"composefs={system.image_id}")
    assert seen.finished
    assert [path.endswith(system.image_path) for path in seen.all("loop")] == [True]
    assert "verity=require" in seen.mount("/").options
    # the settings in the initramfs, not those in the image
    assert (seen.mount("/etc").kind, seen.mount("/etc").source) == ("overlay", "overlay")
    assert (seen.mount("/var").kind, seen.mount("/var").source) == ("overlay", "transient")
    assert seen.all("writable") == ["/etc/", "/var/"]
    assert seen.all("kept") == [f"{system.state}/etc/upper/written"]
    assert seen.all("etc") == ["box"]


def test_a_transient_root_is_writable_and_forgotten(system, initrds):
    settings = '[root]\ntransient = true\n[etc]\ntransient = true\n[var]\nmount = "none"\n'
    seen = system.boot(early_boot.with_settings(initrds["mount-2.41"], settings), f"composefs={system.image_id}")
    assert seen.finished
    root = seen.mount("/")
    assert root.source == f"transient:composefs={system.image_id}"
    assert {"rw", "verity=require"} <= {*root.options}
    assert seen.mount("/etc").source == "transient"
    assert seen.mount("/var") is None
    assert seen.all("writable") == ["/", "/usr/", "/etc/", "/var/"]
    assert seen.all("kept") == []
    assert seen.all("content") == [hashlib.sha256(early_boot.LARGE).hexdigest()]


def test_an_image_without_verity_is_refused_unless_the_command_line_permits_it(system, copied, initrds):
    copied.debugfs(f'set_inode_field "{system.image_path}" flags 0x80000')
    seen = system.boot(initrds["mount-2.41"], f"composefs={system.image_id}", disk=copied.disk)
    assert seen.stopped
    assert not seen.finished
    assert f"the image {system.image_id} does not verify" in seen.console
    assert "has no fs-verity digest" in seen.console
    seen = system.boot(initrds["mount-2.41"], f"composefs=?{system.image_id}", disk=copied.disk)
    assert seen.finished
    assert "verity=require" not in seen.mount("/").options


def test_an_altered_image_is_refused_through_a_loop_device_as_well(system, copied, initrds):
    copied.flip(system.image_path, at=2000)
    seen = system.boot(initrds["mount-2.38"], f"composefs={system.image_id}", disk=copied.disk)
    assert seen.stopped
    assert not seen.finished
    assert f"the image {system.image_id} does not verify" in seen.console
    assert "FILE CORRUPTED" in seen.console


def test_a_kernel_without_verity_in_overlayfs_starts_nothing_and_says_why(system, busybox, initrds):
    tree = early_boot.unpacked("bookworm", "bookworm", *early_boot.PACKAGES)
    kernel = tree / f"boot/vmlinuz-{kernels.kernel_version(tree)}"
    assert kernel.name.startswith("vmlinuz-6.1.")
    initrd = early_boot.initramfs(tree, tree, busybox)
    seen = system.boot(initrd, f"composefs={system.image_id}", kernel=kernel)
    assert seen.stopped
    assert not seen.finished
    assert "this kernel's overlayfs cannot require fs-verity (Linux 6.6 can)" in seen.console


def without_root(entry):
    fewer, found = re.subn(rb" root=\S+", b"", entry)
    assert found == 1
    return fewer


@pytest.mark.skipif(not OVMF.exists(), reason="no UEFI firmware (package ovmf)")
def test_the_root_partition_is_found_on_the_disk_the_boot_loader_came_from(system, copied, tmp_path):
    entry = next(name for name in copied.esp_names("loader/entries") if name.endswith(".conf"))
    copied.exchange_esp_file(entry, without_root)
    shutil.copyfile(OVMF.with_name(OVMF.name.replace("CODE", "VARS")), tmp_path / "vars")
    seen = early_boot.start(
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF}",
        "-drive", f"if=pflash,unit=1,format=raw,file={tmp_path}/vars",
        "-drive", f"file={copied.disk},format=raw,if=none,id=disk,snapshot=on",
        "-device", "virtio-blk-pci,drive=disk,bootindex=0",
        console=tmp_path / "console",
    )  # fmt: skip
    print(seen.console)
    assert seen.all("root-partition") == ["/dev/vda2"]
    assert seen.finished
    assert "verity=require" in seen.mount("/").options


@pytest.mark.campaign
@pytest.mark.skipif(not OVMF.exists(), reason="no UEFI firmware (package ovmf)")
def test_what_is_added_runs_between_mkinitcpios_own_hooks(trixie, busybox, tmp_path):
    write_layout(tmp_path / "oci", {"t": mkinitcpio.image(trixie, busybox)})
    words = (
        "install", "to-disk", "--source-imgref", f"oci:{tmp_path}/oci:t", "--composefs-native", "--repo",
        tmp_path / "repo", "--karg", "panic=-1", "--karg", "console=ttyS0", "--format", "json",
    )  # fmt: skip
    plan = json.loads(cfs(tmp_path, *words, "--dry-run", tmp_path / "disk.img"))
    (told,) = [each["message"] for each in plan["findings"] if each["code"] == "boot.early-boot"]
    assert "hooks for mkinitcpio" in told
    image_id = json.loads(cfs(tmp_path, *words, "--yes", tmp_path / "disk.img"))["image_id"]
    shutil.copyfile(OVMF.with_name(OVMF.name.replace("CODE", "VARS")), tmp_path / "vars")
    seen = early_boot.start(
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF}",
        "-drive", f"if=pflash,unit=1,format=raw,file={tmp_path}/vars",
        "-drive", f"file={tmp_path}/disk.img,format=raw,if=none,id=disk,snapshot=on",
        "-device", "virtio-blk-pci,drive=disk,bootindex=0",
        console=tmp_path / "console",
    )  # fmt: skip
    print(seen.console)
    order = re.findall(r":: running (\w+ \[\w+\])", seen.console)  # behind what the firmware left on the line
    assert order == ["run_earlyhook [udev]", "run_earlyhook [cfs]", "run_hook [udev]", "run_latehook [cfs]"]
    assert seen.finished
    root = seen.mount("/")
    assert (root.source, root.kind) == (f"composefs:{image_id}", "overlay")
    assert "verity=require" in root.options
