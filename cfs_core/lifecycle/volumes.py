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


BIOS_BOOT_TYPE = "21686148-6449-6e6f-744e-656564454649"
"""The partition type of BIOS boot partitions (GNU GRUB manual, BIOS installation)."""


def bios_boot(root: Path, running: RunningSystem) -> tuple[Partition, dict[Volume, Path]] | None:
    """Return the BIOS boot partition of the disk that the root volume is on, and the devices of both; None without one.

    udev knows its type; a system without it is told by the partition's name, which bootc and cfs give it.
    """
    mount = running.mount_at("/sysroot")
    if mount is None:
        return None
    block = root / "sys/dev/block"
    own = (block / mount.device).resolve()
    if not (own / "partition").is_file():
        return None
    for found in sorted(path for path in own.parent.iterdir() if (path / "partition").is_file()):
        device = _text(found / "dev").strip()
        told = re.search(r"^E:ID_PART_ENTRY_TYPE=(.*)$", _text(root / "run/udev/data" / f"b{device}"), re.MULTILINE)
        if told[1].lower() == BIOS_BOOT_TYPE if told else _variable(found, "PARTNAME") == "bios-boot":
            partition = Partition(
                number=_number(found / "partition"),
                volume=Volume.BIOS_BOOT,
                start=_number(found / "start") * _SECTOR,
                size=_number(found / "size") * _SECTOR,
                type_guid=BIOS_BOOT_TYPE,
                uuid=_variable(found, "PARTUUID"),
                name=_variable(found, "PARTNAME"),
            )
            return partition, {Volume.BIOS_BOOT: root / "dev" / found.name, Volume.DISK: root / "dev" / own.parent.name}
    return None


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
    match = re.search(rf"^{name}=(.*)$", _text(block / "uevent"), re.MULTILINE)
    return match[1].lower() if match else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _link_to(folder: Path, mount: Mount) -> str | None:
    """Return the name of the link in *folder* that leads to the device of *mount*."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - links, not paths
    except OSError:
        return None
    device = Path(mount.source).name
    return next((name for name in names if (folder / name).readlink().name == device), None)
