"""`cfs install to-disk`, as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from builders import bootable
from builders.grub_files import program
from builders.oci import File


@pytest.fixture
def source(tmp_path):
    return bootable.layout(tmp_path / "oci", latest=bootable.image()) + ":latest"


def test_what_it_promises_is_on_the_disk(cfs, source, tmp_path):
    disk = tmp_path / "disk.img"
    done = cfs.install(source, disk, "--karg", "systemd.log_level=info", "--format", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    expected = cfs.ok("image", "digest", source, "--bootable").stdout.strip()
    assert result["image_id"] == expected
    assert "systemd.log_level=info" in result["kernel_arguments"]
    assert f"composefs={expected}" in result["kernel_arguments"]
    assert "console=ttyS0" in result["kernel_arguments"]
    assert cfs.ok("repo", "fsck", "--disk", disk).stdout == "clean\n"
    assert cfs.litter() == []


def test_an_image_at_the_end_of_a_long_path_installs(cfs, tmp_path):
    deep = tmp_path / "/".join(["directory"] * 24)
    deep.mkdir(parents=True)
    source = bootable.layout(deep / "oci", latest=bootable.image()) + ":latest"
    assert cfs.install(source, tmp_path / "disk.img").returncode == 0
    assert cfs("image", "pull", source).returncode == 0


def test_without_an_image_it_must_run_in_a_container_of_one(cfs, tmp_path):
    done = cfs("install", "to-disk", tmp_path / "disk.img")
    assert done.returncode == 2
    assert "--source-imgref" in done.stderr


def test_a_dry_run_shows_the_plan_and_writes_no_disk(cfs, source, tmp_path):
    plan = cfs.plan(source, "--karg", "a=b")
    assert not (tmp_path / "plan.img").exists()
    assert [partition["volume"] for partition in plan["partitions"]] == ["esp", "root"]
    origins = {argument["text"]: argument["origin"] for argument in plan["kernel_arguments"]}
    assert origins["a=b"] == "--karg"
    assert origins["quiet"] == "/usr/lib/bootc/kargs.d/10-test.toml"
    text = cfs.install(source, tmp_path / "plan.img", "--dry-run").stdout
    assert "kernel command line" in text
    assert "/loader/entries/" in text


@pytest.mark.parametrize(("bootloader", "filesystem"), [("systemd-boot", "vfat"), ("grub", "ext4")])
def test_boot_files_can_have_an_xbootldr_partition(cfs, tmp_path, bootloader, filesystem):
    grub = {"usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": File(program())}
    source = bootable.layout(tmp_path / "both", latest=bootable.image(**grub)) + ":latest"
    plan = cfs.plan(source, "--xbootldr", "--bootloader", bootloader)
    found = {partition["volume"]: partition["filesystem"] for partition in plan["partitions"]}
    assert found == {"esp": "vfat", "xbootldr": filesystem, "root": "ext4"}
    done = cfs.install(source, tmp_path / "disk.img", "--xbootldr", "--bootloader", bootloader)
    assert done.returncode == 0, done.stderr
    done = cfs.install(source, tmp_path / "never.img", "--xbootldr", "--separate-boot")
    assert done.returncode == 2
    assert "--xbootldr" in done.stderr


def test_karg_delete_takes_an_argument_of_the_image_away(cfs, source):
    words = [argument["text"] for argument in cfs.plan(source, "--karg-delete", "quiet")["kernel_arguments"]]
    assert "quiet" not in words
    assert "console=ttyS0" in words


def test_two_runs_with_one_seed_are_the_same_to_the_byte(cfs, source, tmp_path):
    digests = set()
    for name in ("a", "b"):
        disk = tmp_path / f"{name}.img"
        cfs.ok(
            "install", "to-disk", "--source-imgref", source, "--seed", "s", "--repo", tmp_path / f"repo-{name}", disk,
            env={"SOURCE_DATE_EPOCH": "1700000000"},
        )  # fmt: skip
        with disk.open("rb") as file:
            digests.add(hashlib.file_digest(file, "sha256").hexdigest())
        time.sleep(1.1)
    assert len(digests) == 1


def test_an_image_of_another_architecture_builds_here(cfs, tmp_path):
    source = bootable.layout(tmp_path / "arm", latest=bootable.image("arm64")) + ":latest"
    disk = tmp_path / "arm.img"
    done = cfs.install(source, disk, "--architecture", "arm64")
    assert done.returncode == 0, done.stderr
    assert b"BOOTAA64" in disk.read_bytes()[: 64 << 20] or b"B\0O\0O\0T\0A" in disk.read_bytes()[: 64 << 20]


def test_ssh_keys_reach_the_deployment(cfs, source, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("ssh-ed25519 AAAA me\n")
    text = cfs.install(source, tmp_path / "d.img", "--dry-run", "--root-ssh-authorized-keys", keys, "--format", "json")
    assert text.returncode == 0, text.stderr
    keys.write_text("# nothing\n")
    done = cfs.install(source, tmp_path / "d.img", "--root-ssh-authorized-keys", keys)
    assert done.returncode == 2
    assert "holds no key" in done.stderr


def test_two_root_arguments_are_pointed_out(cfs, source, tmp_path):
    done = cfs.install(source, tmp_path / "disk.img", "--karg", "root=/dev/sda1")
    assert done.returncode == 0
    assert "boot.karg-conflict" in done.stderr


REFUSALS = {
    "initramfs": ({"capable": False}, (), "boot.initramfs", 11),
    "loader": ({"loader": False}, ("--bootloader", "systemd-boot"), "loader", 11),
    "architecture": ({"kernel": "arm64"}, (), "image.architecture", 11),
    "space": ({}, ("--root-size", "2M"), "", 0),
    "kernel": ({f"{bootable.MODULES}/vmlinuz": None}, (), "image.no-kernel", 8),
    "filesystem": ({}, ("--filesystem", "zfs"), "plugin", 4),
    "bootloader": ({}, ("--bootloader", "lilo"), "plugin", 4),
    "composefs argument": ({}, ("--karg", "composefs=" + "0" * 128), "karg", 11),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_would_not_boot_is_refused_before_anything_is_written(case, cfs, tmp_path):
    choices, arguments, code, status = REFUSALS[case]
    source = bootable.layout(tmp_path / "oci", latest=bootable.image(**choices)) + ":latest"
    disk = tmp_path / "disk.img"
    done = cfs.install(source, disk, *arguments)
    assert done.returncode != 0
    if status:
        assert done.returncode == status, done.stderr
    assert code in done.stderr
    assert "hint:" in done.stderr
    assert not disk.exists()
    assert cfs.litter() == []


def test_missing_host_tools_are_named_with_their_package(cfs, source, tmp_path):
    script = (
        "import sys; import cfs_core.system.command as c; c.SYSTEM_DIRECTORIES = ();"
        "from cfs_core.cli.main import main; main(sys.argv[1:])"
    )
    disk = tmp_path / "disk.img"
    done = subprocess.run(
        [sys.executable, "-c", script, "install", "to-disk", "--source-imgref", source, str(disk)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path / "nothing"), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 11
    assert "e2fsprogs" in done.stderr
    assert not disk.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_host_without_room_is_refused_before_anything_is_written(cfs, source, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        done = cfs.install(source, small / "disk.img")
        assert done.returncode == 11
        assert "disk.host-space" in done.stderr
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_existing_disk_is_kept_unless_confirmed(cfs, source, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"precious")
    done = cfs.install(source, disk, stdin=subprocess.DEVNULL)
    assert done.returncode == 5
    assert disk.read_bytes() == b"precious"
    assert cfs.install(source, disk, "--yes").returncode == 0
    assert disk.stat().st_size > 1 << 20


def test_a_sealed_uki_is_installed_and_a_wrong_one_refused(cfs, tmp_path):
    base = bootable.image()
    plain = bootable.layout(tmp_path / "base", latest=base) + ":latest"
    identity = cfs.ok("image", "digest", plain, "--bootable").stdout.strip()
    good = bootable.with_uki(base, f"quiet composefs={identity}")
    bad = bootable.with_uki(base, "quiet composefs=" + "ab" * 64)
    bootable.layout(tmp_path / "uki", good=good, bad=bad)
    done = cfs.install(f"oci:{tmp_path}/uki:good", tmp_path / "good.img", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image_id"] == identity
    done = cfs.install(f"oci:{tmp_path}/uki:bad", tmp_path / "bad.img")
    assert done.returncode == 7
    assert "sealed for" in done.stderr
    assert not (tmp_path / "bad.img").exists()
    done = cfs.install(f"oci:{tmp_path}/uki:good", tmp_path / "karg.img", "--karg", "debug")
    assert done.returncode == 11
    assert "boot.karg-sealed" in done.stderr


def test_a_uki_sealed_for_the_old_layout_is_honoured(cfs, tmp_path):
    base = bootable.image()
    plain = bootable.layout(tmp_path / "base", latest=base) + ":latest"
    identity = cfs.ok("image", "digest", plain, "--bootable", "--format", "v2").stdout.strip()
    source = bootable.layout(tmp_path / "uki", v2=bootable.with_uki(base, f"composefs={identity}")) + ":v2"
    done = cfs.install(source, tmp_path / "v2.img", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image_id"] == identity


def test_a_uki_sealed_with_the_other_hash_is_honoured(cfs, tmp_path):
    base = bootable.image()
    plain = bootable.layout(tmp_path / "base", latest=base) + ":latest"
    identity = cfs.ok("image", "digest", plain, "--bootable", "--hash", "sha256").stdout.strip()
    sealed = bootable.with_uki(base, f"composefs.digest=v1-sha256-12:{identity}")
    source = bootable.layout(tmp_path / "uki", other=sealed) + ":other"
    done = cfs.install(source, tmp_path / "other.img", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image_id"] == identity
    done = cfs.install(source, tmp_path / "again.img", "--repo", tmp_path / "cache/cfs/repo")
    assert done.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_leaves_nothing_that_hinders_the_next(number, cfs, tmp_path):
    files = {f"usr/share/data/{index}": File(os.urandom(300_000)) for index in range(60)}
    source = bootable.layout(tmp_path / "oci", latest=bootable.image(compression="none", **files)) + ":latest"
    disk = tmp_path / "disk.img"
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    argv = [sys.executable, "-m", "cfs_core", "install", "to-disk", "--source-imgref", source, str(disk)]
    for delay in (0.4, 0.8, 1.2, 1.6):
        process = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(number)
        status = process.wait(timeout=30)
        if disk.exists():  # it was done already: then it must be whole
            assert cfs.ok("repo", "fsck", "--disk", disk).stdout == "clean\n"
            disk.unlink()
        if number == signal.SIGTERM:
            assert status in {0, 130, -signal.SIGTERM}
            assert cfs.litter() == []
    assert cfs.install(source, disk).returncode == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert cfs.ok("repo", "fsck", "--disk", disk).stdout == "clean\n"


def test_one_changed_byte_is_named(cfs, source, tmp_path):
    disk = tmp_path / "disk.img"
    cfs.ok("install", "to-disk", "--source-imgref", source, disk)
    original = disk.read_bytes()
    for needle in (b"tool" * 100, b"kernel" * 50, b"title Test", b"loader" * 20):
        at = original.index(needle)
        changed = bytearray(original)
        changed[at] ^= 1
        disk.write_bytes(changed)
        done = cfs("repo", "fsck", "--disk", disk)
        assert done.returncode == 9, needle
        assert "problem" in done.stdout
    disk.write_bytes(original)
    assert cfs("repo", "fsck", "--disk", disk).returncode == 0


def test_progress_and_result_are_machine_readable(cfs, source, tmp_path):
    read, write = os.pipe()
    done = cfs.install(source, tmp_path / "disk.img", "--progress-fd", str(write), "--format", "json", pass_fds=[write])
    os.close(write)
    with os.fdopen(read) as pipe:
        records = [json.loads(line) for line in pipe]
    assert json.loads(done.stdout)["result"] == "installed"
    events = [record["event"] for record in records if record["type"] == "event"]
    assert events[0] == "image.resolved"
    assert events[-1] == "install.completed"
    assert "disk.verified" in events
