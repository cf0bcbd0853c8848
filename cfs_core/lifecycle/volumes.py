"""The partition that a mounted volume is on, as the kernel tells it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.model.disk import Partition, Volume

if TYPE_CHECKING:
    from cfs_core.lifecycle.running import Mount, RunningSystem

_SECTOR = 512
"""Bytes of a sector in sysfs, whatever the device's own are."""


def partition_of(volume: Volume, path: Path, root: Path, running: RunningSystem) -> Partition | None:
    """Return the partition of *volume*, mounted at *path* of the system below *root*; None where nothing tells."""
    where = "/" + path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    mount = running.mount_at(where)
    if mount is None or mount.filesystem == "autofs":
        return None
    block = root / "sys/dev/block" / mount.device
    return Partition(
        number=_number(block / "partition"),
        volume=volume,
        start=_number(block / "start") * _SECTOR,
        size=_number(block / "size") * _SECTOR,
        type_guid="",
        uuid=_variable(block, "PARTUUID"),
        name=_variable(block, "PARTNAME"),
        filesystem=mount.filesystem,
        fs_uuid=_link_to(root / "dev/disk/by-uuid", mount),
    )


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _variable(block: Path, name: str) -> str:
    try:
        text = (block / "uevent").read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    return match[1].lower() if match else ""


def _link_to(folder: Path, mount: Mount) -> str | None:
    """Return the name of the link in *folder* that leads to the device of *mount*."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - links, not paths
    except OSError:
        return None
    device = Path(mount.source).name
    return next((name for name in names if (folder / name).readlink().name == device), None)
