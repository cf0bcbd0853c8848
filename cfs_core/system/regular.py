"""Opening what somebody named: a file, and nothing that waits."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path


def open_regular(path: Path) -> BinaryIO:
    """Open the regular file at *path* for reading, links followed.

    Opening a FIFO waits for a writer, and a device may do anything: both are refused without waiting.

    Raises:
        OSError: as `open` does; ``EINVAL`` where it is no regular file.
    """
    # O_NONBLOCK says nothing to a regular file, and O_NOCTTY keeps a terminal from becoming ours (open(2)).
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
