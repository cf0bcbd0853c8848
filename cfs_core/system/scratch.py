"""A directory of a run's own, which goes away with the run, however that ends."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "cfs-run-"
_NAME = re.compile(re.escape(_PREFIX) + r"[0-9a-f]{16}\Z")
# Another try is for a directory that a run which just began took for stale before it was locked.
_TRIES = 100


@contextmanager
def scratch_directory(parent: Path | None = None) -> Iterator[Path]:
    """Make ``cfs-run-XXXXXXXXXXXXXXXX`` in *parent* (default: TMPDIR, or the system's), readable by its owner alone.

    It is locked as long as its maker lives. The lock goes with the process, however that ends; the next run that makes
    one here removes those of the same user that nobody locks.

    Raises:
        HostError: no directory can be made there.
    """
    folder = parent or Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    _remove_stale(folder)
    try:
        path, lock = _made(folder)
    except OSError as cause:
        msg = f"no temporary directory can be made in {folder}: {cause.strerror}"
        raise HostError(msg, hint="set TMPDIR to a directory that is there and that you may write to") from cause
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _made(folder: Path) -> tuple[Path, int]:
    for _ in range(_TRIES):
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        lock = _locked(path)
        if lock is not None:
            return path, lock
        with suppress(OSError):
            path.rmdir()
    msg = "it cannot be locked"
    raise BlockingIOError(0, msg)


def _remove_stale(folder: Path) -> None:
    """Remove directories of this user whose maker is gone.

    Where others may rename what is ours, a directory of that name need not be one: only where nobody else writes, or
    the sticky bit keeps others' hands off (inode(7)), names tell anything.
    """
    try:
        where = folder.stat()
        others = where.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or where.st_uid not in {0, os.geteuid()}
        if others and not where.st_mode & stat.S_ISVTX:
            return
        candidates = [path for path in folder.iterdir() if _NAME.match(path.name)]
    except OSError:
        return
    for path in candidates:
        lock = _locked(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _locked(path: Path) -> int | None:
    """Lock a directory of ours; None if another run holds it, or removed it before it was locked."""
    with suppress(OSError):
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours, named = os.fstat(lock), path.lstat()
            if stat.S_ISDIR(named.st_mode) and ours.st_uid == os.geteuid() and os.path.samestat(ours, named):
                return lock
        except OSError:
            os.close(lock)
            raise
        os.close(lock)
    return None
