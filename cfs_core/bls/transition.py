"""From the entry files there are to those that are wanted, one whole file at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.bls.names import ENTRY_PREFIX, EntryName, guard_stem
from cfs_core.model.action import Action, RemovePath, WriteFile
from cfs_core.model.disk import Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuFile:
    """An entry file as it is, or as it is to be, and the deployment that it boots."""

    location: Location
    deployment_id: str
    data: bytes = field(repr=False)


def plan_entries(have: Iterable[MenuFile], want: Sequence[MenuFile]) -> tuple[list[Action], list[Action]]:
    """Return writes and then removals that turn *have* into *want*, best first; other files may stand between the two.

    After every action each deployment that is in both still has an entry: where names must be swapped, one of them
    gets a second entry for the time between. The best entry is written last.
    """
    disk = {file.location: file for file in have}
    wanted = {file.location: file for file in want}
    kept = {file.deployment_id for file in want}
    # Worst first: until the best is written the old default starts, and from then on all others are there to fall back
    # to.
    pending = [location for location in reversed(wanted) if disk.get(location) != wanted[location]]
    writes: list[Action] = []

    def write(location: Location, file: MenuFile, why: str) -> None:
        disk[location] = file
        name = EntryName.parse(location.path.rpartition("/")[2])
        counted = name is not None and name.tries_left is not None
        writes.append(WriteFile(location=location, data=file.data, why=why, volatile=counted))

    def replaceable(location: Location) -> bool:
        if location not in disk:
            return True
        deployment = disk[location].deployment_id
        elsewhere = any(file.deployment_id == deployment for place, file in disk.items() if place != location)
        return deployment not in kept or deployment == wanted[location].deployment_id or elsewhere

    while pending:
        location = next((place for place in pending if replaceable(place)), None)
        if location is None:
            blocked = pending[0]
            directory = Location(blocked.volume, blocked.path.rpartition("/")[0])
            number = next(n for n in range(len(disk) + 1) if _stash(directory, n) not in disk)
            write(_stash(directory, number), disk[blocked], "keeps this choice while names are swapped")
            continue
        write(location, wanted[location], "entry of the boot menu")
        pending.remove(location)
    removals: list[Action] = [
        RemovePath(location=location, why="entry is replaced or no longer wanted")
        for location in disk
        if location not in wanted
    ]
    return writes, removals


def _stash(directory: Location, number: int) -> Location:
    return directory / f"{ENTRY_PREFIX}swap-0-{number}.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedChange:
    """A change of entry files during which the old default has a name of its own.

    Names of entry files move from one deployment to another, and what a loader keeps as its default is a name.
    """

    stem: str | None
    """Name of the guarding entry, without suffix; None where the old default is no entry file of ours."""

    _guard: tuple[Action, ...]
    _writes: tuple[Action, ...]
    _removals: tuple[Action, ...]
    _unguard: tuple[Action, ...]

    def actions(
        self, *, hold: Sequence[Action], between: Sequence[Action] = (), settle: Sequence[Action]
    ) -> list[Action]:
        """Return all steps. *hold* makes the guard the default, *settle* what is wanted.

        *between* comes when the new entry files are there and the old ones are not gone yet.
        """
        return [*self._guard, *hold, *self._writes, *between, *self._removals, *settle, *self._unguard]


def guard_default(
    have: Sequence[MenuFile], want: Sequence[MenuFile], default: str, directory: Location
) -> GuardedChange:
    """Return the change from *have* to *want* with the entry of deployment *default* kept until its last step.

    *directory* is where the guarding entry goes.
    """
    data = next((file.data for file in have if file.deployment_id == default), None)
    stem = guard_stem(default)
    guard = MenuFile(location=directory / f"{stem}.conf", deployment_id=default, data=data or b"")
    there = [file for file in have if data is None or file.location != guard.location]
    writes, removals = plan_entries([*there, *([] if data is None else [guard])], want)
    new = data is not None and all(file.location != guard.location for file in have)
    last = [action for action in removals if isinstance(action, RemovePath) and action.location == guard.location]
    return GuardedChange(
        stem=None if data is None else stem,
        _guard=(WriteFile(location=guard.location, data=guard.data, why="keeps the default while names change"),)
        if new
        else (),
        _writes=tuple(writes),
        _removals=tuple(action for action in removals if action not in last),
        _unguard=tuple(last) if data is not None else (),
    )
