"""A target in memory above another one that can only be read: what would be there after some actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.model.action import ExchangePaths, MakeHardLink, RemovePath, RenamePath, WriteFile
from cfs_core.model.disk import Location
from cfs_core.target.memory import MemoryTarget

if TYPE_CHECKING:
    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.action import Action
    from cfs_core.model.disk import Partition, Volume


class OverlayTarget(MemoryTarget):
    """A `MemoryTarget` that begins as *below*, which is never written. Files are taken from there when they are needed.

    Commands are not run; their outputs are empty files.
    """

    def __init__(self, below: TargetView) -> None:
        super().__init__(volumes=below.volumes())
        self._below = below
        self._gone: set[Location] = set()
        """Paths of *below* that are hidden, with everything beneath them."""

    def partition(self, volume: Volume) -> Partition | None:
        """Return where *volume* lives."""
        return self._below.partition(volume)

    def read(self, location: Location) -> bytes:
        """Return a file's bytes."""
        if super().exists(location) or not self._shines_through(location):
            return super().read(location)
        return self._below.read(location)

    def names(self, location: Location) -> tuple[str, ...]:
        """Return sorted names in a directory; empty if there is none."""
        names = set(super().names(location))
        if self._shines_through(location):
            names |= {name for name in self._below.names(location) if location / name not in self._gone}
        return tuple(sorted(names))

    def exists(self, location: Location) -> bool:
        """Return whether anything is there."""
        return super().exists(location) or (self._shines_through(location) and self._below.exists(location))

    def apply(self, action: Action) -> None:
        """Do what *action* says.

        Raises:
            DiskError: it cannot be done where it comes.
        """
        match action:
            case RenamePath():
                moved = [action.source]
            case ExchangePaths():
                moved = [action.a, action.b]
            case MakeHardLink():
                moved = [action.existing]
            case WriteFile():
                moved = [action.location] if action.in_place else []
            case _:
                moved = []
        for location in moved:
            self._take(location)
        super().apply(action)
        if isinstance(action, RemovePath):
            self._gone.add(action.location)
        elif isinstance(action, RenamePath):
            self._gone |= {action.source, action.location}
        elif isinstance(action, ExchangePaths):
            self._gone |= {action.a, action.b}

    def copy(self) -> OverlayTarget:
        """Return an independent copy above the same target."""
        result = OverlayTarget(self._below)
        result._volumes = {volume: tree.copy() for volume, tree in self._volumes.items()}
        result._blocks = {volume: list(blocks) for volume, blocks in self._blocks.items()}
        result.efi_variables = dict(self.efi_variables)
        result._gone = set(self._gone)
        return result

    def _shines_through(self, location: Location) -> bool:
        if location.volume not in self._below.volumes():
            return False
        parts = location.path.strip("/").split("/")
        above = (Location(location.volume, "/" + "/".join(parts[:count])) for count in range(1, len(parts) + 1))
        return not any(place in self._gone for place in above)

    def _take(self, location: Location) -> None:
        """Bring what *below* has at *location*, and beneath it, into memory."""
        if not self._shines_through(location):
            return
        for name in self._below.names(location):
            self._take(location / name)
        if super().exists(location):
            return
        try:
            data = self._below.read(location)
        except (FileNotFoundError, IsADirectoryError):
            return
        super().apply(WriteFile(location=location, data=data, why="is there"))
