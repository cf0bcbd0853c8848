"""Checks of what a bootloader needs, finds, and puts on a disk before there is a menu."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest

from cfs_core.plugin import (
    Architecture,
    BootFacts,
    Bootloader,
    CopyObject,
    EntryKind,
    Finding,
    Firmware,
    RemovePath,
    RunCommand,
    SetEfiVariable,
    Severity,
    Volume,
    find_pe,
    read_all,
)
from cfs_core.testing import MemoryTarget
from cfs_testkit.contracts.base import optional
from cfs_testkit.contracts.bootloader_setting import BootloaderSetting, heavier, told
from cfs_testkit.disks import files_of
from cfs_testkit.trees import deployment

if TYPE_CHECKING:
    from collections.abc import Sequence


MEBIBYTE = 1 << 20
HEAVY = 7 * MEBIBYTE
"""Bytes; more than what holds files takes, less than any loader refuses to be."""


def matches(path: str, pattern: str) -> bool:
    """Return whether *path* matches *pattern*, each part of it the part at that place."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


class InstallChecks(BootloaderSetting):
    """Needs, findings and installation."""

    # --- needs and findings -------------------------------------------------------------------

    def test_needs_are_sensible(self, made: Bootloader, facts: BootFacts) -> None:
        """Needs name each volume once, with a size and a reason; the same for the same facts."""
        needs = list(made.needs(facts))
        assert len({need.volume for need in needs}) == len(needs)
        for need in needs:
            assert need.bytes_needed > 0, need
            assert need.why, need
            assert need.volume not in {Volume.DISK, Volume.ROOT} or not need.filesystems, need
        assert list(made.needs(facts)) == needs

    def test_needs_count_the_boot_files(self, made: Bootloader, offered: Any) -> None:
        """A kernel of 40 MiB needs 40 MiB more room than one of a few bytes, less what rounding already took."""
        kind = min(offered.entries)
        small = self.facts_of(offered, self.image_files)
        large = self.facts_of(offered, self.image_files, artifacts=heavier(small.artifacts, kind, 40 * MEBIBYTE))
        needs = [sum(need.bytes_needed for need in made.needs(facts)) for facts in (small, large)]
        root_holds_them = not {need.volume for need in made.needs(small)} & {Volume.ESP, Volume.XBOOTLDR, Volume.BOOT}
        assert root_holds_them or needs[1] - needs[0] >= 39 * MEBIBYTE

    def test_accepts_an_image_that_fits(self, made: Bootloader, offered: Any) -> None:
        """No error is found where there is none: with all declared firmware, and with each alone."""
        for firmware in (offered.firmware, *(frozenset({each}) for each in offered.firmware)):
            findings = made.check(self.facts_of(offered, self.image_files, firmware=firmware))
            assert [finding.message for finding in findings if finding.severity is Severity.ERROR] == []

    def test_finds_that_the_loader_is_missing(self, made: Bootloader, offered: Any) -> None:
        """An image without the loader's files is an error before anything is written."""
        if not self.image_files:
            pytest.skip("this loader takes nothing from the image (no image_files are given)")
        self.is_refused(made.check(self.facts_of(offered, {"/etc/os-release": "ID=empty\n"})))

    def test_finds_that_the_firmware_does_not_fit(self, made: Bootloader, offered: Any) -> None:
        """Firmware that was not declared is an error, alone and beside firmware that was."""
        combinations = (set(each) for count in range(1, 4) for each in itertools.combinations(Firmware, count))
        for firmware in combinations:
            if firmware - offered.firmware:
                facts = self.facts_of(offered, self.image_files, firmware=frozenset(firmware))
                self.is_refused(made.check(facts))

    def test_markers_are_files_of_the_image(self, offered: Any) -> None:
        """What suggests this loader is in an image that it can be installed from."""
        if not (self.image_files and offered.marker_paths):
            pytest.skip("not declared: marker_paths")
        found = [path for path in self.image_files if any(matches(path, each) for each in offered.marker_paths)]
        assert found, "no marker path matches any of the image's files"

    def test_needs_hold_what_is_put_there(self, made: Bootloader, offered: Any, kind: EntryKind) -> None:
        """A loader and boot files of 7 MiB each fit into the room that was asked for."""
        light = self.facts_of(offered, self.image_files)
        actions = made.plan_install(self.empty_disk(made, light), light)
        copied = {read_all(action.source) for action in actions if isinstance(action, CopyObject)}
        programs = {data for data in copied if find_pe(data) is not None}
        files = {path: data + bytes(HEAVY) if data in programs else data for path, data in self.image_files.items()}
        entry = deployment("a", kind)
        artifacts = heavier(entry.artifacts, kind, HEAVY)
        facts = self.facts_of(offered, files, artifacts=artifacts)
        if any(finding.severity is Severity.ERROR for finding in made.check(facts)):
            pytest.skip("refused: a loader of 7 MiB")
        disk = self.empty_disk(made, facts)
        planned = [*made.plan_install(disk, facts)]
        planned += self.plan(made, disk, facts, [dataclasses.replace(entry, artifacts=artifacts)])
        for action in planned:
            disk.apply(action)
        needs = {need.volume: need.bytes_needed for need in made.needs(facts)}
        for volume, room in needs.items():
            files_there = {where: data for where, data in files_of(disk).items() if where.volume is volume}
            put_there = sum(len(data) for data in files_there.values())
            assert put_there <= room, f"{volume.name} gets {put_there} bytes, and {room} were asked for"

    def is_refused(self, findings: Sequence[Finding]) -> None:
        """Check that something was found, and that it is told well."""
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        assert errors, "nothing was found"
        for finding in errors:
            assert re.fullmatch(r"[a-z]+(-[a-z]+)*(\.[a-z]+(-[a-z]+)*)+", finding.code), finding
            assert finding.message, finding
            assert finding.hint, f"{finding.code} says nothing about what to do"
            assert finding.origin != "cfs-core", f"{finding.code} does not say which plugin found it (origin)"

    # --- installing the loader ----------------------------------------------------------------

    def test_install_stays_on_the_volumes_it_asked_for(self, made: Bootloader, facts: BootFacts) -> None:
        """Actions go to needed volumes only, at absolute and normalised paths, each with a reason."""
        allowed = {need.volume for need in made.needs(facts)} | facts.volumes
        actions = list(made.plan_install(self.empty_disk(made, facts), facts))
        self.are_well_formed(actions, allowed)

    def test_install_is_pure(self, made: Bootloader, facts: BootFacts) -> None:
        """The same question has the same answer, and asking changes nothing."""
        disk = self.empty_disk(made, facts)
        plans = [told(made.plan_install(disk, facts)) for _ in range(2)]
        assert plans[0] == plans[1]
        assert plans[0], "nothing is installed on an empty disk"
        assert files_of(disk) == {}

    def test_install_adds_no_entry(self, made: Bootloader, disk: MemoryTarget) -> None:
        """The menu is written last, by core: after installing there are no entries yet."""
        assert [entry.title for entry in made.read_menu(disk).entries] == []

    @optional(lambda provider: Firmware.UEFI in provider.firmware, "firmware uefi")
    def test_firmware_finds_the_loader(self, made: Bootloader, offered: Any) -> None:
        """Firmware starts ``EFI/BOOT/BOOT<arch>.EFI`` of a disk it does not know: a program for that architecture.

        Every architecture for which nothing wrong is found with the image is tried.
        """
        for architecture in Architecture:
            files = self.image_files_for(architecture) or self.image_files
            facts = self.facts_of(offered, files, firmware=frozenset({Firmware.UEFI}), architecture=architecture)
            errors = [finding.message for finding in made.check(facts) if finding.severity is Severity.ERROR]
            if errors:
                assert architecture is not self.architecture, errors
                continue
            disk = self.empty_disk(made, facts)
            for action in made.plan_install(disk, facts):
                disk.apply(action)
            location = architecture.removable_program
            assert disk.exists(location), f"{location} is not there: firmware of {architecture} finds nothing to start"
            data = disk.read(location)
            if not data:  # what a command makes is not there
                continue
            program = find_pe(data)
            assert program is not None, f"{location} is no EFI program (cfs_testkit.layouts makes some)"
            assert program.architecture is architecture, f"{location} is a program for another architecture"

    def test_install_again_destroys_nothing(self, made: Bootloader, disk: MemoryTarget, facts: BootFacts) -> None:
        """Installing over itself is an update: nothing is removed, and a menu survives it."""
        kind = facts.artifacts.kind if facts.artifacts else EntryKind.BLS
        self.change(made, disk, facts, [deployment("a", kind)])
        actions = list(made.plan_install(disk, facts))
        removed = [a for a in actions if isinstance(a, RemovePath)]
        assert removed == []
        for action in actions:
            disk.apply(action)
        assert self.shown(made, disk) == "a"

    def test_install_ignores_the_running_machine(self, made: Bootloader, facts: BootFacts) -> None:
        """A disk that may boot anywhere gets no firmware variables; commands state what they write."""
        assert facts.generic
        for action in made.plan_install(self.empty_disk(made, facts), facts):
            assert not isinstance(action, SetEfiVariable), f"{action.name} is set on the machine that builds"
            if isinstance(action, RunCommand):
                assert action.argv, action
                assert action.writes, f"{action.argv[0]} does not state what it writes"
