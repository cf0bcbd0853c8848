"""Checks of what a machine that died, or somebody else, leaves behind for the loader."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest

from cfs_core.plugin import (
    Action,
    BootError,
    BootFacts,
    Bootloader,
    CfsError,
    EntryKind,
)
from cfs_core.testing import MemoryTarget, first_k
from cfs_testkit.contracts.bootloader_setting import BootloaderSetting
from cfs_testkit.disks import files_of, put
from cfs_testkit.trees import ID_LENGTH

TRANSITIONS = (
    ("", "a"),
    ("", "ba"),
    ("a", "ba"),
    ("a", "b"),
    ("ba", "ab"),
    ("ab", "ba"),
    ("ba", "b"),
    ("ba", "a"),
    ("ba", "cba"),
    ("ba", "cb"),
    ("cba", "acb"),
    ("cba", "dc"),
)
"""Menus by the letters of their deployments, best first: what there is, what is wanted."""

CHOICES = (
    ("ba default=a", "cba"),
    ("ba default=a", "cba default=a"),
    ("ba default=a", "ab default=b"),
    ("ba default=a", "dc"),
    ("ba", "cba default=a"),
    ("cba default=b", "acb"),
    ("cba default=b", "bca default=a"),
    ("cba default=b", "dc default=c"),
    ("ba once=a", "cba once=b"),
    ("ba once=a", "ab"),
    ("cba default=a once=b", "acb default=c"),
    ("ba", "cba tries=3"),
    ("ba tries=3", "ab default=b"),
    ("ba default=a", "cba tries=2 once=a"),
    ("ba tries=0", "ba tries=3"),
    ("ba tries=0", "dba default=b"),
)
"""Menus with a default, a choice for the next boot, or tries that the first entry has left."""


class CrashChecks(BootloaderSetting):
    """After every single action, whatever starts by default is complete."""

    def test_entries_of_others_stay(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """What somebody else put into the menu is shown as foreign, and kept byte for byte, wanted or not."""
        if not self.foreign:
            pytest.skip("no foreign entry is given")
        self.change(made, disk, facts, self.wanted(made, disk, "a", kind))
        for location, data in self.foreign.items():
            put(disk, location, data)
        before = [entry for entry in made.read_menu(disk).entries if entry.foreign]
        assert before, "the entry given as foreign is not seen, or taken for one of ours"
        for letters in ("ba", "cb", "c"):
            self.change(made, disk, facts, self.wanted(made, disk, letters, kind))
            after = made.read_menu(disk)
            assert [entry for entry in after.entries if entry.foreign] == before
            for location, data in self.foreign.items():
                if location not in self.shared_files:
                    assert disk.read(location) == data, f"{location} was changed"
                    continue
                there = iter(disk.read(location).splitlines(keepends=True))
                lost = [line for line in data.splitlines(keepends=True) if not any(_same(line, each) for each in there)]
                assert not lost, f"the line {lost[0]!r} of {location} was changed, or moved"
            default = self.default(made, disk)
            assert default is not None
            assert default.deployment_id[0] == letters[0], "the foreign entry took over"
        self.change(made, disk, facts, [])
        for location, data in self.foreign.items():
            assert disk.read(location) == data, f"{location} is not what it was before anything of ours was there"

    def test_damaged_menus_are_no_crash(self, made: Bootloader, disk: MemoryTarget, facts: BootFacts) -> None:
        """Menu files with damaged content are read as far as possible; errors are of class CfsError."""
        kind = facts.artifacts.kind if facts.artifacts else EntryKind.BLS
        menu = self.change(made, disk, facts, self.wanted(made, disk, "ba", kind))
        boot_files = {location for entry in menu.entries for location in entry.files}
        for location, data in files_of(disk).items():
            if location in boot_files:
                continue
            for damage in (b"", b"\0\xff\xfe" * 50, data[: len(data) // 2], b"\n" * 9, b"{" * 99):
                state = disk.copy()
                put(state, location, damage)
                with contextlib.suppress(CfsError):
                    made.read_menu(state)

    @pytest.mark.parametrize(("start", "end"), TRANSITIONS, ids=[f"{a or 'nothing'}-to-{b}" for a, b in TRANSITIONS])
    @pytest.mark.parametrize("shared", [False, True], ids=["own-kernels", "shared-kernels"])
    def test_after_every_action_the_default_is_complete(
        self,
        made: Bootloader,
        disk: MemoryTarget,
        facts: BootFacts,
        kind: EntryKind,
        start: str,
        end: str,
        *,
        shared: bool,
    ) -> None:
        """Stop after the first k actions, for every k: what starts by default has all its files."""
        for letter in reversed(start):
            there = self.shown(made, disk)
            self.change(made, disk, facts, self.wanted(made, disk, letter + there, kind, shared=shared))
        actions = self.plan(made, disk, facts, self.wanted(made, disk, end, kind, shared=shared))
        for count, crashed in first_k(actions, disk):
            if not start and count < len(actions):
                continue
            default = self.default(made, crashed)
            done = f"after {count} of {len(actions)} actions"
            assert default is not None, f"{done} nothing starts by default"
            problem = self.missing(crashed, default)
            assert problem is None, f"{done} {problem}"
            lost = set(start) & set(end) - set(self.shown(made, crashed))
            assert not lost, f"{done} {lost} cannot be chosen any more"

    @pytest.mark.parametrize(("start", "end"), TRANSITIONS, ids=[f"{a or 'nothing'}-to-{b}" for a, b in TRANSITIONS])
    def test_a_second_run_finishes_what_a_crash_left(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind, start: str, end: str
    ) -> None:
        """From wherever a run died, wanting the same again leads to it, and nothing is left over."""
        for letter in reversed(start):
            there = self.shown(made, disk)
            self.change(made, disk, facts, self.wanted(made, disk, letter + there, kind))
        actions = self.plan(made, disk, facts, self.wanted(made, disk, end, kind))
        *crashes, (_, straight) = first_k(actions, disk)
        for count, crashed in crashes:
            self.change(made, crashed, facts, self.wanted(made, crashed, end, kind))
            assert self.shown(made, crashed) == end
            left = len(files_of(crashed)) - len(files_of(straight))
            assert left <= 0, f"{left} files too many after a crash at action {count}"

    @pytest.mark.parametrize(("start", "end"), CHOICES, ids=[f"{a}-to-{b}".replace(" ", ",") for a, b in CHOICES])
    def test_after_every_action_the_default_is_the_old_or_the_new_one(
        self,
        made: Bootloader,
        disk: MemoryTarget,
        facts: BootFacts,
        kind: EntryKind,
        offered: Any,
        start: str,
        end: str,
    ) -> None:
        """Stop after the first k actions, for every k: nothing starts that neither the old nor the new menu asked for.

        A choice for the next boot may be lost on the way, but not turn into another one.
        """
        needed = {word.partition("=")[0] for word in (*start.split(), *end.split()) if "=" in word}
        for name in sorted(needed - {each.value for each in offered.can}):
            pytest.skip(f"not declared: {name}")
        letters = start.partition(" ")[0]
        self.change(made, disk, facts, self.wanted(made, disk, letters, kind))
        try:
            for action in self._choose(made, disk, facts, kind, start):
                disk.apply(action)
            actions = self._choose(made, disk, facts, kind, end)
        except BootError as error:
            pytest.skip(f"refused: {error.message}")
        states = list(first_k(actions, disk))
        defaults = [self.default(made, state) for _, state in states]
        chosen = [made.read_menu(state).once for _, state in states]
        for count, (default, once) in enumerate(zip(defaults, chosen, strict=True)):
            done = f"after {count} of {len(actions)} actions"
            assert default is not None, f"{done} nothing starts by default"
            problem = self.missing(states[count][1], default)
            assert problem is None, f"{done} {problem}"
            ids = {each.deployment_id for each in (defaults[0], defaults[-1]) if each is not None}
            assert default.deployment_id in ids, f"{done} {default.deployment_id[0]} starts, which nobody asked for"
            assert once in {None, chosen[0], chosen[-1]}, f"{done} {once} would be started once"

    def _choose(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind, text: str
    ) -> list[Action]:
        """Plan the menu that one of `CHOICES` describes."""
        letters, *words = text.split()
        given = dict(word.split("=") for word in words)
        first, *rest = self.wanted(made, disk, letters, kind)
        first = dataclasses.replace(first, tries_left=int(given.pop("tries")) if "tries" in given else None)
        rest = [dataclasses.replace(entry, tries_left=None) for entry in rest]
        more = {name: letter * ID_LENGTH for name, letter in given.items()}
        return self.plan(made, disk, facts, [first, *rest], **more)


def _same(line: bytes, other: bytes) -> bool:
    """Return whether a line came back; the last one of a file may have got an end."""
    return line == other if line.endswith(b"\n") else line == other.rstrip(b"\r\n")
