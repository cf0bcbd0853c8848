"""Partition tables."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cfs_core.model.boot import Architecture
    from cfs_core.model.disk import Partition, Volume, VolumeNeed
    from cfs_core.model.plan import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutRequest:
    """What a layout must provide. Sizes in bytes; ``root_size`` and ``disk_size`` None mean as small as is sensible."""

    needs: Sequence[VolumeNeed]
    """Volumes, with room and filesystems; merged."""

    architecture: Architecture
    """Decides the types of partitions."""

    root_filesystem: str
    """``ext4``."""

    root_size: int | None = None
    """Of the root filesystem."""

    disk_size: int | None = None
    """Of the whole disk."""

    seed: str | None = None
    """Source of identifiers that must be reproducible; None for random ones."""

    volume_sizes: Mapping[Volume, int] = field(default_factory=dict)
    """Sizes somebody asked for (``install.esp-size``); they replace the layout's own choice, never what is needed."""


class DiskLayout(abc.ABC):
    """A way to divide a disk."""

    @abc.abstractmethod
    def plan(self, request: LayoutRequest) -> tuple[Partition, ...]:
        """Divide the disk; pure.

        Raises:
            RefusedError: does not fit ``disk_size``; the message says what needs how much.
        """

    @abc.abstractmethod
    def disk_bytes(self, partitions: Sequence[Partition]) -> int:
        """Return how large a disk file these partitions need, both partition tables included."""

    @abc.abstractmethod
    def write(self, path: Path, partitions: Sequence[Partition], *, seed: str | None) -> None:
        """Write protective MBR and both tables into an existing file."""

    @abc.abstractmethod
    def read(self, path: Path) -> tuple[Partition, ...]:
        """Read the table of a disk or disk image, volumes recognised by partition type.

        Raises:
            DiskError: none, or damaged beyond use.
        """

    @abc.abstractmethod
    def check(self, path: Path) -> Sequence[Finding]:
        """Check both tables, their checksums, overlaps and bounds."""
