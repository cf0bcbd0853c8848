"""`cfs status` of a disk that `cfs install` made, and of the same files below a directory."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

import pytest
from builders import bootable

from cfs_core.app.app import App
from cfs_core.examine.disk import opened_disk
from cfs_core.model.disk import Location, Volume


def settings(folder, digest, **policies):
    """Require both policies of cfs-policies, in a settings file."""
    policy = folder / "policy.json"
    policy.write_text(json.dumps(policies.get("policy", {"default": [{"type": "insecureAcceptAnything"}]})))
    file = folder / "cfs.toml"
    file.write_text(
        f'[policy]\nrequire = ["digest-pinned", "containers-policy"]\n'
        f'[policy.settings.digest-pinned]\ndigests = ["{digest}"]\n'
        f'[policy.settings.containers-policy]\npolicy-json = "{policy}"\n'
    )
    return file


@pytest.fixture
def image():
    return bootable.image()


@pytest.fixture
def source(tmp_path, image):
    return bootable.layout(tmp_path / "oci", latest=image) + ":latest"


@pytest.fixture
def verified(tmp_path, image):
    return [
        f"digest-pinned: pinned to {image.digest}",
        f"containers-policy: {tmp_path}/policy.json, default",
    ]


@pytest.fixture
def disk(cfs, source, image, tmp_path):
    """A disk whose image two policies accepted."""
    path = tmp_path / "disk.img"
    done = cfs("--config", settings(tmp_path, image.digest), "install", "to-disk", "--source-imgref", source, path)
    assert done.returncode == 0, done.stderr
    return path


def test_plan_and_result_say_what_was_verified(cfs, source, image, tmp_path, verified):
    config = ("--config", settings(tmp_path, image.digest))
    base = (*config, "install", "to-disk", "--source-imgref", source, tmp_path / "new.img")
    text = cfs.ok(*base, "--dry-run").stdout
    assert [f"verified  {each}" in text for each in verified] == [True, True]
    assert json.loads(cfs.ok(*base, "--dry-run", "--format", "json").stdout)["image"]["verified"] == verified
    assert json.loads(cfs.ok(*base, "--format", "json").stdout)["verified"] == verified
    assert "verified  nothing: no policy" in cfs.install(source, tmp_path / "x.img", "--dry-run").stdout


def test_a_disk_image(cfs, disk, source, image, verified):
    found = json.loads(cfs.ok("status", disk, "--format", "json").stdout)["cfs"]
    (deployment,) = found["deployments"]
    (entry,) = deployment.pop("entries")
    assert deployment == {
        "id": cfs.ok("image", "digest", source, "--bootable").stdout.strip(),
        "image": source,
        "manifest_digest": image.digest,
        "layout": "bls",
        "verified": verified,
        "bootloader": "systemd-boot",
        "bootloader_distribution": "cfs-systemd-boot",
        "pinned": False,
        "failed": None,
        "live": True,
    }
    shown = {key: entry[key] for key in ("loader", "kind", "position", "default", "once", "tries_left")}
    assert shown == {
        "loader": "systemd-boot", "kind": "bls", "position": 1, "default": True, "once": False, "tries_left": None,
    }  # fmt: skip
    assert (found["foreign"], found["problems"]) == ([], [])
    text = cfs.ok("status", disk).stdout
    for expected in (deployment["id"], source, image.digest, *verified, "Test OS 1", "default"):
        assert expected in text
    assert cfs.litter() == []


def test_a_unified_kernel_image(cfs, image, source, tmp_path):
    identity = cfs.ok("image", "digest", source, "--bootable").stdout.strip()
    sealed = bootable.layout(tmp_path / "uki", good=bootable.with_uki(image, f"composefs={identity}")) + ":good"
    assert cfs.install(sealed, tmp_path / "uki.img").returncode == 0
    (deployment,) = json.loads(cfs.ok("status", tmp_path / "uki.img", "--format", "json").stdout)["cfs"]["deployments"]
    assert (deployment["id"], deployment["layout"]) == (identity, "uki")
    assert [entry["kind"] for entry in deployment["entries"]] == ["uki"]
    assert deployment["verified"] == []


@pytest.fixture
def sysroot(disk, tmp_path):
    """The files of the disk's volumes as they are where they are mounted."""
    folder = tmp_path / "sysroot"
    with App(os.environ) as app, opened_disk(app, disk) as view:
        _extract(view, Location(Volume.ESP, "/"), folder / "boot")
        _extract(view, Location(Volume.ROOT, "/state/deploy"), folder / "state/deploy")
    return folder


