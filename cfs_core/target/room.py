"""How much room a disk image takes on the host: one estimate, for the plan and for the write."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cfs_core.model.disk import RAW

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cfs_core.interfaces.filesystem import Filesystem
    from cfs_core.model.disk import Volume
    from cfs_core.target.memory import MemoryTarget

TABLES = 16 << 20
"""Bytes beyond the contents that partition tables and filesystem metadata may take; what stays empty is a hole."""


def host_takes(directory: Path, size: int) -> bool:
    """Return whether the filesystem of *directory* holds files of *size* bytes; True where that cannot be tried."""
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError:  # a filesystem without nameless files, or a directory that another check tells of
        return True
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        return error.errno not in {errno.EFBIG, errno.EINVAL}
    finally:
        os.close(descriptor)
    return True


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
