"""Objects from open files whose bytes need not pass through this process: blocks shared, or copied by the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.plugin import SourceFile

FICLONE = 0x40049409
"""From linux/fs.h: let a file share all blocks of another one (ioctl_ficlone(2))."""

_NEVER = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS})
"""Answers that the next file of the same filesystem would get as well."""


class Copier:
    """Copies into files of one filesystem, and remembers which filesystems it cannot copy from. Safe for threads."""

    def __init__(self) -> None:
        self._cannot_clone: set[int] = set()
        self._cannot_copy: set[int] = set()

    def clone(self, source: SourceFile, fd: int) -> bool:
        """Let the empty file *fd* share all blocks of *source*; returns whether it does."""
        device = os.fstat(source.fd).st_dev
        if device in self._cannot_clone:
            return False
        try:
            fcntl.ioctl(fd, FICLONE, source.fd)
        except OSError as error:
            if error.errno in _NEVER:
                self._cannot_clone.add(device)
            return False
        if os.fstat(fd).st_size == source.size:
            return True
        os.ftruncate(fd, 0)
        return False

    def copy(self, source: SourceFile, fd: int, offset: int, count: int) -> bool:
        """Let the kernel copy *count* bytes at *offset* to the same place in *fd*; returns whether it did (all)."""
        device = os.fstat(source.fd).st_dev
        if device in self._cannot_copy:
            return False
        end = offset + count
        try:
            while offset < end:
                copied = os.copy_file_range(source.fd, fd, end - offset, offset, offset)
                if not copied:
                    return False
                offset += copied
        except OSError as error:
            if error.errno in _NEVER:
                self._cannot_copy.add(device)
            return False
        return True
