"""What a UKI, a label, a setting and an option make of an install: the table of docs/howto/sealed-image.md, by row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from builders import bootable
from builders.pe import addon_bytes, uki_bytes

from cfs_testkit.builders.oci import File, Image, layer

PAGE = Path(__file__).parents[2] / "docs/howto/sealed-image.md"
VERSION = bootable.KERNEL_VERSION
LINUX = "boot/EFI/Linux"


def uki(cmdline):
    return File(uki_bytes(cmdline, version=VERSION, initrd=bootable.initramfs()))


def images(identity, other):
    """Return the files on top of the base image, and labels, by the row they are of."""
    seal = f"rw composefs={identity}"
    return {
        "no UKI": ({}, {}),
        "UKI without digest": ({f"{LINUX}/a.efi": uki("rw")}, {}),
        "UKI with digest": ({f"{LINUX}/a.efi": uki(seal)}, {}),
        "UKI with `?`": ({f"{LINUX}/a.efi": uki(f"rw composefs=?{identity}")}, {}),
        "digest in an addon": (
            {f"{LINUX}/a.efi": uki("rw"), f"{LINUX}/a.efi.extra.d/d.addon.efi": File(addon_bytes(seal))},
            {},
        ),
        "another digest": ({f"{LINUX}/a.efi": uki(f"rw composefs={other}")}, {}),
        "several UKIs, the first sealed": ({f"{LINUX}/b.efi": uki(seal), f"{LINUX}/a.efi": uki("rw")}, {}),
        "several UKIs, the first not sealed": ({f"{LINUX}/b.efi": uki("rw"), f"{LINUX}/a.efi": uki(seal)}, {}),
        "label `containers.cfs.storage=composefs`": ({}, {"containers.cfs.storage": "composefs"}),
        'setting `install.storage = "composefs"`': ({}, {}),
        "option `--composefs-native`": ({}, {}),
        "UKI with digest, and the option": ({f"{LINUX}/a.efi": uki(seal)}, {}),
    }


OPTIONS = {
    "option `--composefs-native`": ("--composefs-native",),
    "UKI with digest, and the option": ("--composefs-native",),
}
ENVIRONMENT = {'setting `install.storage = "composefs"`': {"CFS_INSTALL_STORAGE": "composefs"}}


def rows():
    """Return the table: what is found, and its cells."""
    text = PAGE.read_text()
    table = text[text.index("| Found |") :].split("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {line[0]: dict(zip(lines[0][1:], line[1:], strict=True)) for line in lines[2:]}


XFS = """\
import dataclasses

from cfs_core.plugin import hookimpl

CFS_PLUGIN_API = (2, 0)


@hookimpl
def cfs_register_filesystems():
    from cfs_disk.plugin import cfs_register_filesystems as disk

    ext4 = next(each for each in disk() if each.name == "ext4")
    return [dataclasses.replace(ext4, name="xfs", summary="a root filesystem without fs-verity", verity=False)]
"""


@pytest.fixture
def xfs(tmp_path):
    """Return a place for Python with a filesystem plugin that has no fs-verity."""
    place = tmp_path / "python"
    facts = place / "cfs_xfs-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: cfs-xfs\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[cfs.plugins]\nxfs = cfs_xfs\n")
    (place / "cfs_xfs.py").write_text(XFS)
    return {"PYTHONPATH": str(place)}


@pytest.fixture
def install(cfs, tmp_path, xfs):
    """Return a function that plans the install of a row; exit status and findings, or the plan."""
    base = bootable.image()
    plain = bootable.layout(tmp_path / "base", latest=base) + ":latest"
    digest = cfs.ok("image", "digest", plain, "--bootable").stdout.strip()

    def plan(row, *options):
        files, labels = images(digest, "ab" * 64)[row]
        layers = [*base.layers, *([layer(files, parents=True)] if files else [])]
        reference = bootable.layout(tmp_path / "row", latest=Image(layers, labels=labels)) + ":latest"
        options = (*options, *OPTIONS.get(row, ()))
        done = cfs(
            "install", "to-disk", "--source-imgref", reference, "--dry-run", "--format", "json", *options,
            tmp_path / "disk.img", env={**xfs, **ENVIRONMENT.get(row, {})},
        )  # fmt: skip
        return json.loads(done.stdout) if done.stdout else {"refused": done.stderr, "findings": []}

    return plan


def errors(plan):
    if "refused" in plan:
        return {re.search(r"\[([a-z.-]+)\]", plan["refused"])[1]}
    return {each["code"] for each in plan["findings"] if each["severity"] == "error"}


def verity(plan):
    """Return whether the initramfs requires fs-verity, by the command line."""
    word = next(each for each in plan["kernel_arguments"] if each["text"].startswith("composefs="))
    return "optional" if "=?" in word["text"] else "required"


def test_every_row_is_here():
    assert rows().keys() == images("", "").keys()


@pytest.mark.parametrize("row", images("", ""))
def test_the_table_is_right(row, install):
    cells = rows()[row]
    plan = install(row)
    if cells["Storage"].startswith("refused"):
        (code,) = errors(plan)
        assert f"`{code}`" in cells["Storage"]
        return
    assert not errors(plan)
    assert plan["storage"]["name"] == cells["Storage"].split(",")[0]
    assert plan["image"]["sealed"] == ("sealed" in cells["Storage"].split(", "))
    assert verity(plan) == cells["fs-verity"]
    assert ("boot.karg-sealed" not in errors(install(row, "--karg", "debug"))) == (cells["`--karg`"] == "yes")
    found = [each for each in install(row, "--filesystem", "xfs")["findings"] if each["code"] == "disk.no-verity"]
    severity = {"no": "error", "yes, not verified": "warning"}[cells["xfs"]]
    assert [each["severity"] for each in found] == [severity]
