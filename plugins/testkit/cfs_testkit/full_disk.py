"""A full disk: a small filesystem in memory that is filled up, or a limit on files where nobody may mount one."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 16 << 20
"""Bytes of the filesystem that `full_disk` makes."""

LIMIT = 64 << 10
"""Bytes that a file may have where a limit stands for a full disk."""


@dataclass(frozen=True)
class FullDisk:
    """A directory, ``path``, whose filesystem is full while ``full`` is open: writing then fails with ``error``."""

    path: Path
    error: int

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room. What is not there yet cannot be written; what is there can be read and removed."""
        if self.error == errno.EFBIG:
            with files_no_larger_than(LIMIT):
                yield
            return
        filler = self.path / "filler"
        fill(filler)
        try:
            yield
        finally:
            filler.unlink()


@contextlib.contextmanager
def full_disk(where: Path, error: int) -> Iterator[FullDisk]:
    """Make a directory at *where* that can be full, with ENOSPC or, for every user, EFBIG as the *error* of writing.

    ENOSPC comes from a real filesystem, which root may mount; the test is skipped for others.
    """
    if error == errno.EFBIG:
        where.mkdir()
        yield FullDisk(where, error)
        return
    try:
        with small_filesystem(where, SIZE) as path:
            yield FullDisk(path, error)
    except PermissionError as refused:
        pytest.skip(str(refused))


@contextlib.contextmanager
def small_filesystem(where: Path, size: int) -> Iterator[Path]:
    """Mount a tmpfs of *size* bytes at *where*, which is made.

    Raises:
        PermissionError: this process may not mount.
    """
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", os.fspath(where)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:  # noqa: S603 - arguments made here
        msg = "mounting a small tmpfs needs root"
        raise PermissionError(msg)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", os.fspath(where)], check=True)  # noqa: S603, S607 - as above


def fill(path: Path) -> None:
    """Write a file of all the room that is left on its filesystem."""
    with path.open("wb") as file:
        room = os.fstatvfs(file.fileno())
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let every write beyond *size* bytes of a file fail in this process, with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
