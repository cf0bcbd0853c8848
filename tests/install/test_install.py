"""`cfs install to-disk`, as a user runs it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from builders import bootable
from builders.distributions import Site
from grub_files import program

from cfs_core.plugin import HashAlgorithm, Region, Volume
from cfs_disk.ext4.read import Ext4Reader
from cfs_disk.gpt.layout import GptLayout
from cfs_disk.vfat.read import FatReader
from cfs_testkit.builders.oci import File
from cfs_testkit.verity import verity_digest

PUBLIC_KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode()


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


def test_what_bootc_expects_beside_the_deployment_is_there(cfs, source, tmp_path):
    disk = tmp_path / "disk.img"
    cfs.ok("install", "to-disk", "--source-imgref", source, disk)
    with root_volume(disk) as root:
        assert root.read_link("/ostree/bootc") == "../composefs/bootc"
        assert root.kind("/composefs/bootc") == "directory"
        assert root.attributes("/composefs/bootc").mode == 0o755
        assert root.attributes("/composefs").mode == 0o700


def test_an_image_of_another_architecture_builds_here(cfs, tmp_path):
    source = bootable.layout(tmp_path / "arm", latest=bootable.image("arm64")) + ":latest"
    disk = tmp_path / "arm.img"
    done = cfs.install(source, disk, "--architecture", "arm64")
    assert done.returncode == 0, done.stderr
    with FatReader(volume(disk, Volume.ESP)) as esp:
        assert esp.names("/EFI/BOOT") == ("BOOTAA64.EFI",)
        with esp.open("/EFI/BOOT/BOOTAA64.EFI") as file:
            assert machine(file.read()) == 0xAA64  # PE/COFF, IMAGE_FILE_MACHINE_ARM64


def volume(disk, which):
    """Return the region of one volume of a finished disk."""
    return next(
        Region(path=disk, offset=partition.start, size=partition.size)
        for partition in GptLayout().read(disk)
        if partition.volume is which
    )


def root_volume(disk):
    """Return a reader of the root volume of a finished disk."""
    return Ext4Reader(volume(disk, Volume.ROOT))


def machine(program):
    """Return what a PE file says it runs on."""
    header = int.from_bytes(program[0x3C:0x40], "little")
    assert program[header : header + 4] == b"PE\0\0"
    return int.from_bytes(program[header + 4 : header + 6], "little")


def test_ssh_keys_reach_the_deployment(cfs, source, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"ssh-ed25519 {PUBLIC_KEY} me\n")
    disk = tmp_path / "disk.img"
    done = cfs.ok(
        "install", "to-disk", "--source-imgref", source, "--root-ssh-authorized-keys", keys, "--format", "json", disk
    )
    identity = json.loads(done.stdout)["image_id"]
    place = f"/state/deploy/{identity}/etc/tmpfiles.d/bootc-root-ssh.conf"
    with root_volume(disk) as root, root.open(place) as file:
        first, second = file.read().decode().splitlines()
        attributes = root.attributes(place)
    assert first == "d /root/.ssh 0700 root root -"
    rule, _, encoded = second.rpartition(" ")
    assert rule == "f~ /root/.ssh/authorized_keys 0600 root root -"
    assert base64.b64decode(encoded).decode() == keys.read_text()
    assert (attributes.mode, attributes.uid, attributes.gid) == (0o600, 0, 0)


def test_a_file_of_ssh_keys_without_a_key_is_refused(cfs, source, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# nothing\n")
    done = cfs.install(source, tmp_path / "d.img", "--root-ssh-authorized-keys", keys)
    assert done.returncode == 2
    assert "holds no key" in done.stderr


def test_a_second_root_argument_of_the_command_line_is_refused(cfs, source, tmp_path):
    done = cfs.install(source, tmp_path / "disk.img", "--karg", "root=/dev/sda1")
    assert done.returncode == 11
    assert "[boot.karg-conflict]" in done.stderr
    assert "[boot.karg-root]" in done.stderr
    assert not (tmp_path / "disk.img").exists()


def test_a_second_root_argument_of_the_image_is_a_warning(cfs, tmp_path):
    source = (
        bootable.layout(tmp_path / "own", latest=bootable.image(labels={"containers.cfs.kargs": "root=/dev/sda1"}))
        + ":latest"
    )
    findings = {(finding["code"], finding["severity"]) for finding in cfs.plan(source)["findings"]}
    assert findings == {("boot.karg-conflict", "warning")}


NOISY = """
from cfs_core.plugin import *
CFS_PLUGIN_API = (2, 0)

