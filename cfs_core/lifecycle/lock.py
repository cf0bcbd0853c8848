"""One writer at a time: who holds the lock is in it."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cfs_core.errors import HostError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAUSE_SECONDS = 0.2


@contextmanager
def locked(path: Path, what: str, *, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock at *path* while the block runs; *what* is told to whoever wants it meanwhile.

    *wait_seconds*: how long another one may hold it. People are told at once; units of a boot come at the same time.

    Raises:
        RefusedError: somebody else holds it (code ``state.locked``).
        HostError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as cause:
        msg = f"the lock {path} cannot be made: {cause.strerror}"
        raise HostError(msg, hint="changing a machine needs root rights") from cause
    try:
        _take(descriptor, time.monotonic() + wait_seconds)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"cfs {what}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _take(descriptor: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            if time.monotonic() < deadline:
                time.sleep(_PAUSE_SECONDS)
                continue
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
            msg = f"this machine is being changed by {holder}"
            raise RefusedError(msg, hint="wait until it has ended", code="state.locked") from cause
        return
