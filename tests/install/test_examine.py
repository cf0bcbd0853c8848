"""One examination of a disk: what reading back refuses, `fsck --disk` names."""

from __future__ import annotations

import os

import click
import pytest
from builders import bootable

from cfs_core.app.app import App
from cfs_core.cli.first_boot import TEXTS
from cfs_core.cli.install import _provable, _prove_arguments, _settings
from cfs_core.cli.output import CommandOutput
from cfs_core.deploy import preflight
from cfs_core.errors import UsageError
from cfs_core.install.run import InstallResult
from cfs_core.model.boot import Firmware
from cfs_core.model.disk import Volume
from cfs_core.model.plan import Finding, Severity
from cfs_core.pluginhost.registry import PluginId
from cfs_disk.gpt.layout import GptLayout
from cfs_prove.expectation import expect


@pytest.fixture
def disk(cfs, tmp_path):
    path = tmp_path / "disk.img"
    cfs.ok(
        "install", "to-disk", "--source-imgref", bootable.layout(tmp_path / "oci", latest=bootable.image()) + ":latest",
        path,
    )  # fmt: skip
    return path


def test_a_dead_root_volume_is_a_problem(cfs, disk):
    start = next(part.start for part in GptLayout().read(disk) if part.volume is Volume.ROOT)
    with disk.open("r+b") as file:
        file.seek(start)
        file.write(bytes(1 << 16))
    done = cfs("repo", "fsck", "--disk", disk)
    assert done.returncode == 9, done.stderr
    assert "disk.no-root" in done.stdout


def test_a_disk_without_a_known_repository_is_a_problem(cfs, disk):
    done = cfs("--disable-plugin", "cfs-storage-composefs", "repo", "fsck", "--disk", disk)
    assert done.returncode == 9, done.stderr
    assert "storage.unknown" in done.stdout


def test_a_finding_is_whose_plugin_it_is():
    owner = PluginId(name="x", distribution="cfs-x", version="1")
    finding = Finding(severity=Severity.ERROR, code="x", message="m", origin="cfs-core")
    assert [each.origin for each in preflight.stamped([finding], owner)] == ["cfs-x"]


@pytest.mark.parametrize(
    ("firmware", "expected"),
    [(("bios",), "bios"), (("uefi",), "uefi"), (("bios", "uefi"), "both"), (("u-boot", "uefi"), "uefi")],
)
def test_the_prover_starts_what_was_installed(tmp_path, firmware, expected):
    @click.command("prove")
    @click.argument("disk")
    @click.option("--firmware", default="auto")
    @click.option("--arch", "architecture")
    @click.option("--loader")
    def prove(**_):
        """Prove."""

    @click.group()
    def root():
        """Hold the command."""

    root.add_command(prove)
    result = InstallResult(
        disk=tmp_path, disk_bytes=1, image_id="", manifest_digest="", bootloader="grub", firmware=firmware,
        architecture="arm64", kernel_arguments=(), verified=(), took_seconds=0.0,
    )  # fmt: skip
    found = _prove_arguments(click.Context(root), result)
    assert (found["firmware"], found["architecture"], found["loader"]) == (expected, "arm64", "grub")
    assert str(found["disk"]) == str(tmp_path)


def test_a_disk_that_no_virtual_machine_starts_is_not_proven_by_another():
    with pytest.raises(UsageError, match="started by u-boot"):
        _provable(["u-boot"])


def test_options_that_were_not_given_set_nothing():
    names = ("bootloader", "filesystem", "firmware", "root_size", "esp_size", "early_boot", *TEXTS)
    options = dict.fromkeys(names, None)
    options["secure_boot_enroll"] = None
    assert set(_settings({**options, "composefs_native": False}).values()) == {None}


def test_a_plugins_command_reads_the_menus_of_a_disk(disk):
    with App(os.environ) as app:
        context = app.command_context("prove", CommandOutput(lambda: "text"))
        menus = {each.loader.name: each.menu for each in context.boot_menus(disk)}
        entry = menus["systemd-boot"].entries[0]
        assert any(word.startswith("composefs=") for word in entry.arguments)
        assert menus["grub"].entries == ()
        found = expect(disk, context.boot_menus, firmware=Firmware.UEFI)
        assert (found.loader, found.arguments, found.notes) == ("systemd-boot", entry.arguments, ())
