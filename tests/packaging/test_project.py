"""The project as somebody installs it: core with its plugins, and core alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def environment(folder, **variables):
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    done = subprocess.run(
        [folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", CHECKOUT],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "bin"


def test_the_whole_project_installs_and_is_healthy(tmp_path):
    bin_folder = environment(tmp_path / "venv")
    report = json.loads(
        subprocess.run(
            [bin_folder / "cfs", "plugins", "doctor", "--format", "json"], capture_output=True, check=True
        ).stdout
    )
    assert report["healthy"]
    names = {plugin["distribution"] for plugin in report["plugins"]}
    assert {"cfs-disk", "cfs-storage-composefs", "cfs-systemd-boot", "cfs-grub", "cfs-initramfs", "cfs-prove"} <= names
    assert {"cfs-transport-oci-dir", "cfs-transport-registry", "cfs-transport-containers-storage"} <= names


def test_core_alone_says_what_is_missing(tmp_path):
    bin_folder = environment(tmp_path / "venv", CFS_CORE_ONLY="1")
    doctor = subprocess.run([bin_folder / "cfs", "plugins", "doctor"], capture_output=True, text=True, check=False)
    assert doctor.returncode == 4
    for family in ("transport", "storage format", "bootloader", "layout", "filesystem"):
        assert f"no plugin offers a {family}" in doctor.stdout
    done = subprocess.run(
        [bin_folder / "cfs", "install", "to-disk", "--source-imgref", "oci:x", tmp_path / "d.img"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no transport for oci:" in done.stderr
    assert "pip install cfs-transport-oci-dir" in done.stderr
    assert (
        "prove" not in subprocess.run([bin_folder / "cfs", "--help"], capture_output=True, text=True, check=True).stdout
    )
