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
    XBOOTLDR = "xbootldr"
    BOOT = "boot"
    ROOT = "root"
    BIOS_BOOT = "bios-boot"
    DISK = "disk"


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A path on a volume. ``path`` is absolute, normalised; undecodable bytes are surrogate-escaped (os.fsdecode)."""

    volume: Volume
    path: str

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
    bytes_needed: int
    filesystems: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition; offsets and sizes in bytes. ``uuid`` is the partition's, ``fs_uuid`` the filesystem's."""

    number: int
    volume: Volume
    start: int
    size: int
    type_guid: str
    uuid: str
    name: str
    filesystem: str | None = None
    fs_uuid: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A stretch of a file or block device; offset and size in bytes."""

    path: Path
    offset: int
    size: int