def _extract(view, location, to):
    to.mkdir(parents=True, exist_ok=True)
    reader = view.reader(location.volume)
    for name in view.names(location):
        inner = location / name
        if reader.kind(inner.path) == "directory":
            _extract(view, inner, to / name)
        elif reader.kind(inner.path) == "file":
            (to / name).write_bytes(view.read(inner))


def status(cfs, sysroot):
    done = cfs("status", "--sysroot", sysroot, "--format", "json")
    found = json.loads(done.stdout)["cfs"]
    assert done.returncode == (12 if found["problems"] else 0)
    return found


def test_a_sysroot_says_the_same(cfs, disk, sysroot):
    assert status(cfs, sysroot) == json.loads(cfs.ok("status", disk, "--format", "json").stdout)["cfs"]


def test_tries_left_and_foreign_entries(cfs, sysroot):
    (entry,) = (sysroot / "boot/loader/entries").glob("*.conf")
    entry.rename(entry.with_name(f"{entry.stem}+2-1.conf"))
    (sysroot / "boot/vmlinuz-other").write_text("x")
    entry.with_name("other.conf").write_text("title Other\nlinux /vmlinuz-other\nversion 1\n")
    found = status(cfs, sysroot)
    assert found["deployments"][0]["entries"][0]["tries_left"] == 2
    assert [each["title"] for each in found["foreign"]] == ["Other"]
    text = cfs("status", "--sysroot", sysroot).stdout
    assert "2 tries left" in text
    assert "other system" in text


def test_a_disk_that_lost_power_is_read_through_its_journal(cfs, disk, tmp_path):
    """The root directory's block is in the journal and no longer on the disk; nothing is written to it."""
    before = json.loads(cfs.ok("status", disk, "--format", "json").stdout)
    with App(os.environ) as app, opened_disk(app, disk) as view:
        root = view.partition(Volume.ROOT)
        reader = view.reader(Volume.ROOT)
        ((_, _, block),) = reader.extents(reader.lookup("/"))
    at = root.start + block * 4096
    with disk.open("r+b") as file:
        file.seek(at)
        (tmp_path / "block").write_bytes(file.read(4096))
        commands = f"jo -c\njw -b {block} {tmp_path}/block\njc\n"
        arguments = ["debugfs", "-w", "-f", "-", f"{disk}?offset={root.start}"]
        subprocess.run(arguments, input=commands, text=True, capture_output=True, check=True)
        file.seek(at)
        file.write(bytes(4096))
    digest = hashlib.sha256(disk.read_bytes()).digest()
    done = cfs("status", disk, "--format", "json")
    assert (done.returncode, json.loads(done.stdout)) == (0, before)
    assert "the journal of this ext4 must be replayed" in done.stderr
    done = cfs("repo", "fsck", "--disk", disk)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashlib.sha256(disk.read_bytes()).digest() == digest


def _entries(root):
    return next((root / "boot/loader/entries").glob("*.conf"))


def _origin(root):
    return next((root / "state/deploy").glob("*/*.origin"))


DAMAGES = {
    "state.origin": lambda root: _origin(root).unlink(),
    "state.origin:garbled": lambda root: _origin(root).write_text("nonsense\n"),
    "state.origin:short": lambda root: _origin(root).write_text("[boot]\nboot_type = bls\n"),
    "state.missing": lambda root: _origin(root).parent.rename(root / "state/elsewhere"),
    "state.layout": lambda root: _origin(root).write_text(_origin(root).read_text().replace("= bls", "= uki")),
    "boot.menu": lambda root: _entries(root).unlink(),
    "boot.menu:kernel": lambda root: next((root / "boot/EFI/Linux").glob("*/vmlinuz")).unlink(),
    "state.origin:more": lambda root: (root / "state/deploy" / ("ab" * 64)).mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_named(cfs, sysroot, damage):
    DAMAGES[damage](sysroot)
    codes = [problem["code"] for problem in status(cfs, sysroot)["problems"]]
    assert damage.partition(":")[0] in codes
    assert "inconsistent: " in cfs("status", "--sysroot", sysroot).stdout


def test_mistakes_on_the_command_line(cfs, disk, tmp_path):
    assert cfs("status", disk, "--sysroot", tmp_path).returncode == 2
    nothing = cfs("status", "--sysroot", tmp_path)
    assert (nothing.returncode, "hint:" in nothing.stderr) == (12, True)
    (tmp_path / "not-a-disk").write_bytes(bytes(1 << 20))
    assert cfs("status", tmp_path / "not-a-disk").returncode == 10
