"""An image with an initramfs as mkinitcpio builds it: early boot is added at install, and its hooks run in order."""

from __future__ import annotations

import json
import shutil

import pytest
from builders import early_boot, mkinitcpio
from test_early_boot import OVMF, cfs, unpacked

from cfs_testkit.builders.oci import write_layout

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed (qemu-system-x86)"),
    pytest.mark.skipif(not OVMF.exists(), reason="no UEFI firmware (package ovmf)"),
]


def test_what_is_added_runs_between_mkinitcpios_own_hooks(tmp_path):
    tree = unpacked("trixie", "trixie", "busybox-static", "systemd-boot-efi", *early_boot.PACKAGES)
    write_layout(tmp_path / "oci", {"t": mkinitcpio.image(tree, early_boot.locate(tree, "busybox"))})
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
    order = [line.partition("running ")[2] for line in seen.console.splitlines() if line.startswith(":: running")]
    assert order == ["run_earlyhook [udev]", "run_earlyhook [cfs]", "run_hook [udev]", "run_latehook [cfs]"]
    assert seen.finished
    root = seen.mount("/")
    assert (root.source, root.kind) == (f"composefs:{image_id}", "overlay")
    assert "verity=require" in root.options
