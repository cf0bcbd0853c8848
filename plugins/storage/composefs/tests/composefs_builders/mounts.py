"""Filesystems on loop devices, and which of their files share blocks."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def mounted(folder, fs):
    """Mount a new filesystem on a loop device, or skip the test."""
    maker = shutil.which(f"mkfs.{fs}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if maker is None:
        pytest.skip(f"mkfs.{fs} is not installed")
    image, place = folder / f"{fs}.img", folder / fs
    with image.open("wb") as file:
        file.truncate(256 << 20)
    place.mkdir()
    subprocess.run([maker, "-q", image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{fs} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def shared(path):
    """Return whether every extent of a file is shared with another one."""
    subprocess.run(["sync", "-f", path], check=True)
    listing = subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True).stdout
    extents = [line for line in listing.splitlines() if line.strip()[:1].isdigit() and ".." in line]
    assert extents, listing
    return all("shared" in line for line in extents)
