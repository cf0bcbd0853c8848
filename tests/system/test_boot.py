"""From a container image to a running system, as an ordinary user; and what happens to a disk that was altered."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.slow]


def object_path(image_id):
    return f"/composefs/objects/{image_id[:2]}/{image_id[2:]}"


def one_byte_changed(old, at=5_000_000):
    return old[:at] + bytes([old[at] ^ 1]) + old[at + 1 :]


def sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expected_id(user, demo_image):
    return user.cfs("image", "digest", f"oci:{demo_image}:debian", "--bootable").stdout.strip()


@pytest.mark.parametrize("kind", ["bls_disk", "uki_disk"])
def test_an_image_becomes_a_disk_that_boots_with_its_root_verified(kind, request, user, demo_image, machine):
    disk, _ = request.getfixturevalue(kind)
    before = sha256(disk)
    report = machine.boot(disk)
    assert report.failure is None
    assert report.evidence == "reporter"
    assert report.root.image_id == expected_id(user, demo_image)
    assert report.root.verity_required
    assert report.system_state == "running"
    assert report.failed_units == ()
    assert report.loader.startswith("systemd-boot")
    assert all(stage.reached and stage.seconds is not None for stage in report.stages)
    assert sha256(disk) == before, "booting changed the disk"


def test_the_command_proves_and_says_so(bls_disk, user):
    result = user.cfs("prove", bls_disk[0], "--format", "json", "--timeout", "240", "--console-log", "console.log")
    facts = json.loads(result.stdout)
    assert facts["proven"]
    assert facts["root"]["verity_required"]
    assert facts["system_state"] == "running"
    assert b"Linux version" in (user.home / "console.log").read_bytes()


def test_one_byte_of_a_program_stops_the_system(damaged, demo_image, user, machine):
    dump = user.cfs("image", "dump", f"oci:{demo_image}:debian").stdout
    line = next(line for line in dump.splitlines() if line.startswith("/usr/lib/systemd/systemd "))
    digest = line.split()[10]
    damaged.flip(object_path(digest), at=64)
    report = machine.boot(damaged.disk)
    assert report.failure.kind.value == "file-corrupted", report.failure
    fsck = user.cfs("repo", "fsck", "--disk", damaged.disk, check=False)
    assert fsck.returncode == 9
    assert f"objects/{digest[:2]}/{digest[2:]}" in fsck.stdout + fsck.stderr


def test_one_byte_of_the_erofs_image_is_refused_before_the_root_is_entered(damaged, bls_disk, machine):
    image_id = bls_disk[1]["image_id"]
    damaged.flip(object_path(image_id), at=300_000)
    report = machine.boot(damaged.disk)
    assert report.failure.kind.value in {"file-corrupted", "root-refused"}, report.failure
    assert not report.stage("root").reached
    assert any("does not verify" in line for line in report.findings)


def test_an_image_without_verity_is_refused(damaged, bls_disk, machine):
    path = object_path(bls_disk[1]["image_id"])
    damaged.debugfs(f'set_inode_field "{path}" flags 0x80000')
    report = machine.boot(damaged.disk)
    assert report.failure.kind.value == "root-refused", report.failure
    assert any("does not verify" in line for line in report.findings)


def test_another_image_with_valid_verity_in_its_place_is_refused(damaged, bls_disk, machine):
    path = object_path(bls_disk[1]["image_id"])
    first = re.findall(r"[0-9a-f]{126}", damaged.debugfs("ls -p /composefs/objects/00"))[0]
    damaged.debugfs(f'unlink "{path}"', f'link "/composefs/objects/00/{first}" "{path}"')
    report = machine.boot(damaged.disk)
    assert report.failure.kind.value == "root-refused", report.failure
    assert any("does not verify" in line for line in report.findings)


def test_a_boot_entry_that_names_another_image_boots_nothing(damaged, bls_disk, user, machine):
    image_id = bls_disk[1]["image_id"]
    other = image_id[:-1] + ("0" if image_id[-1] != "0" else "1")
    entry = next(name for name in damaged.esp_names("loader/entries") if name.endswith(".conf"))
    damaged.exchange_esp_file(entry, lambda old: old.replace(f"={image_id}".encode(), f"={other}".encode()))
    report = machine.boot(damaged.disk)
    assert report.failure.kind.value == "root-refused", report.failure
    assert any("is not in the repository" in line for line in report.findings)


def test_one_byte_of_the_kernel_is_named_by_fsck(damaged, user):
    folder = next(name for name in damaged.esp_names("EFI/Linux") if "bootc_composefs-" in name).rstrip("/")
    damaged.exchange_esp_file(f"{folder}/vmlinuz", one_byte_changed)
    fsck = user.cfs("repo", "fsck", "--disk", damaged.disk, check=False)
    assert fsck.returncode == 9, fsck.stdout + fsck.stderr
    assert "vmlinuz" in fsck.stdout + fsck.stderr
