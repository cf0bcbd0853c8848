"""Shared locks on a store, as containers/storage takes them: record locks on ``images.lock`` and ``layers.lock``."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cfs_core.plugin import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_SECONDS = 60.0
_STEP_SECONDS = 0.05
_FLOCK = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)


class SharedLock:
    """One shared lock of this process; taken by the first user, released by the last. For any number of threads.

    It is a lock of the open file description: it conflicts with podman's record locks as they do with each other, and
    is not lost when somebody else in this process closes the same file.
    """

    def __init__(self, path: Path, patience: float = PATIENCE_SECONDS) -> None:
        self._path = path
        self._patience = patience
        self._guard = threading.Lock()
        self._users = 0
        self._handle: int | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; a store without a lock file (read-only, additional) is read without.

        Raises:
            TransportError: somebody else writes for longer than we wait.
        """
        with self._guard:
            if self._users == 0:
                self._handle = self._take()
            self._users += 1
        try:
            yield
        finally:
            with self._guard:
                self._users -= 1
                if self._users == 0 and self._handle is not None:
                    os.close(self._handle)
                    self._handle = None

    def _take(self) -> int | None:
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        deadline = time.monotonic() + self._patience
        while True:
            try:
                # Asked for again and again, as F_OFD_SETLKW knows no time limit.
                fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _FLOCK)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() > deadline:
                    os.close(handle)
                    msg = f"{self._path} is locked by another program"
                    raise TransportError(msg, hint="wait until podman, buildah or skopeo has finished") from error
                time.sleep(_STEP_SECONDS)
                continue
            return handle
