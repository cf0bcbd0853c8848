"""Kernels with several initrds: where their files go, and when they are shared."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from cfs_core.bls import BootFiles, new_entry_text
from cfs_core.model.action import CopyObject, RemovePath, WriteFile
from cfs_core.model.boot import BootArtifacts, BootEntry, EntryKind
from cfs_core.model.content import BytesContent
from cfs_core.model.disk import Location, Volume
from cfs_core.target.execute import apply
from cfs_core.target.memory import MemoryTarget

KERNELS, UKIS = Location(Volume.ESP, "/EFI/Linux"), Location(Volume.ESP, "/EFI/Linux/bootc")


def entry(letter, *initrds):
    data = b"".join([b"K", *initrds])
    first, *others = map(BytesContent, initrds)
    artifacts = BootArtifacts(
        kind=EntryKind.BLS,
        kernel_version="6.12",
        boot_digest=hashlib.sha256(data).hexdigest(),
        kernel=BytesContent(b"K"),
        initrd=first,
        extra_initrds=tuple(others),
    )
    return BootEntry(
        deployment_id=letter * 128, kind=EntryKind.BLS, title="T", version="1", os_id="x", artifacts=artifacts
    )


@pytest.fixture
def target():
    return MemoryTarget()


def placed(target, each):
    """Put the files of an entry on the target; return their names, and what was done for it."""
    files = BootFiles(target, KERNELS, UKIS)
    found = files.place(each)
    apply(tuple(files.actions), target)
    return found, files.actions


def test_every_initrd_has_a_file_and_a_line(target):
    made = entry("a", b"1", b"2", b"3")
    found, actions = placed(target, made)
    assert [location.path.rpartition("/")[2] for location in found] == ["vmlinuz", "initrd", "initrd-2", "initrd-3"]
    assert [type(action) for action in actions] == [CopyObject] * 4
    text = new_entry_text(made, [location.path for location in found], options_of=lambda _: "x")
    lines = [line.rpartition("/")[2] for line in text.decode().splitlines() if line.startswith("initrd ")]
    assert lines == ["initrd", "initrd-2", "initrd-3"]


def test_equal_files_are_shared_and_others_are_not(target):
    first, _ = placed(target, entry("a", b"1", b"2"))
    again, actions = placed(target, entry("b", b"1", b"2"))
    assert (again, actions) == (first, [])
    for other in (entry("c", b"1"), entry("d", b"1", b"X")):
        found, actions = placed(target, other)
        assert found[0] != first[0]
        assert actions


def test_an_initrd_that_was_left_over_goes(target):
    made = entry("a", b"1")
    folder = KERNELS / f"bootc_composefs-{made.deployment_id}"
    target.apply(WriteFile(location=folder / "initrd-2", data=b"old", why="an install that was stopped"))
    _, actions = placed(target, made)
    assert [action.location for action in actions if isinstance(action, RemovePath)] == [folder / "initrd-2"]
    _, actions = placed(target, dataclasses.replace(made, deployment_id="b" * 128))
    assert actions == []
