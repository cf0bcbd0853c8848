"""Whether boot files fit: looked at before anything is fetched, and again when their sizes are known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.errors import DiskFullError
from cfs_core.model.action import CopyObject
from cfs_core.report.progress import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from cfs_core.lifecycle.machine import Machine
    from cfs_core.model.action import Action
    from cfs_core.model.disk import Location, Volume
    from cfs_core.model.manifest import ResolvedImage

_CLUSTER = 32 * 1024
"""Bytes; what files on FAT take is rounded up to at most this."""

MARGIN = 1 << 20
"""Bytes beside boot files, for entries and directories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Bytes on one volume."""

    volume: Volume
    needed: int
    free: int


def check_before(
    machine: Machine, roots: Mapping[Volume, Path], image: ResolvedImage, kernel_layer: Callable[[], str | None]
) -> None:
    """Look whether another kernel would fit beside those that are there, as large as the one that runs.

    Where it would not, *kernel_layer* tells which layer (diff-id) of the running image brought the kernel: an image
    that has that layer, too, most likely has the same kernel, and nothing will be copied.

    Raises:
        DiskFullError: it would not.
    """
    entry = machine.booted.boot_entry if machine.booted is not None else None
    if entry is None or not entry.files or entry.files[0].volume not in roots:
        return
    volume = entry.files[0].volume
    needed = sum(_size(roots, location) for location in entry.files)
    room = Room(volume=volume, needed=needed, free=free_bytes(roots[volume]))
    if room.needed > room.free and kernel_layer() not in {str(each) for each in image.config.diff_ids}:
        _check([room], about=True)


def check_exact(actions: Iterable[Action], roots: Mapping[Volume, Path]) -> tuple[Room, ...]:
    """Look whether the boot files among *actions* fit; return what they take.

    Raises:
        DiskFullError: they do not.
    """
    needed: dict[Volume, int] = {}
    for action in actions:
        if isinstance(action, CopyObject):
            volume = action.location.volume
            needed[volume] = needed.get(volume, 0) + _rounded(action.source.size)
    rooms = tuple(
        Room(volume=volume, needed=count + MARGIN, free=free_bytes(roots[volume])) for volume, count in needed.items()
    )
    _check(rooms, about=False)
    return rooms


def free_bytes(path: Path) -> int:
    """Return the bytes that are free on the filesystem of *path*."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _check(rooms: Iterable[Room], *, about: bool) -> None:
    for room in rooms:
        if room.needed > room.free:
            name = "the EFI system partition" if room.volume.value == "esp" else f"volume {room.volume.name}"
            word = "about " if about else ""
            msg = f"{name} has {human_bytes(room.free)} free, and boot files of the new image take {word}"
            msg += human_bytes(room.needed)
            hint = "make room with `cfs gc`, or `cfs deployments remove ID`; nothing was changed"
            if about:
                hint += ". If its kernel is the one that runs, go on with `cfs upgrade --download-only`, which looks"
            raise DiskFullError(msg, hint=hint, facts={"needed": room.needed, "available": room.free})


def _size(roots: Mapping[Volume, Path], location: Location) -> int:
    try:
        return _rounded((roots[location.volume] / location.path.lstrip("/")).stat().st_size)
    except (OSError, KeyError):
        return 0


def _rounded(size: int) -> int:
    return -(-size // _CLUSTER) * _CLUSTER
