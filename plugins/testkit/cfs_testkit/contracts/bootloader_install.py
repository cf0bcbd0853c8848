"""Checks of what a bootloader needs, finds, and puts on a disk before there is a menu."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from cfs_core.plugin import (
    BootFacts,
    Bootloader,
    EntryKind,
    Finding,
    Firmware,
    RemovePath,
    RunCommand,
    SetEfiVariable,
    Severity,
    Volume,
)
from cfs_core.testing import MemoryTarget
from cfs_testkit.contracts.bootloader_setting import BootloaderSetting, heavier, told
from cfs_testkit.disks import files_of
from cfs_testkit.trees import deployment

if TYPE_CHECKING:
    from collections.abc import Sequence


MEBIBYTE = 1 << 20


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
        """Firmware that was not declared is an error."""
        for firmware in set(Firmware) - offered.firmware:
            self.is_refused(made.check(self.facts_of(offered, self.image_files, firmware=frozenset({firmware}))))

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
