"""A plain directory as the checks read it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from cfs_storage_composefs.fsverity import measure
from cfs_storage_composefs.linux import entries

if TYPE_CHECKING:
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
        return tuple(sorted(entries(self._below(path))))

    def kind(self, path: str) -> str | None:
        """Return ``file``, ``directory``, ``symlink``, ``special``, or None if nothing is there."""
        try:
            mode = os.lstat(self._below(path)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        for test, kind in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symlink")):
            if test(mode):
                return kind
        return "special"

    def read_link(self, path: str) -> str:
        """Return a link's target."""
        return os.readlink(self._below(path))  # noqa: PTH115 - names may be undecodable

    def open(self, path: str) -> BinaryIO:
        """Open a regular file."""
        return os.fdopen(os.open(self._below(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        return os.lstat(self._below(path)).st_size

    def verity_digest(self, path: str) -> str | None:
        """Return the digest that the kernel enforces as ``algorithm:hex``, None if verity is off."""
        with self.open(path) as file:
            measured = measure(file.fileno())
        return None if measured is None else f"{measured[0].value}:{measured[1].hex()}"

    def _below(self, path: str) -> str:
        return os.path.join(self._base, path.lstrip("/"))  # noqa: PTH118 - names may be undecodable