class Noisy(Policy):
    def judge(self, image, transport):
        print("noise of a plugin")
        return PolicyVerdict(accepted=True, reason="fine")

@hookimpl
def cfs_register_policies():
    return [PolicyProvider(name="noisy", summary="s", factory=lambda context: Noisy())]
"""


def test_what_a_plugin_prints_is_not_in_the_result(cfs, source, tmp_path):
    site = Site(tmp_path / "site").install("cfs-noisy", "1.0", {"noisy": "noisy"}, {"noisy.py": NOISY})
    environ = {"PYTHONPATH": str(site.folder), "CFS_POLICY_REQUIRE": "noisy"}
    done = cfs.install(source, tmp_path / "disk.img", "--format", "json", env=environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == "installed"
    assert "noise of a plugin" in done.stderr


def test_a_disk_may_have_the_longest_name_there_is(cfs, source, tmp_path):
    disk = tmp_path / ("x" * 255)
    assert cfs.install(source, disk).returncode == 0
    assert disk.stat().st_size > 1 << 20


def test_a_link_that_leads_nowhere_is_refused_at_once(cfs, source, tmp_path):
    link = tmp_path / "disk.img"
    link.symlink_to("nowhere")
    done = cfs.install(source, link, "--yes")
    assert done.returncode == 5
    assert "symbolic link to nowhere, which is not there" in done.stderr
    assert "remove the link" in done.stderr
    assert link.is_symlink()


def test_a_cache_that_cannot_be_made_is_named(cfs, source, tmp_path):
    (tmp_path / "file").touch()
    done = cfs.install(source, tmp_path / "disk.img", env={"XDG_CACHE_HOME": str(tmp_path / "file")})
    assert done.returncode == 14
    assert f"{tmp_path}/file/cfs" in done.stderr
    assert "--repo" in done.stderr


REFUSALS = {
    "initramfs": ({"capable": False}, (), "boot.initramfs", 11),
    "loader": ({"loader": False}, ("--bootloader", "systemd-boot"), "loader", 11),
    "architecture": ({"kernel": "arm64"}, (), "image.architecture", 11),
    "space": ({}, ("--root-size", "2M"), "a root of 2 MiB is too small", 5),
    "boot partition": ({}, ("--separate-boot",), "disk.no-boot-volume", 11),
    "size": ({}, ("--root-size", "9999999T"), "'9999999T' of --root-size", 3),
    "kernel": ({f"{bootable.MODULES}/vmlinuz": None}, (), "image.no-kernel", 8),
    "filesystem": ({}, ("--filesystem", "zfs"), "plugin", 4),
    "bootloader": ({}, ("--bootloader", "lilo"), "plugin", 4),
    "composefs argument": ({}, ("--karg", "composefs=" + "0" * 128), "boot.karg-composefs", 11),
    "quoted composefs argument": ({}, ("--karg", '"composefs=' + "0" * 128 + '"'), "boot.karg-composefs", 11),
    "another root filesystem": ({}, ("--karg", "rootfstype=xfs"), "boot.karg-root", 11),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_would_not_boot_is_refused_before_anything_is_written(case, cfs, tmp_path):
    choices, arguments, code, status = REFUSALS[case]
    source = bootable.layout(tmp_path / "oci", latest=bootable.image(**choices)) + ":latest"
    disk = tmp_path / "disk.img"
    done = cfs.install(source, disk, *arguments)
    assert done.returncode == status, done.stderr
    assert code in done.stderr
    assert "hint:" in done.stderr
    said = [line.partition(": ")[2].partition(" [")[0] for line in done.stderr.splitlines()]
    assert len(said) == len(set(said)), "said twice"
    assert not disk.exists()
    assert cfs.litter() == []


def test_an_image_that_advises_a_filesystem_nobody_has_is_told_apart_from_a_mistake(cfs, tmp_path):
    advice = {"usr/lib/bootc/install/00-x.toml": File('[install.filesystem.root]\ntype = "xfs"\n')}
    source = bootable.layout(tmp_path / "oci", latest=bootable.image(**advice)) + ":latest"
    done = cfs.install(source, tmp_path / "disk.img")
    assert done.returncode == 4
    assert "image:/usr/lib/bootc/install/00-x.toml asks for it" in done.stderr
    assert "hint: pass --filesystem ext4" in done.stderr
    assert "pip install" not in done.stderr
    assert cfs.plan(source, "--filesystem", "ext4")["partitions"][1]["filesystem"] == "ext4"


@pytest.mark.parametrize("text", ["²", "99999999999999999999", "-1", "now"])
def test_a_clock_that_no_filesystem_has_is_refused(text, cfs, source, tmp_path):
    done = cfs.install(source, tmp_path / "disk.img", env={"SOURCE_DATE_EPOCH": text})
    assert done.returncode == 2
    assert "SOURCE_DATE_EPOCH" in done.stderr


def test_bootc_s_name_of_systemd_boot_is_known(cfs, source):
    assert cfs.plan(source, "--bootloader", "systemd")["bootloader"]["name"] == "systemd-boot"


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


@pytest.fixture
def small(tmp_path):
    """A filesystem of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_host_without_room_is_refused_before_anything_is_written(cfs, source, small):
    done = cfs.install(source, small / "disk.img")
    assert done.returncode == 11
    assert "disk.host-space" in done.stderr
    assert list(small.iterdir()) == []


