"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary file beside *path* that takes its name when the block ends without an exception.

    Raises:
        OSError: as open, write and rename do; the temporary file is gone then.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_parent(path: Path) -> None:
    """Make the directories that lead to *path*, where a repository is to be; nobody else may write into new ones.

    Raises:
        HostError: they cannot be made.
    """
    try:
        missing = []
        for folder in path.absolute().parents:
            if folder.is_dir():
                break
            missing.append(folder)
        for folder in reversed(missing):
            folder.mkdir(mode=0o755, exist_ok=True)
    except OSError as cause:
        msg = f"there is no place for the repository {path}: {cause.filename}: {cause.strerror}"
        raise HostError(msg, hint="name another one with --repo PATH, or another cache with XDG_CACHE_HOME") from cause


def sync_directory(path: Path) -> None:
    """Make renames in *path* durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
