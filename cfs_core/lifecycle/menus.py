"""Wanted menus: what a machine should offer after a change. Nothing here knows a loader."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.errors import StateError
from cfs_core.model.boot import BootMenu, EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.lifecycle.machine import Machine
    from cfs_core.model.boot import BootEntry


ADDON_HINT = "add an addon with them that is signed like it: cfs kargs add --uki-addon DIR/NAME.addon.efi"


def with_new(machine: Machine, entry: BootEntry, *, keep: int) -> BootMenu:
    """Return the menu in which *entry* comes first and starts by itself.

    What runs comes second: it is what one goes back to. Of the others as many stay as make *keep* together, and all
    that are pinned.
    """
    running, pinned = machine.running.booted, machine.records.pinned
    others = [each for each in machine.entries if each.deployment_id not in {running, entry.deployment_id}]
    before = [each for each in machine.entries if each.deployment_id == running != entry.deployment_id]
    entries = [entry, *before]
    for each in others:
        if len(entries) < keep or each.deployment_id in pinned:
            entries.append(each)
    return _menu(machine, entries)


def dropped(machine: Machine, menu: BootMenu) -> tuple[str, ...]:
    """Return the deployments that *menu* offers no more."""
    kept = {entry.deployment_id for entry in menu.entries}
    return tuple(entry.deployment_id for entry in machine.entries if entry.deployment_id not in kept)


def unchanged(machine: Machine) -> BootMenu:
    """Return the menu as it is."""
    return _menu(machine, list(machine.entries), machine.default)


def with_first(machine: Machine, identity: str) -> BootMenu:
    """Return the menu in which deployment *identity* comes first and starts by itself.

    Raises:
        StateError: it has no entry.
    """
    first = _entry(machine, identity)
    return _menu(machine, [first, *(each for each in machine.entries if each.deployment_id != identity)])


def without(machine: Machine, identities: Iterable[str]) -> BootMenu:
    """Return the menu without some deployments; what starts by itself stays unless it is one of them.

    Raises:
        StateError: nothing would be left.
    """
    gone = frozenset(identities)
    left = [each for each in machine.entries if each.deployment_id not in gone]
    if not left:
        msg = "no deployment would be left in the boot menu"
        raise StateError(msg, hint="`cfs deployments list` shows which there are")
    default = machine.default
    return _menu(machine, left, default if default not in gone else None)


def with_entry(machine: Machine, changed: BootEntry) -> BootMenu:
    """Return the menu with *changed* in the place of the entry of its deployment.

    Raises:
        StateError: it has no entry.
    """
    _entry(machine, changed.deployment_id)
    entries = [changed if each.deployment_id == changed.deployment_id else each for each in machine.entries]
    return _menu(machine, entries, machine.default)


def with_arguments(machine: Machine, identity: str, arguments: tuple[str, ...]) -> BootMenu:
    """Return the menu in which deployment *identity* has these kernel arguments.

    Raises:
        StateError: it has no entry, or is a unified kernel image, whose command line is sealed.
    """
    entry = _entry(machine, identity)
    if entry.kind is EntryKind.UKI:
        msg = "the kernel arguments of a unified kernel image are sealed in it"
        raise StateError(msg, hint=ADDON_HINT, code="boot.karg-sealed")
    return with_entry(machine, replace(entry, arguments=arguments))


def _entry(machine: Machine, identity: str) -> BootEntry:
    found = next((each for each in machine.entries if each.deployment_id == identity), None)
    if found is None:
        msg = f"deployment {identity:.16} has no boot entry"
        raise StateError(msg, hint="`cfs status` shows what can be started")
    return found


def _menu(machine: Machine, entries: list[BootEntry], default: str | None = None) -> BootMenu:
    """Foreign entries are the loader's to keep; one of them stays the default only where nobody says otherwise."""
    first = entries[0].deployment_id
    goal = default if default is not None else first
    return BootMenu(entries=tuple(entries), default=None if goal == first and machine.menu.default is None else goal)
