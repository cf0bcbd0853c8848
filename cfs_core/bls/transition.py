"""From the entry files there are to those that are wanted, one whole file at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.bls.names import ENTRY_PREFIX, EntryName
from cfs_core.model.action import Action, Effect, RemovePath, WriteFile
from cfs_core.model.disk import Location

if TYPE_CHECKING:
    from collections.abc import Mapping

Files = dict[Location, tuple[str, bytes]]
"""Entry files: the deployment each one boots, and its bytes."""


def plan_entries(have: Mapping[Location, tuple[str, bytes]], want: Files) -> tuple[list[Action], list[Action]]:
    """Return writes and then removals that turn *have* into *want*; other files may stand between the two.

    After every action each deployment that is in both still has an entry: where names must be swapped, one of them
    gets a second entry for the time between. The best entry of *want* (its first) is written last.
    """
    disk: Files = dict(have)
    kept = {deployment for deployment, _ in want.values()}
    # Worst first: until the best is written the old default starts, and from then on all others are there to fall back
    # to.
    pending = [location for location in reversed(want) if have.get(location) != want[location]]
    writes: list[Action] = []

    def write(location: Location, file: tuple[str, bytes], why: str) -> None:
        effect = Effect.REPLACE if location in disk else Effect.ADD
        disk[location] = file
        name = EntryName.parse(location.path.rpartition("/")[2])
        counted = name is not None and name.tries_left is not None
        writes.append(WriteFile(location=location, data=file[1], why=why, effect=effect, volatile=counted))

    def replaceable(location: Location) -> bool:
        if location not in disk:
            return True
        deployment = disk[location][0]
        elsewhere = any(other == deployment for place, (other, _) in disk.items() if place != location)
        return deployment not in kept or deployment == want[location][0] or elsewhere

    while pending:
        location = next((place for place in pending if replaceable(place)), None)
        if location is None:
            blocked = pending[0]
            directory = Location(blocked.volume, blocked.path.rpartition("/")[0])
            number = next(n for n in range(len(disk) + 1) if _stash(directory, n) not in disk)
            write(_stash(directory, number), disk[blocked], "keeps this choice while names are swapped")
            continue
        write(location, want[location], "entry of the boot menu")
        pending.remove(location)
    removals: list[Action] = [
        RemovePath(location=location, why="entry is replaced or no longer wanted")
        for location in disk
        if location not in want
    ]
    return writes, removals


def _stash(directory: Location, number: int) -> Location:
    return directory / f"{ENTRY_PREFIX}swap-0-{number}.conf"
