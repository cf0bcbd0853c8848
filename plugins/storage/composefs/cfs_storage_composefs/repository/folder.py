"""A plain directory as the checks read it."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from cfs_storage_composefs.fsverity import measure
from cfs_storage_composefs.linux import OPEN_DIRECTORY, entries, open_below

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class DirectoryReader:
    """Files below *base*, by absolute paths that start there. Symbolic links are never followed."""

    def __init__(self, base: Path) -> None:
        self._base = os.fspath(base)

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*.

        Raises:
            OSError: as the os module does.
        """
        with self._directory(_parts(path)) as fd:
            return tuple(sorted(entries(fd)))

    def kind(self, path: str) -> str | None:
        """Return ``file``, ``directory``, ``symlink``, ``special``, or None if nothing is there."""
        try:
            mode = self._stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        for test, kind in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symlink")):
            if test(mode):
                return kind
        return "special"

    def read_link(self, path: str) -> str:
        """Return a link's target."""
        with self._parent(path) as (fd, name):
            return os.readlink(name, dir_fd=fd)

    def open(self, path: str) -> BinaryIO:
        """Open a regular file."""
        with self._parent(path) as (fd, name):
            return os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=fd), "rb")

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        return self._stat(path).st_size

    def verity_digest(self, path: str) -> str | None:
        """Return the digest that the kernel enforces as ``algorithm:hex``, None if verity is off."""
        with self.open(path) as file:
            measured = measure(file.fileno())
        return None if measured is None else f"{measured[0].value}:{measured[1].hex()}"

    def _stat(self, path: str) -> os.stat_result:
        with self._parent(path) as (fd, name):
            return os.stat(name, dir_fd=fd, follow_symlinks=False)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        parts = _parts(path)
        with self._directory(parts[:-1]) as fd:
            yield fd, parts[-1] if parts else "."

    @contextmanager
    def _directory(self, parts: list[str]) -> Iterator[int]:
        base = os.open(self._base, OPEN_DIRECTORY)
        try:
            with open_below(base, parts) as fd:
                yield fd
        finally:
            os.close(base)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
