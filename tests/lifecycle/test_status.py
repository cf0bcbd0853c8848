"""Reading deployments from origin files and menus: order, default and one-shot, several loaders, mounted volumes."""

from __future__ import annotations

from cfs_core.lifecycle.status import mounted_volumes, read_status
from cfs_core.model.action import MakeDirectory, WriteFile
from cfs_core.model.boot import BootEntry, BootMenu, EntryKind
from cfs_core.model.disk import Location, Volume
from cfs_core.plugin import BootError
from cfs_core.target.memory import MemoryTarget

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


class Loader:
    """A bootloader whose menu a test wrote."""

    def __init__(self, menu):
        self.menu = menu

    def read_menu(self, _target):
        if isinstance(self.menu, Exception):
            raise self.menu
        return self.menu


def entry(identity, **more):
    return BootEntry(
        deployment_id=identity, kind=EntryKind.BLS, title=f"OS {identity[0]}", version="1", os_id="x", **more
    )


def target(*deployments):
    made = MemoryTarget()
    for each in deployments:
        text = f"[origin]\ncontainer-image-reference = ostree-unverified-image:docker://x/{each[0]}:1\n"
        text += f"[boot]\nboot_type = bls\n[image]\nmanifest_digest = sha256:{each}\n"
        text += "[cfs]\nverified = one: a; two: b\n" if each == A else ""
        where = Location(Volume.ROOT, f"/state/deploy/{each}")
        made.apply(MakeDirectory(location=where, why="test"))
        made.apply(WriteFile(location=where / f"{each}.origin", data=text.encode(), why="test"))
    return made


def test_order_default_and_one_shot():
    menu = BootMenu(entries=(entry(B), entry(A, tries_left=3)), default=A, once=B)
    found = read_status(target(A, B), {"x": Loader(menu)})
    assert [each.id for each in found.deployments] == [B, A]
    first, second = (each.entries[0] for each in found.deployments)
    assert (first.position, first.default, first.once, first.tries_left) == (1, False, True, None)
    assert (second.position, second.default, second.once, second.tries_left) == (2, True, False, 3)
    assert (found.deployments[1].image, found.deployments[1].verified) == ("docker://x/a:1", ("one: a", "two: b"))
    assert found.problems == ()


def test_without_a_default_it_is_the_first():
    found = read_status(target(A, B), {"x": Loader(BootMenu(entries=(entry(A), entry(B))))})
    assert [each.entries[0].default for each in found.deployments] == [True, False]


def test_deployments_that_nothing_starts_come_last_and_are_no_problem():
    found = read_status(target(A, B, C), {"x": Loader(BootMenu(entries=(entry(C),)))})
    assert [each.id for each in found.deployments] == [C, A, B]
    assert [note.where for note in found.notes] == [A[:16], B[:16]]
    assert found.problems == ()


def test_a_machine_that_upgraded_twice_is_consistent():
    """Two entries for three deployments, all with one kernel: what is there after two switches (bootc 1.16)."""
    made = target(A, B, C)
    boot = Location(Volume.ESP, "/EFI/Linux/shared/vmlinuz")
    for folder in ("/EFI", "/EFI/Linux", "/EFI/Linux/shared"):
        made.apply(MakeDirectory(location=Location(Volume.ESP, folder), why="test"))
    made.apply(WriteFile(location=boot, data=b"kernel", why="test"))
    menu = BootMenu(entries=(entry(C, name="bootc_x-c-1.conf", files=(boot,)), entry(A, name="bootc_x-a-0.conf")))
    found = read_status(made, {"x": Loader(menu)})
    assert (found.problems, [note.code for note in found.notes]) == ((), ["state.unstarted"])
    assert found.notes[0].where == B[:16]


def test_choices_that_the_menu_does_not_offer():
    found = read_status(target(A), {"x": Loader(BootMenu(entries=(entry(A),), default=B, once=C))})
    assert ["default" in each.message or "next boot" in each.message for each in found.problems] == [True, True]


def test_two_loaders_and_one_that_cannot_be_read():
    loaders = {
        "x": Loader(BootMenu(entries=(entry(A),))),
        "y": Loader(BootMenu(entries=(entry(A), entry("z.conf", foreign=True)))),
        "z": Loader(BootError("its menu is garbled")),
    }
    found = read_status(target(A), loaders)
    assert [each.loader for each in found.deployments[0].entries] == ["x", "y"]
    assert [each.title for each in found.foreign] == ["OS z"]
    assert [(problem.where, problem.message) for problem in found.problems] == [("z", "its menu is garbled")]


def test_no_menu_at_all_is_one_problem():
    found = read_status(target(A, B), {"x": Loader(BootMenu(entries=()))})
    assert len(found.problems) == 1


def test_where_volumes_are_mounted(tmp_path):
    assert mounted_volumes(tmp_path) == {Volume.ROOT: tmp_path}
    (tmp_path / "boot").mkdir()
    assert mounted_volumes(tmp_path) == {Volume.ROOT: tmp_path}
    (tmp_path / "boot/EFI").mkdir()
    assert mounted_volumes(tmp_path)[Volume.ESP] == tmp_path / "boot"
    (tmp_path / "efi/EFI").mkdir(parents=True)
    assert mounted_volumes(tmp_path)[Volume.ESP] == tmp_path / "efi"
    outside = tmp_path / "outside"
    (outside / "boot/efi/EFI").mkdir(parents=True)
    (tmp_path / "sysroot").mkdir()
    assert mounted_volumes(tmp_path / "sysroot", outside)[Volume.ESP] == outside / "boot/efi"