def test_a_scratch_directory_without_room_is_refused_before_anything_is_written(cfs, source, small, tmp_path):
    done = cfs.install(source, tmp_path / "disk.img", env={"TMPDIR": str(small)})
    assert done.returncode == 11
    assert "disk.host-space" in done.stderr
    assert "for temporary files" in done.stderr
    assert not (tmp_path / "disk.img").exists()


def test_a_full_scratch_directory_is_named(cfs, source, small, tmp_path):
    (small / "filler").write_bytes(bytes((1 << 20) - 16384))
    done = cfs.install(source, tmp_path / "disk.img", env={"TMPDIR": str(small)})
    assert done.returncode == 10
    assert f"the scratch directory {small}" in done.stderr
    assert "e2fsprogs" not in done.stderr


def test_an_existing_disk_is_kept_unless_confirmed(cfs, source, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"precious")
    done = cfs.install(source, disk, stdin=subprocess.DEVNULL)
    assert done.returncode == 5
    assert disk.read_bytes() == b"precious"
    assert cfs.install(source, disk, "--yes").returncode == 0
    assert disk.stat().st_size > 1 << 20


def killed_at(moment, number, source, disk, environ):
    """Send an install signal *number* when it reports the event *moment*; return its exit status."""
    read, write = os.pipe()
    argv = [sys.executable, "-m", "cfs_core", "install", "to-disk", "--source-imgref", source]
    process = subprocess.Popen(
        [*argv, "--progress-fd", str(write), str(disk)],
        env=environ, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as pipe:
        for line in pipe:
            if json.loads(line).get("event") == moment:
                process.send_signal(number)
                break
        else:
            pytest.fail(f"the run ended with {process.wait()} and never reported {moment}")
        return process.wait(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_leaves_nothing_that_hinders_the_next(number, cfs, tmp_path):
    files = {f"usr/share/data/{index}": File(os.urandom(300_000)) for index in range(60)}
    source = bootable.layout(tmp_path / "oci", latest=bootable.image(compression="none", **files)) + ":latest"
    disk = tmp_path / "disk.img"
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    for moment in ("image.resolved", "layer.stored", "image.committed", "step.started", "disk.written"):
        status = killed_at(moment, number, source, disk, environ)
        if disk.exists():  # between the last event and the signal it got its name: then it must be whole
            assert moment == "disk.written"
            assert cfs.ok("repo", "fsck", "--disk", disk).stdout == "clean\n"
            disk.unlink()
        else:
            assert status in ({-signal.SIGKILL} if number == signal.SIGKILL else {130, -signal.SIGTERM}), moment
        if number == signal.SIGTERM:
            assert cfs.litter() == []
    assert cfs.install(source, disk).returncode == 0
    assert cfs.litter() == []
    assert cfs.ok("repo", "fsck", "--disk", disk).stdout == "clean\n"


def object_name(data):
    """Return the path of an object below ``objects``, for the hash that is taken unless told otherwise."""
    digest = verity_digest(data, HashAlgorithm.SHA512).partition(":")[2]
    return f"{digest[:2]}/{digest[2:]}"


def test_one_changed_byte_is_named(cfs, source, tmp_path):
    disk = tmp_path / "disk.img"
    cfs.ok("install", "to-disk", "--source-imgref", source, disk)
    original = disk.read_bytes()
    tool = bootable.tree()["usr/bin/tool"].data
    named = {
        b"tool" * 100: f"object.damaged: objects/{object_name(tool)}: ",
        b"kernel" * 50: "boot.differs: ESP:/EFI/Linux/bootc_composefs-",
        b"title Test": "boot.differs: ESP:/loader/entries/bootc_test-1-1.conf: ",
        b"loader" * 20: "boot.differs: ESP:/EFI/BOOT/BOOTX64.EFI: ",
    }
    for needle, problem in named.items():
        at = original.index(needle)
        changed = bytearray(original)
        changed[at] ^= 1
        disk.write_bytes(changed)
        done = cfs("repo", "fsck", "--disk", disk)
        assert done.returncode == 9, needle
        first, *more = done.stdout.splitlines()
        assert first.startswith(problem)
        assert more == ["1 problem"]
    disk.write_bytes(original)
    assert cfs("repo", "fsck", "--disk", disk).returncode == 0


@pytest.mark.parametrize("shipped", [True, False])
def test_a_loader_that_the_system_updated_from_its_image_is_no_damage(shipped, cfs, tmp_path):
    old = bootable.tree()["usr/lib/systemd/boot/efi/systemd-bootx64.efi"].data
    new = old.replace(b"systemd-boot 257.1", b"systemd-boot 257.2")
    files = {"usr/share/newer.efi": File(new)} if shipped else {}
    source = bootable.layout(tmp_path / "oci", latest=bootable.image(**files)) + ":latest"
    disk = tmp_path / "disk.img"
    cfs.ok("install", "to-disk", "--source-imgref", source, disk)
    data = disk.read_bytes()
    start = data.index(old[:512])
    esp = data[: start + (8 << 20)]
    assert esp.count(b"systemd-boot 257.1") == 2
    disk.write_bytes(esp.replace(b"systemd-boot 257.1", b"systemd-boot 257.2") + data[len(esp) :])
    done = cfs("repo", "fsck", "--disk", disk)
    assert done.stdout.count("boot.differs") == (0 if shipped else 2)
    assert done.returncode == (0 if shipped else 9)


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


PROVER = """
import click

from cfs_core.plugin import CommandProvider, OutputFormat, hookimpl

CFS_PLUGIN_API = (2, 0)

def make(context):
    def run(disk):
        if context.output.format is OutputFormat.JSON:
            context.output.show({"disk": disk})
        else:
            context.output.say(f"proof of {disk}")
    return click.Command("prove", callback=run, params=[click.Argument(["disk"], type=str)])

@hookimpl
def cfs_register_commands():
    yield CommandProvider(name="prove", summary="proves", factory=make, has_result=True)
"""


@pytest.mark.parametrize("output", ["json", "text"])
def test_the_proof_after_an_install_has_the_form_that_was_asked_for(tmp_path, output):
    site = Site(tmp_path / "site").install("cfs-prover", "1.0", {"prover": "prover"}, {"prover.py": PROVER})
    image = bootable.layout(tmp_path / "oci", latest=bootable.image()) + ":latest"
    words = ("install", "to-disk", "--source-imgref", image, "--repo", tmp_path / "repo", "--prove", "--format", output)
    disk = tmp_path / "disk.img"
    done = site.cfs(*map(str, (*words, disk)), CFS_DISABLE_PLUGINS="prove")
    assert done.returncode == 0, done.stderr
    if output == "json":
        assert json.loads(done.stdout) == {"disk": str(disk)}
    else:
        assert done.stdout.endswith(f"proof of {disk}\n")
