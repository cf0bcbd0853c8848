"""Volumes, locations, partitions."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Volume(enum.StrEnum):
    """The places a machine boots and lives from, by role and not by mount point."""

    ESP = "esp"
    """The EFI system partition: FAT, read by UEFI."""

    XBOOTLDR = "xbootldr"
    """The extended boot loader partition (Boot Loader Specification): kernels, where the ESP is too small."""

    BOOT = "boot"
    """A boot partition of the classic kind, mounted at ``/boot``."""

    ROOT = "root"
    """The root filesystem, which holds the composefs repository."""

    BIOS_BOOT = "bios-boot"
    """The raw partition for a BIOS loader's second stage."""

    DISK = "disk"
    """The whole disk, for the boot code of its first sector."""


RAW = frozenset({Volume.BIOS_BOOT, Volume.DISK})
"""Volumes without a filesystem: `WriteBlocks` goes here and nowhere else."""

MBR_CODE_BYTES = 440
"""Boot code of a disk's first sector; what follows is the disk's signature and partition table."""


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A path on a volume. ``path`` is absolute, normalised; undecodable bytes are surrogate-escaped (os.fsdecode)."""

    volume: Volume
    """Which volume."""

    path: str
    """From the volume's root, with ``/`` between names; on FAT letter case is nothing."""

    def __str__(self) -> str:
        return f"{self.volume.name}:{self.path}"

    def __truediv__(self, name: str) -> Location:
        return Location(self.volume, f"{self.path.rstrip('/')}/{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeNeed:
    """A volume somebody needs. Needs for the same volume are merged: sizes add up, filesystems are intersected.

    ``filesystems`` are acceptable names, best first; empty for raw volumes.
    """

    volume: Volume
    """Which volume."""

    bytes_needed: int
    """Room for files, in bytes."""

    filesystems: tuple[str, ...] = ()
    """``("vfat",)`` for an ESP."""

    why: str = ""
    """Shown where there is too little room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition; offsets and sizes in bytes. ``uuid`` is the partition's, ``fs_uuid`` the filesystem's."""

    number: int
    """As the partition table counts, from 1."""

    volume: Volume
    """What it is for."""

    start: int
    """Offset in the disk."""

    size: int
    """In bytes."""

    type_guid: str
    """The type, in lower case."""

    uuid: str
    """What ``PARTUUID=`` names."""

    name: str
    """Its name in the partition table."""

    filesystem: str | None = None
    """``vfat``, ``ext4``; None for a raw one."""

    fs_uuid: str | None = None
    """What ``UUID=`` names."""

    label: str | None = None
    """The filesystem's label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A stretch of a file or block device; offset and size in bytes."""

    path: Path
    """The file or device."""

    offset: int
    """Where it starts."""

    size: int
    """How long it is."""
