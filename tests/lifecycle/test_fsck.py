"""Damage to a machine: named, mended from what can be proven, and the machine starts."""

from __future__ import annotations

import json
import shutil

import pytest
from builders.lifecycle_kit import kernel, run, upgraded, version

from cfs_core.lifecycle.fsck import pinned


def largest_object(machine):
    """The object with most bytes, a file of an image."""
    objects = (machine.root / "sysroot/composefs/objects").rglob("*")
    return max((path for path in objects if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def erofs(machine):
    link = machine.root / "sysroot/composefs/images" / machine.read().running.booted
    return link.resolve()


def entry(machine):
    default = machine.read().default
    return next(path for path in (machine.root / "boot/loader/entries").iterdir() if default in path.read_text())


def kernel_file(machine):
    (location, *_) = machine.read().booted.boot_entry.files
    return machine.root / "boot" / location.path.lstrip("/")


def another_entry(machine):
    first = entry(machine)
    shutil.copy(first, first.with_name("bootc_copy-0-0.conf"))


def stray_staged(machine):
    (machine.root / "run/composefs/staged-deployment").write_text(json.dumps({"depl_id": "ab" * 64}))


DAMAGES = {
    "object.missing": lambda machine: largest_object(machine).unlink(),
    "object.damaged": lambda machine: flip(largest_object(machine)),
    "object.damaged:image": lambda machine: flip(erofs(machine)),
    "boot.differs": lambda machine: flip(kernel_file(machine)),
    "boot.entry": lambda machine: entry(machine).unlink(),
    "boot.entry:kernel": lambda machine: kernel_file(machine).unlink(),
    "boot.untidy": another_entry,
    "state.staged": stray_staged,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_mended(machine, versions, damage):
    booted = machine.read().running.booted
    assert run(machine, "fsck").stdout.strip() == "clean"
    DAMAGES[damage](machine)
    before = run(machine, "fsck", "--format", "json")
    codes = {problem["code"] for problem in json.loads(before.stdout)["problems"]}
    assert damage.partition(":")[0] in codes
    assert before.exit_code == 9
    done = run(machine, "fsck", "--repair")
    assert done.exit_code == 0, done.stdout
    assert run(machine, "fsck").stdout.strip() == "clean"
    assert machine.reboot() == booted


def test_what_cannot_be_fetched_is_told_and_left(machine, versions):
    broken = largest_object(machine)
    flip(broken)
    data = broken.read_bytes()
    versions.publish(version(9, **kernel("nine")))
    done = run(machine, "fsck", "--repair")
    assert done.exit_code == 9
    assert "not mended: objects/" in done.stdout
    assert broken.read_bytes() == data, "it is where it was"


def test_two_deployments_are_both_mended(machine, versions):
    versions.publish(version(2, **kernel("two")), "os")
    upgraded(machine)
    for location in {each.files[0] for each in machine.read().entries}:
        flip(machine.root / "boot" / location.path.lstrip("/"))
    assert run(machine, "fsck", "--repair").exit_code == 0
    assert run(machine, "fsck").exit_code == 0


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("docker://quay.io:5000/x/y:tag", "docker://quay.io:5000/x/y@sha256:1"),
        ("docker://quay.io:5000/x/y", "docker://quay.io:5000/x/y@sha256:1"),
        ("docker://quay.io/x/y:tag@sha256:2", "docker://quay.io/x/y@sha256:1"),
        ("oci:/a/b:tag", "oci:/a/b@sha256:1"),
    ],
)
def test_a_reference_by_digest(reference, expected):
    assert pinned(reference, "sha256:1") == expected
