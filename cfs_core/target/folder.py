"""A directory of this host as a `FileReader`."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.system.regular import open_regular

if TYPE_CHECKING:
    from pathlib import Path


class FolderReader:
    """Reads below *root*, whose owner is trusted: links inside are not followed at their end only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*.

        Raises:
            OSError: as the os module does.
        """
        return tuple(sorted(each.name for each in self._at(path).iterdir()))

    def kind(self, path: str) -> str | None:
        """Return ``file``, ``directory``, ``symlink``, ``special``, or None."""
        try:
            mode = self._at(path).lstat().st_mode
        except OSError:
            return None
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
        return kinds.get(stat.S_IFMT(mode), "special")

    def read_link(self, path: str) -> str:
        """Return a link's target."""
        return os.fspath(self._at(path).readlink())

    def open(self, path: str) -> BinaryIO:
        """Open a regular file."""
        return open_regular(self._at(path))

    def size(self, path: str) -> int:
        """Return a regular file's size in bytes."""
        return self._at(path).lstat().st_size

    def verity_digest(self, path: str) -> str | None:
        """Return None: nobody here asks the kernel."""
        del path
        return None

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")
