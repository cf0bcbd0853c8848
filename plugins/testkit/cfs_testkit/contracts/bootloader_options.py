"""Checks of what not every loader can express: default, counting, one-shot choice, timeout, addons."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from cfs_core.plugin import (
    BootError,
    BootFacts,
    Bootloader,
    BytesContent,
    Capability,
    EntryKind,
    SetEfiVariable,
    UkiAddon,
)
from cfs_core.testing import MemoryTarget
from cfs_testkit.contracts.base import optional
from cfs_testkit.contracts.bootloader_setting import BootloaderSetting
from cfs_testkit.disks import files_of
from cfs_testkit.trees import ID_LENGTH, deployment

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class OptionChecks(BootloaderSetting):
    """Kept where it is declared, else refused with BootError; never lost in silence."""

    def unless_undeclared(self, offered: Any, capability: Capability, change: Callable[[], T]) -> T:
        """Do *change*; where the provider does not declare *capability*, it must be refused."""
        if capability in offered.can:
            return change()
        with pytest.raises(BootError):
            change()
        pytest.skip(f"not declared: {capability}")

    def test_a_default_that_is_not_first(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind, offered: Any
    ) -> None:
        """A named default is kept beside the order, and can be taken back."""
        menu = self.unless_undeclared(
            offered,
            Capability.DEFAULT,
            lambda: self.change(made, disk, facts, self.wanted(made, disk, "ba", kind), default="a" * ID_LENGTH),
        )
        default = self.default(made, disk)
        assert default is not None
        assert default.deployment_id[0] == "a", menu
        assert self.shown(made, disk) == "ba"
        self.change(made, disk, facts, self.own(made, disk))
        default = self.default(made, disk)
        assert default is not None
        assert default.deployment_id[0] == "b"

    def test_a_default_that_does_not_exist_is_refused(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind
    ) -> None:
        """A menu whose default is none of its entries is an error of class BootError."""
        with pytest.raises(BootError):
            self.plan(made, disk, facts, [deployment("a", kind)], default="f" * ID_LENGTH)

    def test_boot_counting_is_kept_or_refused(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind, offered: Any
    ) -> None:
        """Tries left are read back, or the plan fails with BootError; they are not lost in silence."""
        self.unless_undeclared(
            offered,
            Capability.TRIES,
            lambda: self.change(made, disk, facts, [deployment("a", kind, tries_left=3)]),
        )
        (entry,) = self.own(made, disk)
        assert entry.tries_left == 3
        self.change(made, disk, facts, [dataclasses.replace(entry, tries_left=None)])
        (entry,) = self.own(made, disk)
        assert entry.tries_left is None
        assert self.missing(disk, entry) is None

    def test_a_one_shot_choice_is_kept_or_refused(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind, offered: Any
    ) -> None:
        """The entry for the next boot only is stored somewhere, or the plan fails with BootError."""
        self.change(made, disk, facts, self.wanted(made, disk, "ba", kind))
        machine = dataclasses.replace(facts, generic=False)
        self.unless_undeclared(
            offered,
            Capability.ONCE,
            lambda: self.plan(made, disk, machine, self.own(made, disk), once="a" * ID_LENGTH),
        )
        for generic in (True, False):
            state = disk.copy()
            try:
                actions = self.plan(
                    made,
                    state,
                    dataclasses.replace(facts, generic=generic),
                    self.own(made, state),
                    once="a" * ID_LENGTH,
                )
            except BootError:
                continue
            assert actions, "the choice for the next boot is lost"
            assert not generic or not [action for action in actions if isinstance(action, SetEfiVariable)]
            for action in actions:
                state.apply(action)
            default = self.default(made, state)
            assert default is not None
            assert default.deployment_id[0] == "b", "a choice for one boot became the default"

    def test_a_timeout_is_kept_or_refused(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts, kind: EntryKind, offered: Any
    ) -> None:
        """The wanted timeout is read back, and stays when nobody wants another one."""
        menu = self.unless_undeclared(
            offered,
            Capability.TIMEOUT,
            lambda: self.change(made, disk, facts, [deployment("a", kind)], timeout_seconds=7),
        )
        assert menu.timeout_seconds == 7
        menu = self.change(made, disk, facts, self.wanted(made, disk, "ba", kind))
        assert menu.timeout_seconds == 7

    def test_kinds_that_were_not_declared_are_refused(
        self,
        made: Bootloader,
        disk: MemoryTarget,
        facts: BootFacts,
        offered: Any,
    ) -> None:
        """An entry of a kind the provider does not declare is a BootError, not a menu that cannot boot."""
        for kind in set(EntryKind) - offered.entries:
            with pytest.raises(BootError):
                self.plan(made, disk, facts, [deployment("a", kind)])

    @optional(lambda provider: EntryKind.UKI in provider.entries, "entries of kind uki")
    def test_arguments_of_a_sealed_kernel_are_not_dropped(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts
    ) -> None:
        """Arguments besides those sealed in a unified kernel image are passed on, or refused with BootError."""
        wanted = deployment("a", EntryKind.UKI)
        extra = dataclasses.replace(wanted, arguments=("quiet", "composefs=" + "a" * ID_LENGTH, "debug"))
        try:
            self.change(made, disk, facts, [extra])
        except BootError:
            return
        (found,) = self.own(made, disk)
        assert "debug" in found.arguments

    @optional(lambda provider: EntryKind.UKI in provider.entries, "entries of kind uki")
    def test_arguments_of_a_kept_sealed_kernel_are_not_dropped(
        self, made: Bootloader, disk: MemoryTarget, facts: BootFacts
    ) -> None:
        """Arguments added to a unified kernel image that is kept are passed on, or refused with BootError."""
        self.change(made, disk, facts, [deployment("a", EntryKind.UKI)])
        (kept,) = self.own(made, disk)
        try:
            self.change(made, disk, facts, [dataclasses.replace(kept, arguments=(*kept.arguments, "debug"))])
        except BootError:
            return
        (found,) = self.own(made, disk)
        assert "debug" in found.arguments, "arguments of an entry that is kept are lost"

    @optional(lambda provider: EntryKind.UKI in provider.entries, "entries of kind uki")
    def test_addons_of_a_sealed_kernel_are_placed(self, made: Bootloader, disk: MemoryTarget, facts: BootFacts) -> None:
        """EFI addons are put beside their unified kernel image, or refused with BootError."""
        entry = deployment("a", EntryKind.UKI)
        assert entry.artifacts is not None
        addon = UkiAddon(name="debug.addon.efi", content=BytesContent(b"MZ addon"))
        artifacts = dataclasses.replace(entry.artifacts, addons=(addon,))
        try:
            self.change(made, disk, facts, [dataclasses.replace(entry, artifacts=artifacts)])
        except BootError:
            return
        places = [location.path for location, data in files_of(disk).items() if data == b"MZ addon"]
        assert len(places) == 1
        assert places[0].endswith("/debug.addon.efi")
