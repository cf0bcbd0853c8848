"""A dry run ends as the install would: what a write would find is found in the plan, in the same words."""

from __future__ import annotations

import json
import re

import pytest
from builders import bootable, pe

from cfs_testkit.builders.oci import File


@pytest.fixture
def source(tmp_path):
    return bootable.layout(tmp_path / "oci", latest=bootable.image()) + ":latest"


def both(cfs, source, tmp_path, *options):
    """Return what a dry run and an install say, which is the same."""
    dry = cfs.install(source, tmp_path / "d.img", "--dry-run", *options)
    real = cfs.install(source, tmp_path / "d.img", *options)
    assert dry.returncode == real.returncode
    said = [line for line in dry.stderr.splitlines() if line.startswith(("error", "hint"))]
    assert real.stderr.splitlines()[-len(said) :] == said
    assert not (tmp_path / "d.img").exists()
    assert cfs.litter() == []
    return real


def with_files(tmp_path, files):
    return bootable.layout(tmp_path / "odd", latest=bootable.image(**files)) + ":latest"


def test_a_plan_with_errors_ends_with_the_first(cfs, tmp_path):
    arguments = ", ".join(f'"module{number}.parameter=123456789"' for number in range(100))
    odd = with_files(tmp_path, {"usr/lib/bootc/kargs.d/20.toml": f"kargs = [{arguments}]\n"})
    done = both(cfs, odd, tmp_path)
    assert (done.returncode, "[boot.cmdline-too-long]" in done.stderr) == (11, True)
    plan = cfs.install(odd, tmp_path / "d.img", "--dry-run", "--format", "json")
    assert [each["code"] for each in json.loads(plan.stdout)["findings"] if each["severity"] == "error"]
    assert plan.returncode == 11


def test_a_name_that_fat_cannot_hold(cfs, tmp_path):
    files = {
        "boot/EFI/Linux/test.efi": File(pe.uki_bytes("x=1", version="6.12.1-test", initrd=bootable.initramfs())),
        "boot/EFI/Linux/test.efi.extra.d/a:b.addon.efi": File(bootable.addon_bytes("a=1")),
    }
    done = both(cfs, with_files(tmp_path, files), tmp_path)
    assert (done.returncode, "[disk]" in done.stderr) == (11, True)
    assert re.search(r"a:b\.addon\.efi.* cannot be on FAT", done.stderr)
    assert "rename the file in the image" in done.stderr
    assert "host's memory" not in done.stderr


def test_one_minimum_for_the_esp(cfs, source, tmp_path):
    done = both(cfs, source, tmp_path, "--esp-size", "1M")
    least = re.search(r"at least (\d+) MiB", done.stderr)[1]
    assert cfs.install(source, tmp_path / "least.img", "--esp-size", f"{least}M").returncode == 0
    smaller = both(cfs, source, tmp_path, "--esp-size", f"{int(least) - 1}M")
    assert f"at least {least} MiB" in smaller.stderr


@pytest.mark.parametrize("size", ["513G", "1000000M", "2097151M"])
def test_an_esp_is_no_larger_than_can_be_read(cfs, source, tmp_path, size):
    done = both(cfs, source, tmp_path, "--esp-size", size)
    assert (done.returncode, "[disk.too-large.esp]" in done.stderr) == (11, True), done.stderr
    assert "vfat ends at 512" in done.stderr
    assert "make it smaller (--esp-size)" in done.stderr


@pytest.mark.parametrize("option", ["--disk-size", "--root-size"])
def test_a_disk_is_no_larger_than_a_file_can_be(cfs, source, tmp_path, option):
    done = both(cfs, source, tmp_path, option, "1024T")
    assert (done.returncode, "[disk.too-large." in done.stderr) == (11, True), done.stderr
    assert option in done.stderr.partition("hint: ")[2]


def test_a_link_as_output_stays(cfs, source, tmp_path):
    (tmp_path / "images").mkdir()
    target = tmp_path / "images/disk.raw"
    target.write_bytes(b"old")
    link = tmp_path / "disk.img"
    link.symlink_to("images/disk.raw")
    done = cfs.install(source, link, "--yes")
    assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    assert target.stat().st_size > 1 << 20
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["disk.raw"]


def test_settings_without_effect_are_findings(cfs, tmp_path):
    odd = with_files(tmp_path, {"usr/lib/bootc/install/00-a.toml": '[install]\nstateroot = "x"\ncolour = "red"\n'})
    findings = cfs.plan(odd)["findings"]
    told = [each["message"].partition(" in image:")[0] for each in findings if each["code"] == "image.setting-ignored"]
    assert told == ["install.stateroot", "install.colour"]
