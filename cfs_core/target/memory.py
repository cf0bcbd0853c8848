"""A target that exists only in memory: for plans, dry runs, tests, and what would be there after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import DiskError
from cfs_core.model.action import (
    ExchangePaths,
    MakeHardLink,
    RenamePath,
    RunCommand,
    SetEfiVariable,
    WriteBlocks,
)
from cfs_core.model.content import read_all
from cfs_core.model.disk import MBR_CODE_BYTES, RAW, Location, Volume
from cfs_core.target.run_command import resolved, run_command
from cfs_core.target.volume import HINT, VolumeContents

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cfs_core.interfaces.context import CommandRunner
    from cfs_core.model.action import Action, PlacingAction
    from cfs_core.model.disk import Partition


class MemoryTarget:
    """A `TargetView` that actions can be applied to; without partitions, every volume that is written to exists.

    With ``commands`` None nothing is run: outputs of a `RunCommand` are then empty files, which is right for a dry run.
    ``host_tools`` False refuses every `RunCommand`.
    """

    def __init__(
        self,
        partitions: Iterable[Partition] = (),
        *,
        volumes: Iterable[Volume] = (),
        commands: CommandRunner | None = None,
        scratch: Path | None = None,
        host_tools: bool = True,
    ) -> None:
        self._partitions = {partition.volume: partition for partition in partitions}
        self._named = frozenset(volumes) | frozenset(self._partitions)
        self._volumes: dict[Volume, VolumeContents] = {}
        self._blocks: dict[Volume, list[tuple[int, bytes]]] = {}
        self._commands = commands
        self._scratch = scratch
        self._host_tools = host_tools
        self.efi_variables: dict[tuple[str, str], bytes] = {}
        """Values by (GUID, name)."""

    # --- TargetView ---------------------------------------------------------------------------

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions it was made with, by number."""
        return tuple(sorted(self._partitions.values(), key=lambda partition: partition.number))

    @property
    def runs_nothing(self) -> bool:
        """Whether commands leave empty files here instead of what they would make."""
        return self._commands is None

    def volumes(self) -> frozenset[Volume]:
        """Return the volumes that exist."""
        return self._named | frozenset(self._volumes) | frozenset(self._blocks)

    def partition(self, volume: Volume) -> Partition | None:
        """Return where *volume* lives."""
        return self._partitions.get(volume)

    def read(self, location: Location) -> bytes:
        """Return a file's bytes, or what was written to a raw volume."""
        if location.volume in self._blocks:
            return self._joined(location.volume)
        return read_all(self._tree(location.volume).content(location.path))

    def names(self, location: Location) -> tuple[str, ...]:
        """Return sorted names in a directory; empty if there is none."""
        return self._tree(location.volume).names(location.path)

    def exists(self, location: Location) -> bool:
        """Return whether anything is there."""
        return self._tree(location.volume).exists(location.path)

    # --- applying -----------------------------------------------------------------------------

    def apply(self, action: Action) -> None:
        """Do what *action* says.

        Raises:
            DiskError: it cannot be done where it comes.
            RefusedError: a `RunCommand` where host tools are forbidden.
            CommandError: a command failed.
        """
        for done in self.resolved(action):
            match done:
                case WriteBlocks():
                    self._write_blocks(done.location, done.offset, done.data)
                case SetEfiVariable():
                    self.efi_variables[done.guid, done.name] = done.data
                case _:
                    self._tree(_one_volume(done), create=True).apply(done)

    def resolved(self, action: Action) -> tuple[Action, ...]:
        """Return *action*; for a `RunCommand` run it, once, and return what writes its outputs.

        Raises:
            RefusedError: a `RunCommand` where host tools are forbidden.
            CommandError: a command failed.
            DiskError: its inputs are not there, or its outputs are not.
        """
        return resolved(action, self._run, host_tools=self._host_tools)

    def _run(self, action: RunCommand) -> dict[Location, bytes]:
        if self._commands is None:
            return dict.fromkeys(action.writes, b"")
        return run_command(action, self, self._commands, scratch=self._scratch)

    def lay_out(self, partitions: Iterable[Partition]) -> None:
        """Say which partitions there are, once that is known; what is on a volume already stays."""
        self._partitions = {partition.volume: partition for partition in partitions}
        self._named |= frozenset(self._partitions)
        for volume, tree in self._volumes.items():
            tree.folded = self._folds(volume)

    def contents(self, volume: Volume) -> dict[str, PlacingAction]:
        """Return what *volume* holds by absolute path, parents first."""
        return self._tree(volume).contents()

    def blocks(self, volume: Volume) -> tuple[tuple[int, bytes], ...]:
        """Return (offset, bytes) written to a raw volume, in order."""
        return tuple(self._blocks.get(volume, ()))

    def _joined(self, volume: Volume) -> bytes:
        data = bytearray()
        for offset, piece in self._blocks[volume]:
            data.extend(bytes(max(0, offset + len(piece) - len(data))))
            data[offset : offset + len(piece)] = piece
        return bytes(data)

    def copy(self) -> MemoryTarget:
        """Return an independent copy."""
        result = MemoryTarget(
            self._partitions.values(),
            volumes=self._named,
            commands=self._commands,
            scratch=self._scratch,
            host_tools=self._host_tools,
        )
        result._volumes = {volume: tree.copy() for volume, tree in self._volumes.items()}
        result._blocks = {volume: list(blocks) for volume, blocks in self._blocks.items()}
        result.efi_variables = dict(self.efi_variables)
        return result

    def _tree(self, volume: Volume, *, create: bool = False) -> VolumeContents:
        tree = self._volumes.get(volume)
        if tree is not None:
            return tree
        if create and (volume in RAW or (self._partitions and volume not in self._partitions)):
            what = "has no filesystem" if volume in RAW else "does not exist on this target"
            msg = f"a file cannot be made on {volume.name}: that volume {what}"
            raise DiskError(msg, hint="the plugin that planned it did not declare what it needs")
        tree = VolumeContents(volume)
        tree.folded = self._folds(volume)
        if create:
            self._volumes[volume] = tree
        return tree

    def _folds(self, volume: Volume) -> bool:
        """Return whether *volume* has FAT, to which letter case is nothing; an ESP has no other filesystem."""
        partition = self._partitions.get(volume)
        return volume is Volume.ESP if partition is None else partition.filesystem == "vfat"

    def _write_blocks(self, location: Location, offset: int, data: bytes) -> None:
        volume = location.volume
        partition = self._partitions.get(volume)
        if volume not in RAW or (self._partitions and volume is not Volume.DISK and partition is None):
            msg = f"blocks cannot be written to {volume.name}"
            raise DiskError(msg, hint=HINT)
        room = MBR_CODE_BYTES if volume is Volume.DISK else partition.size if partition else offset + len(data)
        if offset < 0 or offset + len(data) > room:
            msg = f"{len(data)} bytes at {offset} do not fit {volume.name}: it has {room}"
            raise DiskError(msg, hint=HINT)
        self._blocks.setdefault(volume, []).append((offset, data))


def _one_volume(action: Action) -> Volume:
    location: Location = action.a if isinstance(action, ExchangePaths) else action.location  # type: ignore[attr-defined]  # the rest has one
    other = location
    match action:
        case MakeHardLink():
            other = action.existing
        case RenamePath():
            other = action.source
        case ExchangePaths():
            other = action.b
    if other.volume is not location.volume:
        msg = f"{location} and {other} are on different volumes"
        raise DiskError(msg, hint=HINT)
    return location.volume
