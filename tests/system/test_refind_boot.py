"""Debian, started by rEFInd: the example plugin, installed as an outsider would, in an environment of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from builders.outsiders import EXAMPLES, Outside, core_and_default_plugins

pytestmark = [pytest.mark.vm, pytest.mark.slow]

CHECKOUT = Path(__file__).resolve().parents[2]
HOST_SETUP = CHECKOUT / "scripts/host-setup"
KEPT = CHECKOUT / ".cache/demo/refind"
PROGRAM = "usr/share/refind/refind/refind_x64.efi"
EPOCH = 1_750_000_000
UNUSUAL = ("a=$root${x}$(y)", "c={;|&<>#*?!}~^`%[]", 'd="two words"', "e=p(1),q", "f=\\b/c")


@pytest.fixture(scope="module")
def refind(workspace):
    """rEFInd of Debian's package, kept between runs."""
    if not KEPT.is_file():
        work = workspace / "refind"
        work.mkdir()
        done = subprocess.run(
            [HOST_SETUP, "download", "trixie", work, "refind"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"Debian's package refind cannot be had: {done.stderr[-300:]}")
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, work / "tree"], check=True)
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(work / "tree" / PROGRAM, KEPT.with_suffix(".fresh"))
        KEPT.with_suffix(".fresh").rename(KEPT)
    return KEPT


@pytest.fixture(scope="module")
def images(demo_image, refind, workspace):
    """The demo image, and the sealed one, with rEFInd in one more layer. The sealed one has it below /boot."""
    images = workspace / "debian-refind"
    shutil.copytree(demo_image, images)
    layer = workspace / "refind.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for parent in reversed(Path(PROGRAM).parents[:-1]):
            info = tarfile.TarInfo(str(parent))
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            tar.addfile(info)
        info = tarfile.TarInfo(PROGRAM)
        info.size, info.mode, info.mtime = refind.stat().st_size, 0o644, EPOCH
        with refind.open("rb") as file:
            tar.addfile(info, file)
    subprocess.run(["umoci", "tag", "--image", f"{images}:debian", "refind"], check=True)
    subprocess.run(
        ["umoci", "raw", "add-layer", "--image", f"{images}:refind", "--history.created_by", "rEFInd", layer],
        check=True,
    )
    for path in images.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return images


@pytest.fixture(scope="module")
def outside(workspace):
    """An environment with cfs and the plugin from wheels."""
    return Outside.make(workspace / "outside", [*core_and_default_plugins(), EXAMPLES / "cfs-refind"])


def test_debian_boots_with_refind(outside, images, workspace):
    disk, console = workspace / "refind.img", workspace / "refind.log"
    arguments = [word for argument in UNUSUAL for word in ("--karg", argument)]
    outside.ok(
        "cfs", "install", "to-disk", "--source-imgref", f"oci:{images}:refind", "--composefs-native", "--bootloader",
        "refind", "--yes", "--seed", "refind", "--repo", workspace / "refind-repo", *arguments, disk,
    )  # fmt: skip
    said = outside.ok("cfs", "prove", disk, "--timeout", "240", "--console-log", console, timeout=600)
    assert "composefs, fs-verity required" in said
    assert "systemd: running" in said
    line = re.search(rb"Command line: ([^\r\n]*)", console.read_bytes())[1].decode()
    for argument in UNUSUAL:
        assert f" {argument} " in f" {line} "
    assert re.search(r"initrd=\\EFI\\Linux\\bootc_composefs-[0-9a-f]{128}\\initrd", line)
