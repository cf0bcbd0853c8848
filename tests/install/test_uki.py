"""Unified kernel images: what their sealed command line must say, and what cannot be added to it."""

from __future__ import annotations

import json
import re

import pytest
from builders import bootable

from cfs_testkit.builders.oci import File

WRONG = "ab" * 64


@pytest.fixture
def uki(cfs, tmp_path):
    """Return a function that makes an image with a UKI; ``IMAGE`` in its command line becomes the image's identity."""
    base = bootable.image(labels={"containers.cfs.kargs": "of.label=1"})
    plain = bootable.layout(tmp_path / "base", latest=base) + ":latest"
    identity = cfs.ok("image", "digest", plain, "--bootable").stdout.strip()

    def make(cmdline, *addons):
        texts = [text.replace("IMAGE", identity) for text in (cmdline, *addons)]
        return bootable.layout(tmp_path / "uki", latest=bootable.with_uki(base, *texts)) + ":latest"

    make.identity = identity
    return make


def codes(cfs, source, *arguments):
    """Return the findings of a plan: code to severity and message."""
    found = cfs.plan(source, *arguments)["findings"]
    return {(item["code"], item["severity"], re.sub(r"[0-9a-f]{16,}", "…", item["message"])) for item in found}


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
    assert cfs.ok("repo", "fsck", "--disk", tmp_path / "good.img").stdout == "clean\n"


def test_a_uki_sealed_for_the_old_layout_is_honoured(cfs, tmp_path):
    base = bootable.image()
    plain = bootable.layout(tmp_path / "base", latest=base) + ":latest"
    identity = cfs.ok("image", "digest", plain, "--bootable", "--erofs", "v2").stdout.strip()
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


@pytest.mark.parametrize(
    ("cmdline", "status", "code"),
    [
        ("quiet", 11, "boot.uki-unsealed"),
        (f"composefs={WRONG} composefs=IMAGE", 7, "verification"),
        ("composefs=IMAGE root=/dev/sda1", 11, "boot.karg-root"),
        ("composefs=IMAGE root=UUID=c0ffee00-0000-4000-8000-000000000000", 11, "boot.karg-root"),
        ("composefs=IMAGE rootfstype=xfs", 11, "boot.karg-root"),
    ],
)
def test_a_uki_that_would_not_find_its_root_is_refused(cmdline, status, code, uki, cfs, tmp_path):
    done = cfs.install(uki(cmdline), tmp_path / "disk.img")
    assert done.returncode == status, done.stderr
    assert code in done.stderr
    assert "hint:" in done.stderr
    assert not (tmp_path / "disk.img").exists()


def test_an_addon_may_carry_the_seal(uki, cfs, tmp_path):
    source = uki("quiet", "second", "composefs=IMAGE third")
    done = cfs.install(source, tmp_path / "disk.img", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kernel_arguments"] == ["quiet", "second", f"composefs={uki.identity}", "third"]
    assert cfs.ok("repo", "fsck", "--disk", tmp_path / "disk.img").stdout == "clean\n"


def test_optional_verity_and_a_root_that_depends_on_the_machine_are_warnings(uki, cfs, tmp_path):
    source = uki("composefs=?IMAGE composefs=IMAGE root=/dev/sda2")
    done = cfs.install(source, tmp_path / "disk.img")
    assert done.returncode == 0, done.stderr
    assert "[boot.uki-verity-optional]" in done.stderr
    assert "[boot.karg-root]" in done.stderr


def test_what_a_uki_leaves_out_is_named_with_its_origin(uki, cfs):
    found = codes(cfs, uki("composefs=IMAGE quiet"))
    names = {(code, message.split(" is left")[0]) for code, severity, message in found if severity == "warning"}
    assert names == {
        ("boot.karg-dropped", "'console=ttyS0' of /usr/lib/bootc/kargs.d/10-test.toml"),
        ("boot.karg-dropped", "'of.label=1' of image label containers.cfs.kargs"),
        ("boot.karg-dropped", "'rw' of initramfs (bootc)"),
    }


def test_arguments_that_the_uki_has_already_are_no_matter(uki, cfs):
    source = uki('composefs=IMAGE quiet console=ttyS0 "of.label=1"', "rw")
    assert codes(cfs, source, "--karg", "quiet") == set()


@pytest.mark.parametrize(
    ("arguments", "code", "severity"),
    [
        (("--karg", "debug"), "boot.karg-sealed", "error"),
        (("--karg-delete", "quiet"), "boot.karg-sealed", "error"),
        (("--karg-delete", "of.addon=1"), "boot.karg-sealed", "error"),
        (("--karg-delete", "absent"), "boot.karg-not-found", "warning"),
    ],
)
def test_what_a_uki_cannot_do_is_said(arguments, code, severity, uki, cfs):
    source = uki("composefs=IMAGE quiet", "of.addon=1")
    found = {(code, severity) for code, severity, message in codes(cfs, source, *arguments) if arguments[1] in message}
    assert found == {(code, severity)}


def test_karg_delete_of_what_is_left_out_anyway_is_honoured(uki, cfs):
    found = codes(cfs, uki("composefs=IMAGE quiet"), "--karg-delete", "console")
    assert not any("console" in message for _, _, message in found)


def test_a_setting_of_the_image_is_advice_and_not_an_error(cfs, tmp_path):
    advice = {"usr/lib/bootc/install/10.toml": File('[install]\nkargs = ["advised"]\n')}
    base = bootable.image(**advice)
    identity = cfs.ok("image", "digest", bootable.layout(tmp_path / "b", a=base) + ":a", "--bootable").stdout.strip()
    source = bootable.layout(tmp_path / "uki", a=bootable.with_uki(base, f"composefs={identity}")) + ":a"
    found = [item for item in codes(cfs, source) if "advised" in item[2]]
    assert [(code, severity) for code, severity, _ in found] == [("boot.karg-dropped", "warning")]
    assert "image:/usr/lib/bootc/install/10.toml" in found[0][2]


@pytest.mark.parametrize("change", [(b"composefs=", b"composefz="), (b"root=PARTLABEL=", b"root=PARTUUID=")])
def test_fsck_judges_the_uki_on_the_disk(change, uki, cfs, tmp_path):
    disk = tmp_path / "disk.img"
    done = cfs.install(uki("composefs=IMAGE root=PARTLABEL=root"), disk)
    assert done.returncode == 0, done.stderr
    data = disk.read_bytes()
    at = data.index(change[0])
    disk.write_bytes(data[:at] + change[1] + data[at + len(change[1]) :])
    done = cfs("repo", "fsck", "--disk", disk)
    assert done.returncode == 9
    assert ("boot.uki-unsealed" if change[0] == b"composefs=" else "boot.karg-root") in done.stdout
