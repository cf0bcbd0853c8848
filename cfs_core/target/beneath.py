"""Directories below a root, opened step by step: no symbolic link on the way is followed, so nothing leads outside."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cfs_core.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_EXCHANGE = 2


def split(path: str) -> list[str]:
    """Return the names of an absolute, normalised path.

    Raises:
        DiskError: it is neither.
    """
    parts = path.split("/")[1:] if path != "/" else []
    if not path.startswith("/") or any(part in {"", ".", ".."} or "\0" in part for part in parts):
        msg = f"{path!r} is not an absolute, normalised path"
        raise DiskError(msg, hint="the plugin that planned it is at fault")
    return parts


@contextmanager
def directory(root: Path, parts: list[str], *, create: bool) -> Iterator[int]:
    """Open the directory *parts* below *root*; with *create*, missing ones are made (0755) durably.

    Raises:
        OSError: as open(2) with O_NOFOLLOW and mkdir(2).
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            try:
                below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            except FileNotFoundError:
                if not create:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=descriptor)
                # Also where somebody else has just made it: that does not make it durable.
                os.fsync(descriptor)
                below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def parent(root: Path, path: str, *, create: bool) -> Iterator[tuple[int, str]]:
    """Open the directory that holds *path*; give it with the last name.

    Raises:
        DiskError: *path* is the root itself, or malformed.
        OSError: as `directory`.
    """
    parts = split(path)
    if not parts:
        msg = "the root of a volume stays a directory where it is"
        raise DiskError(msg, hint="the plugin that planned it is at fault")
    with directory(root, parts[:-1], create=create) as descriptor:
        yield descriptor, parts[-1]


def exchange(first: tuple[int, str], second: tuple[int, str]) -> None:
    """Swap two names, each relative to an open directory (renameat2 with RENAME_EXCHANGE).

    Raises:
        OSError: as renameat2(2); EINVAL where the filesystem cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    (one, a), (other, b) = first, second
    if libc.renameat2(one, os.fsencode(a), other, os.fsencode(b), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), a, None, b)


def refuse_mounts(directory_fd: int, name: str) -> None:
    """Refuse to remove *name* where another filesystem is mounted on it or below it.

    Raises:
        DiskError: so it is.
        OSError: something cannot be looked at.
    """
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode):
        return
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory_fd)
    try:
        if os.fstat(descriptor).st_dev != os.fstat(directory_fd).st_dev:
            msg = f"{name!r} is not removed: another filesystem is mounted there"
            raise DiskError(msg, hint="unmount it first")
        for below in os.listdir(descriptor):  # noqa: PTH208 - relative to an open directory
            refuse_mounts(descriptor, below)
    finally:
        os.close(descriptor)


def remove_tree(directory_fd: int, name: str) -> None:
    """Remove *name* and everything below it, without following links.

    Raises:
        OSError: as unlink(2) and rmdir(2).
    """
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory_fd)
        return
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory_fd)
    try:
        for below in os.listdir(descriptor):  # noqa: PTH208 - relative to an open directory
            remove_tree(descriptor, below)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=directory_fd)
