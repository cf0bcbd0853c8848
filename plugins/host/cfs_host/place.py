"""Puts the units into a directory that becomes an image's root."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageRoot

if TYPE_CHECKING:
    from pathlib import Path

UNITS = "usr/lib/systemd/system"

NAMES = (
    "cfs-boot-check.service",
    "cfs-boot-failed.service",
    "cfs-boot-good.service",
    "cfs-boot-ownership.service",
    "cfs-finalize-staged.service",
    "cfs-upgrade-restart.service",
    "cfs-upgrade-restart.timer",
    "cfs-upgrade.service",
    "cfs-upgrade.timer",
)

WANTED = {
    "cfs-boot-check.service": "multi-user.target.wants",
    "cfs-boot-good.service": "multi-user.target.wants",
    "cfs-boot-ownership.service": "sysinit.target.wants",
}
"""Units that every boot starts, and the directory that says so. The one for the shutdown is started by what stages."""

TIMER = {"cfs-upgrade-restart.timer": "timers.target.wants", "cfs-upgrade.timer": "timers.target.wants"}


def packaged(name: str) -> bytes:
    """Return the bytes of a unit."""
    return files("cfs_host").joinpath("units", name).read_bytes()


def place(root: Path, *, timer: bool = False) -> tuple[str, ...]:
    """Write the units below *root*, replacing older ones, and link those that are to start.

    Returns the paths written, relative to *root*.

    Raises:
        RefusedError: *root* is no directory, or a path in it leads out of it or cannot be written.
    """
    image = ImageRoot(root)
    written = []
    for name in NAMES:
        image.write(f"{UNITS}/{name}", packaged(name))
        written.append(f"{UNITS}/{name}")
    for name, directory in {**WANTED, **(TIMER if timer else {})}.items():
        path = f"{UNITS}/{directory}/{name}"
        image.link(path, f"../{name}")
        written.append(path)
    return tuple(sorted(written))
