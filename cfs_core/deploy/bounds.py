"""Where the actions of a plugin may write, checked when the plan is made: before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.errors import DiskError
from cfs_core.model.action import (
    CopyObject,
    ExchangePaths,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    RemovePath,
    RenamePath,
    RunCommand,
    SetEfiVariable,
    WriteBlocks,
    WriteFile,
)
from cfs_core.model.boot import Firmware
from cfs_core.model.disk import Volume
from cfs_core.target.effect import with_effect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cfs_core.interfaces.bootloader import BootFacts
    from cfs_core.model.action import Action
    from cfs_core.model.disk import Location, VolumeNeed
    from cfs_core.pluginhost.registry import PluginId
    from cfs_core.target.memory import MemoryTarget

BOOT = "/boot"
"""What a bootloader may use of the root volume; the rest belongs to storage and state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The volumes one provider may write to, and the directory that is its on the root volume."""

    provider: str
    """``bootloader 'grub'``, for messages."""

    owner: PluginId
    volumes: frozenset[Volume]
    directory: str

    @classmethod
    def of_bootloader(cls, name: str, owner: PluginId, needs: Iterable[VolumeNeed], facts: BootFacts) -> Bounds:
        """Allow what the loader declared, what was asked for, and the boot code of a disk for BIOS."""
        volumes = frozenset(need.volume for need in needs) | facts.volumes
        if Firmware.BIOS in facts.firmware:
            volumes |= {Volume.DISK}
        return cls(provider=f"bootloader {name!r}", owner=owner, volumes=volumes, directory=BOOT)

    @classmethod
    def of_storage(cls, name: str, owner: PluginId, repository: Location) -> Bounds:
        """Allow the repository and nothing else."""
        volumes = frozenset({repository.volume})
        return cls(provider=f"storage format {name!r}", owner=owner, volumes=volumes, directory=repository.path)

    def apply(self, actions: Sequence[Action], target: MemoryTarget) -> tuple[Action, ...]:
        """Apply *actions* in order; return them, with their effects and with what commands made in their place.

        Commands stay what they are where *target* runs none.

        Raises:
            PluginError: one is outside, or cannot be done where it comes; the message names the plugin.
            CfsError: a command failed, or host tools are forbidden.
        """
        done: list[Action] = []
        for action in actions:
            problem = self._problem(action)
            if problem:
                msg = f"the {self.provider} of {self.owner} {problem}"
                raise self.owner.fault(msg)
            try:
                asked = with_effect(action, target)
                told = [with_effect(made, target) for made in target.resolved(asked)]
                for made in told:
                    target.apply(made)
                done += [asked] if target.runs_nothing else told
            except DiskError as cause:
                msg = f"the {self.provider} of {self.owner} planned what cannot be done: {cause.message}"
                raise self.owner.fault(msg, facts=cause.facts) from cause
        return tuple(done)

    def check(self, actions: Sequence[Action]) -> None:
        """Look whether *actions*, meant for a machine that runs, are inside; there firmware variables are its own.

        Raises:
            PluginError: one is outside; the message names the plugin.
        """
        for action in actions:
            problem = None if isinstance(action, SetEfiVariable) else self._problem(action)
            if problem:
                msg = f"the {self.provider} of {self.owner} {problem}"
                raise self.owner.fault(msg)

    def _problem(self, action: Action) -> str | None:
        if isinstance(action, SetEfiVariable):
            return f"sets the firmware variable {action.name} of the machine that makes the disk"
        for location in _written(action):
            if location.volume not in self.volumes:
                declared = ", ".join(sorted(volume.name for volume in self.volumes)) or "none"
                return f"writes to {location}, a volume that it did not ask for (it may use: {declared})"
            if location.volume is Volume.ROOT and not self._is_inside(location.path, action):
                return f"writes to {location}; of the root volume it may use {self.directory} only"
        return None

    def _is_inside(self, path: str, action: Action) -> bool:
        below = path.startswith(f"{self.directory}/")
        return below or (path == self.directory and isinstance(action, MakeDirectory))


def _written(action: Action) -> Iterator[Location]:
    """Yield every location that *action* changes."""
    match action:
        case (
            WriteFile() | CopyObject() | MakeDirectory() | MakeSymlink() | MakeSpecial() | RemovePath() | WriteBlocks()
        ):
            yield action.location
        case MakeHardLink():
            yield from (action.location, action.existing)
        case RenamePath():
            yield from (action.location, action.source)
        case ExchangePaths():
            yield from (action.a, action.b)
        case RunCommand():
            yield from action.writes
