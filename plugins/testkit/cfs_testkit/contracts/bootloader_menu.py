"""Checks of menus: what is wanted is what is read, in that order, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest

from cfs_core.plugin import (
    BootError,
    BootFacts,
    Bootloader,
    EntryKind,
    Location,
    Volume,
    WriteBlocks,
    read_all,
)
from cfs_core.testing import MemoryTarget
from cfs_testkit.contracts.bootloader_setting import BootloaderSetting, contents, told
from cfs_testkit.disks import files_of, put
from cfs_testkit.trees import ID_LENGTH, deployment


class MenuChecks(BootloaderSetting):
    """Entries, order, default, removal."""

    def test_an_empty_disk_has_an_empty_menu(self, made: Bootloader, facts: BootFacts) -> None:
        """Reading the menu of a disk without a loader is no error."""
        menu = made.read_menu(self.empty_disk(made, facts))
        assert menu.entries == ()
        assert menu.default is None

    def test_a_menu_can_be_planned_before_the_disk_exists(
        self, made: Bootloader, facts: BootFacts, kind: EntryKind
    ) -> None:
        """An install plans the first menu against a disk that is empty still."""
        disk = self.empty_disk(made, facts)
        actions = self.plan(made, disk, facts, [deployment("a", kind)])
        for action in (*made.plan_install(disk, facts), *actions):
            disk.apply(action)
        assert self.shown(made, disk) == "a"

    def test_an_entry_comes_back_as_it_was_wanted(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """What is written is what is read: identity, kind, title, kernel arguments in order."""
        wanted = deployment("a", kind)
        self.change(made, disk, facts, [wanted])
        (found,) = self.own(made, disk)
        assert found.deployment_id == "a" * ID_LENGTH
        assert (found.kind, found.foreign) == (kind, False)
        assert wanted.title in found.title
        if kind is EntryKind.BLS:
            self.arrive(made, disk, wanted.arguments)
        assert found.name, "read_menu gives no name (what the loader calls the entry)"
        assert found.files, "read_menu gives no files"

    def test_an_entry_has_its_boot_files(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """The files that an entry names are there and hold kernel and initrd, or the unified kernel image."""
        self.change(made, disk, facts, [deployment("a", kind)])
        (entry,) = self.own(made, disk)
        assert self.missing(disk, entry) is None

    @pytest.mark.parametrize("arguments", [('a="b c"',), ("x=$y", "z=\\1"), ("é=ü",), ("a=1", "a=2", "a=1")])
    def test_arguments_are_not_interpreted(
        self,
        made: Bootloader,
        disk: MemoryTarget,
        facts: BootFacts,
        offered: Any,
        arguments: tuple[str, ...],
    ) -> None:
        """Quotes, dollars, backslashes and repetitions reach the kernel as they are, or are refused."""
        if EntryKind.BLS not in offered.entries:
            pytest.skip("not declared: entries of kind bls")
        wanted = deployment("a", arguments=(*arguments, "composefs=" + "a" * ID_LENGTH))
        try:
            self.change(made, disk, facts, [wanted])
        except BootError:
            return
        self.arrive(made, disk, wanted.arguments)

    @pytest.mark.parametrize(
        "title",
        [
            "one\ntwo",
            "x\nentry evil\nlabel evil\nmenuentry evil {\n}\ntitle evil\n",
            "a } b {",
            "quote\"'$(x)`y`",
            "# not a comment",
            "ü\u202e\x07",
        ],
    )
    def test_a_title_cannot_break_the_menu(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind, title: str
    ) -> None:
        """The title comes from the image: whatever it holds, the menu has just the wanted entries."""
        wanted = [deployment("a", kind, title=title), deployment("b", kind)]
        try:
            self.change(made, disk, facts, wanted)
        except BootError:
            return
        assert self.shown(made, disk) == "ab"
        assert len(made.read_menu(disk).entries) == len(wanted)
        assert [entry.arguments for entry in self.own(made, disk)][1] == wanted[1].arguments

    @pytest.mark.parametrize("letters", ["ab", "ba", "cab", "dcba", "ba9876543210"])
    def test_entries_are_shown_in_the_wanted_order(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind, letters: str
    ) -> None:
        """Best first, however many there are and whatever their names sort like."""
        self.change(made, disk, facts, self.wanted(made, disk, letters, kind))
        assert self.shown(made, disk) == letters
        default = self.default(made, disk)
        assert default is not None
        assert default.deployment_id[0] == letters[0]

    def test_the_order_can_be_turned_around(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """A rollback is the same entries in another order, again and again."""
        self.change(made, disk, facts, self.wanted(made, disk, "cba", kind))
        for letters in ("bca", "abc", "bca", "cba"):
            self.change(made, disk, facts, self.wanted(made, disk, letters, kind))
            assert self.shown(made, disk) == letters

    def test_what_is_there_needs_no_action(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """Wanting what there is changes nothing."""
        self.change(made, disk, facts, self.wanted(made, disk, "ba", kind))
        assert self.plan(made, disk, facts, self.own(made, disk)) == []

    def test_planning_a_menu_is_pure(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """The same question has the same answer, and asking changes nothing."""
        self.change(made, disk, facts, self.wanted(made, disk, "ba", kind))
        before = disk.copy()
        plans = [told(self.plan(made, disk, facts, self.wanted(made, disk, "cb", kind))) for _ in range(2)]
        assert plans[0] == plans[1]
        assert files_of(disk) == files_of(before)

    def test_menus_stay_on_the_volumes_it_asked_for(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """Menu actions go to needed volumes only, at absolute and normalised paths, each with a reason."""
        allowed = {need.volume for need in made.needs(facts)} | facts.volumes
        if not allowed & {Volume.ESP, Volume.XBOOTLDR, Volume.BOOT}:
            allowed |= {Volume.ROOT}
        actions = self.plan(made, disk, facts, self.wanted(made, disk, "ba", kind))
        assert not [action for action in actions if isinstance(action, WriteBlocks)]
        self.are_well_formed(actions, allowed)

    def test_a_removed_entry_leaves_nothing_behind(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """Boot files that no entry needs any more are removed: boot volumes are small."""
        self.change(made, disk, facts, self.wanted(made, disk, "b", kind))
        before = len(files_of(disk))
        self.change(made, disk, facts, self.wanted(made, disk, "ab", kind))
        self.change(made, disk, facts, self.wanted(made, disk, "b", kind))
        left = files_of(disk)
        gone = [read_all(content) for content in contents(deployment("a", kind).artifacts)]
        assert [str(location) for location, data in left.items() if data in gone] == []
        assert len(left) == before

    def test_boot_files_that_another_entry_shares_stay(
        self,
        made: Bootloader,
        disk: MemoryTarget,
        facts: BootFacts,
        offered: Any,
    ) -> None:
        """Two deployments with the same kernel: whichever goes, the other one boots."""
        if EntryKind.BLS not in offered.entries:
            pytest.skip("not declared: entries of kind bls")
        for keep in "ab":
            state = disk.copy()
            self.change(made, state, facts, self.wanted(made, state, "a", EntryKind.BLS, shared=True))
            self.change(made, state, facts, self.wanted(made, state, "ba", EntryKind.BLS, shared=True))
            self.change(made, state, facts, self.wanted(made, state, keep, EntryKind.BLS))
            (entry,) = self.own(made, state)
            assert self.missing(state, entry) is None

    def test_letter_case_is_nothing_on_fat(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """Entries that name the same files in other letter case are the same: still ours, and their files stay."""
        self.change(made, disk, facts, self.wanted(made, disk, "ba", kind))
        entries = self.own(made, disk)
        boot_files = {location for entry in entries for location in entry.files}
        folded = {location for location in boot_files if folds(disk, location)}
        if not folded:
            pytest.skip("not declared: boot files on FAT")
        for place, data in files_of(disk).items():
            changed = data
            for location in folded:
                for path in (location.path, location.path.replace("/", "\\")):
                    changed = changed.replace(path.encode(), path.upper().encode())
            if place not in boot_files and changed != data:
                put(disk, place, changed)
        assert self.shown(made, disk) == "ba", "an entry that names its files in upper case is taken for another one's"
        self.change(made, disk, facts, self.wanted(made, disk, "cba", kind))
        assert self.shown(made, disk) == "cba"
        for entry in self.own(made, disk):
            assert self.missing(disk, entry) is None


def folds(disk: MemoryTarget, location: Location) -> bool:
    """Return whether letter case is nothing to the filesystem that *location* is on."""
    partition = disk.partition(location.volume)
    return partition is not None and partition.filesystem == "vfat"
