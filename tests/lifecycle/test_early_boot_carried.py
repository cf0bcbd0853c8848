"""Early boot that was added at install: an upgrade carries it over, and makes it new when kernel or script change."""

from __future__ import annotations

import functools
import json

import pytest
from builders import bootable
from builders.lifecycle_kit import Versions, copied, finalized, kernel, run, staged, upgraded, version
from builders.machines import install_below

import cfs_initramfs.supplement
import cfs_systemd_boot.plugin
from cfs_core.errors import BootError
from cfs_initramfs.place import packaged
from cfs_testkit.builders.oci import File
from cfs_testkit.initrds import cpio
from cfs_testkit.programs import program

M = bootable.MODULES
NAMES = ("sh", "mount", "umount", "mkdir", "cat", "chmod")
TREE = {"init": "#!/bin/sh\n", "bin": "-> usr/bin", "scripts/functions": "f", "scripts/local": "l"}
STOCK = cpio({**TREE, **{f"usr/bin/{name}": program() for name in NAMES}})
SCRIPT = packaged("cfs-setup-root")


def stock(number, **files):
    """A version whose initramfs does not know composefs; its kernel unpacks only what is not compressed."""
    return version(number, **{f"{M}/initramfs.img": File(STOCK), f"{M}/config": File("\n"), **files})


@pytest.fixture(scope="module")
def stock_template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    versions = Versions(folder / "oci")
    versions.publish(stock(1))
    return install_below(folder, versions.reference)


@pytest.fixture
def stock_versions(stock_template):
    made = Versions(stock_template.folder / "oci")
    made.publish(stock(1))
    return made


@pytest.fixture
def stock_machine(stock_template, stock_versions, tmp_path):
    return copied(stock_template, tmp_path)


def initrds(machine):
    """Return what the default entry's initrds hold, in order."""
    read = machine.read()
    entry = next(each for each in read.entries if each.deployment_id == read.default)
    files = [machine.root / "boot" / location.path.lstrip("/") for location in entry.files]
    return [path.read_bytes() for path in files if path.name.startswith("initrd")]


def kernels(machine):
    return sorted(path.parent.name for path in (machine.root / "boot/EFI/Linux").glob("*/vmlinuz"))


def test_the_next_deployment_starts_with_the_same_files(stock_machine, stock_versions):
    before = initrds(stock_machine)
    assert len(before) == 2
    assert SCRIPT in before[1]
    stock_versions.publish(stock(2))
    upgraded(stock_machine)
    assert initrds(stock_machine) == before
    assert len(kernels(stock_machine)) == 1, "one kernel and its initrds serve both"
    assert stock_machine.read().status.problems == ()


def test_a_new_kernel_gets_its_own(stock_machine, stock_versions):
    before = initrds(stock_machine)
    stock_versions.publish(stock(2, **kernel("new")))
    upgraded(stock_machine)
    assert initrds(stock_machine) == before
    assert len(kernels(stock_machine)) == 2
    stock_versions.publish(stock(3, **kernel("new"), **{f"{M}/initramfs.img": File(bootable.initramfs())}))
    upgraded(stock_machine)
    assert initrds(stock_machine) == [bootable.initramfs()], "and none where the image needs none"
    assert stock_machine.read().status.problems == ()


def test_a_newer_script_of_cfs_replaces_it(stock_machine, stock_versions, monkeypatch):
    before = initrds(stock_machine)
    newer = SCRIPT + b"# a newer one\n"
    monkeypatch.setattr(
        cfs_initramfs.supplement, "packaged", lambda name: newer if name == "cfs-setup-root" else packaged(name)
    )
    stock_versions.publish(stock(2))
    upgraded(stock_machine)
    after = initrds(stock_machine)
    assert after[0] == before[0]
    assert newer in after[1]
    assert len(kernels(stock_machine)) == 2, "what was started before keeps the script that it had"


def test_an_image_that_cannot_be_helped_is_not_staged(stock_machine, stock_versions):
    lame = cpio({**TREE, **{f"usr/bin/{name}": program() for name in NAMES[1:]}})
    stock_versions.publish(stock(2, **{f"{M}/initramfs.img": File(lame)}))
    before = stock_machine.read().default
    with pytest.raises(BootError, match="early boot cannot be added"):
        staged(stock_machine)
    assert finalized(stock_machine).result != "finalized"
    assert stock_machine.read().default == before


def flip(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def problems(machine):
    """Return code and place of what fsck finds."""
    found = json.loads(run(machine, "fsck", "--format", "json").stdout)["problems"]
    return [(problem["code"], problem["where"].rpartition("/")[2]) for problem in found]


def test_damage_to_the_added_part_is_named_and_mended(stock_machine, stock_versions):
    before = initrds(stock_machine)
    (path,) = (stock_machine.root / "boot/EFI/Linux").glob("*/initrd-2")
    flip(path)
    assert problems(stock_machine) == [("boot.differs", "initrd-2")]
    assert run(stock_machine, "fsck", "--repair").exit_code == 0
    assert initrds(stock_machine) == before
    assert problems(stock_machine) == []


def test_a_newer_cfs_finds_nothing_wrong_with_what_an_older_one_added(stock_machine, stock_versions, monkeypatch):
    newer = SCRIPT + b"# a newer one\n"
    monkeypatch.setattr(
        cfs_initramfs.supplement, "packaged", lambda name: newer if name == "cfs-setup-root" else packaged(name)
    )
    assert problems(stock_machine) == []
    (path,) = (stock_machine.root / "boot/EFI/Linux").glob("*/initrd-2")
    flip(path)
    assert run(stock_machine, "fsck", "--repair").exit_code == 0
    assert newer in path.read_bytes()
    assert problems(stock_machine) == [], "what it makes now is right, too"


@pytest.fixture
def one_initrd_machine(tmp_path, monkeypatch):
    """A machine whose loader says that it takes one initrd."""
    offered = cfs_systemd_boot.plugin.BootloaderProvider
    monkeypatch.setattr(cfs_systemd_boot.plugin, "BootloaderProvider", functools.partial(offered, one_initrd=True))
    versions = Versions(tmp_path / "oci")
    versions.publish(stock(1))
    return install_below(tmp_path, versions.reference), versions


def test_where_a_loader_takes_one_initrd_an_upgrade_makes_one_and_fsck_knows_it(one_initrd_machine):
    machine, versions = one_initrd_machine
    before = initrds(machine)
    assert len(before) == 1
    assert before[0].startswith(STOCK)
    assert SCRIPT in before[0]
    assert problems(machine) == []
    versions.publish(stock(2, **kernel("new")))
    upgraded(machine)
    assert initrds(machine) == before
    assert len(kernels(machine)) == 2
    assert machine.read().status.problems == ()
    entry = machine.read().booted.boot_entry
    flip(machine.root / "boot" / entry.files[1].path.lstrip("/"))
    assert problems(machine) == [("boot.differs", "initrd")]
    assert run(machine, "fsck", "--repair").exit_code == 0
    assert initrds(machine) == before
    assert problems(machine) == []
