"""How much room a disk image takes on the host: one estimate, for the plan and for the write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.model.disk import RAW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.interfaces.filesystem import Filesystem
    from cfs_core.model.disk import Volume
    from cfs_core.target.memory import MemoryTarget

TABLES = 16 << 20
"""Bytes beyond the contents that partition tables and filesystem metadata may take; what stays empty is a hole."""


def room_on_host(memory: MemoryTarget, filesystems: Mapping[Volume, Filesystem]) -> int:
    """Return about how many bytes the image of what *memory* holds will take.

    Raises:
        DiskError: a filesystem cannot hold what is to be on it.
    """
    return TABLES + sum(
        min(filesystems[partition.volume].bytes_needed(memory.contents(partition.volume)), partition.size)
        for partition in memory.partitions
        if partition.volume not in RAW and partition.volume in filesystems
    )
