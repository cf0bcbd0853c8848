"""No room: the ESP is too small for another kernel, and a disk that is full after any write of an upgrade."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from builders.lifecycle_kit import Versions, copied, finalized, grub, kernel, run, sealed, staged, version
from builders.machines import Installed, digest_of, install_below

from cfs_core.errors import CfsError, DiskFullError
from cfs_core.lifecycle import room
from cfs_testkit.builders.oci import File

LARGE = 3 << 20
"""Bytes of a kernel in these tests: more than what `room.MARGIN` leaves."""


def everything(root):
    """All files below *root* and when they were changed."""
    return {path.relative_to(root).as_posix(): path.lstat().st_mtime_ns for path in root.rglob("*")}


def test_an_esp_without_room(machine, versions, monkeypatch):
    """Refused before anything is fetched, and nothing changed; with the room that gc makes it goes on."""
    versions.publish(version(2, **kernel("two" * LARGE)))
    staged(machine)
    finalized(machine)
    old = machine.reboot()
    free = [1 << 20]
    monkeypatch.setattr(room, "free_bytes", lambda _path: free[0])
    versions.publish(version(3, **kernel("three" * LARGE)))
    parts = [machine.root / name for name in ("boot", "sysroot/composefs", "sysroot/state")]
    before = [everything(part) for part in parts]
    with pytest.raises(DiskFullError, match="boot files of the new image take"):
        staged(machine)
    assert [everything(part) for part in parts] == before
    run(machine, "deployments", "remove", "rollback")
    run(machine, "gc")
    free[0] = 1 << 30
    assert staged(machine).result == "staged"
    finalized(machine)
    assert machine.read().default != old


def test_an_equal_kernel_of_another_layer_needs_no_room(machine, versions, monkeypatch):
    """Which kernel it is, only the download tells: who asks for that gets it, and nothing is copied."""
    versions.publish(version(2, **kernel("two")))
    staged(machine)
    finalized(machine)
    machine.reboot()
    monkeypatch.setattr(room, "free_bytes", lambda _path: 1 << 10)
    versions.publish(version(3, **kernel("two")))
    with pytest.raises(DiskFullError) as caught:
        staged(machine)
    assert "--download-only" in caught.value.hint
    kernels = {name for name in everything(machine.root / "boot") if name.endswith(("vmlinuz", "initrd"))}
    assert staged(machine, download_only=True).result == "downloaded"
    run(machine, "upgrade", "--from-downloaded")
    finalized(machine)
    assert machine.reboot() == machine.read().running.booted
    assert "3" in (machine.etc / "release").read_text()
    assert {name for name in everything(machine.root / "boot") if name.endswith(("vmlinuz", "initrd"))} <= kernels
    versions.publish(version(4, **kernel("four")))
    before = everything(machine.root / "boot")
    with pytest.raises(DiskFullError):
        staged(machine, download_only=True)
    assert everything(machine.root / "boot") == before


@pytest.fixture(scope="module", params=["systemd-boot", "uki", "grub"])
def small(request, tmp_path_factory):
    """A machine whose next version brings a kernel and some files."""
    folder = tmp_path_factory.mktemp(request.param)
    versions = Versions(folder / "oci")

    def publish(number, **more):
        if request.param == "uki":
            return versions.publish(sealed(number, lambda image: digest_of(folder, image), **more))
        return versions.publish((grub if request.param == "grub" else version)(number, **more))

    publish(1)
    made = install_below(folder, versions.reference)
    assert made.read().loader == ("grub" if request.param == "grub" else "systemd-boot")
    more = {f"usr/share/{number}": File(f"{number}" * 3000) for number in range(8)}
    publish(2, **kernel("two"), **more)
    return made


@pytest.fixture
def mounted(tmp_path):
    """Mount a filesystem of so many KiB in memory; what comes of it is gone after the test."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    where = tmp_path / "small"
    where.mkdir()
    done = []

    def mount(kib):
        if done:
            subprocess.run(["umount", where], check=True)
            done.clear()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", where], capture_output=True, check=False
        )
        if made.returncode != 0:
            pytest.skip(f"nothing can be mounted here: {made.stderr.decode()[-200:]}")
        done.append(where)
        return where

    yield mount
    if done:
        subprocess.run(["umount", where], check=True)


@pytest.mark.parametrize("step", [256, pytest.param(4, marks=[pytest.mark.campaign, pytest.mark.timeout(3600)])])
def test_a_disk_that_is_full_from_some_write_on(small, mounted, tmp_path, step):
    """*step* KiB more each time, until it suffices: before that it fails in words, and starts what it started."""
    old = small.read().running.booted
    taken = int(subprocess.run(["du", "-sk", small.root], capture_output=True, check=True).stdout.split()[0])
    room_, failed = taken + taken // 20, []
    while True:
        place = mounted(room_)
        try:
            machine = copied(small, place)
        except (OSError, shutil.Error):
            room_ += step
            continue
        machine = Installed(machine.root, tmp_path)
        try:
            new = staged(machine).image_id
            finalized(machine)
        except CfsError as error:
            failed.append(error.message)
            waiting = machine.read().running.staged
            allowed = {old} | ({waiting.id} if waiting is not None else set())
            assert machine.reboot() in allowed
            found = machine.read()
            assert [problem.message for problem in found.status.problems] == []
            room_ += step
            continue
        assert machine.reboot() == new
        break
    assert all(failed)
    assert failed
