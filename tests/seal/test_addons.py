"""Addons of a UKI: arguments for some machines on a command line that nobody can change."""

from __future__ import annotations

import json

import pytest
from builders import bootable
from builders.pe import addon_bytes, pe_bytes


@pytest.fixture
def plan(cfs, tmp_path):
    """Return a function that plans an install of an image with two addons, and gives the arguments."""
    base = bootable.image()
    plain = bootable.layout(tmp_path / "base", latest=base) + ":latest"
    digest = cfs.ok("image", "digest", plain, "--bootable").stdout.strip()
    image = bootable.with_uki(base, f"rw composefs={digest}", "keymap=de", "keymap=us")
    source = bootable.layout(tmp_path / "uki", latest=image) + ":latest"

    def run(*options):
        return [each["text"] for each in cfs.plan(source, *options)["kernel_arguments"]][2:]

    run.source = source
    return run


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["keymap=de", "keymap=us"]),
        (("--uki-addon", "1"), ["keymap=us"]),
        (("--uki-addon", "0.addon.efi", "--uki-addon", "1"), ["keymap=de", "keymap=us"]),
        (("--uki-addon", "none"), []),
    ],
)
def test_those_that_were_asked_for_are_taken(options, expected, plan):
    assert plan(*options) == expected


def test_an_addon_of_the_machines_owner_is_added(plan, tmp_path):
    own = tmp_path / "own.addon.efi"
    own.write_bytes(addon_bytes("rd.luks.uuid=1"))
    assert plan("--uki-addon", own) == ["rd.luks.uuid=1"]
    assert plan("--uki-addon", own, "--uki-addon", "0") == ["keymap=de", "rd.luks.uuid=1"]


def test_they_are_on_the_disk_and_belong_to_the_entry(cfs, plan, tmp_path):
    disk = tmp_path / "disk.img"
    cfs.ok("install", "to-disk", "--source-imgref", plan.source, "--uki-addon", "1", disk)
    assert cfs.ok("repo", "fsck", "--disk", disk).stdout == "clean\n"
    data = disk.read_bytes()
    # the repository has both, as the image does; only that which was asked for is with the UKI, too
    assert data.count(b"keymap=us") == data.count(b"keymap=de") + 1


def test_an_addon_with_the_digest_stays(cfs, tmp_path):
    base = bootable.image()
    plain = bootable.layout(tmp_path / "base", latest=base) + ":latest"
    digest = cfs.ok("image", "digest", plain, "--bootable").stdout.strip()
    image = bootable.with_uki(base, "rw", f"composefs={digest}", "other")
    source = bootable.layout(tmp_path / "uki", latest=image) + ":latest"
    found = cfs.plan(source, "--uki-addon", "none")
    assert [each["text"] for each in found["kernel_arguments"]] == ["rw", f"composefs={digest}"]


@pytest.mark.parametrize("what", ["absent", "./absent.addon.efi", "./text", "./digest.addon.efi"])
def test_what_is_no_addon_is_refused(what, cfs, plan, tmp_path):
    (tmp_path / "text").write_text("text")
    (tmp_path / "digest.addon.efi").write_bytes(addon_bytes("composefs=" + "ab" * 64))
    argv = ("install", "to-disk", "--source-imgref", plan.source, "--uki-addon", what, "disk.img")
    cfs.refused(*argv, status=2, code="usage", cwd=tmp_path)


def test_an_image_without_a_uki_has_none(cfs, tmp_path):
    source = bootable.layout(tmp_path / "plain", latest=bootable.image()) + ":latest"
    (tmp_path / "own.addon.efi").write_bytes(pe_bytes([(".cmdline", b"x")]))
    argv = ("install", "to-disk", "--source-imgref", source, "--uki-addon", tmp_path / "own.addon.efi")
    cfs.refused(*argv, tmp_path / "disk.img", status=2, code="usage")


def test_sealing_makes_addons_that_are_signed(cfs, source, key, tmp_path):
    out = f"oci:{tmp_path}/out:sealed"
    cfs.ok("seal", source(loader=False), out, *key.options, "--addon", "german=rd.vconsole.keymap=de quiet")
    found = json.loads(cfs.ok("seal", "--check", out, "--trust", key.certificate, "--format", "json").stdout)
    assert found["kernel_arguments"][-2:] == ["rd.vconsole.keymap=de", "quiet"]
    assert [(each["path"], each["trusted_by"]) for each in found["signatures"]][1:] == [
        ("german.addon.efi", "CN=owner")
    ]
