"""What is on a target in memory, as a dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import CopyObject, Location, Partition, Volume, WriteFile, read_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfs_core.testing import MemoryTarget


def files_of(target: MemoryTarget) -> dict[Location, bytes]:
    """Return all regular files and their bytes."""
    found: dict[Location, bytes] = {}
    for volume in target.volumes():
        for path, action in target.contents(volume).items():
            if isinstance(action, WriteFile):
                found[Location(volume, path)] = action.data
            elif isinstance(action, CopyObject):
                found[Location(volume, path)] = read_all(action.source)
    return found


def put(target: MemoryTarget, location: Location, data: bytes) -> None:
    """Put a file there, as somebody else would have."""
    target.apply(WriteFile(location=location, data=data, why="was there before"))


def partitions_for(volumes: Mapping[Volume, Sequence[str]], root_filesystem: str) -> tuple[Partition, ...]:
    """Return partitions of 1 GiB for *volumes* (filesystem names, best first, by volume) and the root volume."""
    wanted = {**volumes, Volume.ROOT: (root_filesystem,)}
    wanted.pop(Volume.DISK, None)
    return tuple(
        Partition(
            number=number,
            volume=volume,
            start=number << 30,
            size=1 << 30,
            type_guid="00000000-0000-0000-0000-000000000001",
            uuid=f"00000000-0000-0000-0000-{number:012x}",
            name=volume.value,
            filesystem=filesystems[0] if filesystems else None,
            fs_uuid=f"0000-{number:04X}" if "vfat" in filesystems else f"10000000-0000-0000-0000-{number:012x}",
        )
        for number, (volume, filesystems) in enumerate(sorted(wanted.items()), start=1)
    )
