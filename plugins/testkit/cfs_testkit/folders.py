"""Directories: what is in them, and what a target in memory would put there."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.plugin import CopyObject, MakeDirectory, MakeHardLink, MakeSymlink, WriteFile, read_all

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.plugin import Volume
    from cfs_core.testing import MemoryTarget


class DirectoryReader:
    """A `FileReader` of a directory: what a filesystem that is not mounted looks like to its reader."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in a directory."""
        return tuple(sorted(os.listdir(self._at(path))))  # noqa: PTH208 - raises as the os module does

    def kind(self, path: str) -> str | None:
        """Return what is there; links are not followed."""
        at = self._at(path)
        if at.is_symlink():
            return "symlink"
        if at.is_file():
            return "file"
        if at.is_dir():
            return "directory"
        return "special" if at.exists() else None

    def read_link(self, path: str) -> str:
        """Return a link's target."""
        return os.fspath(self._at(path).readlink())

    def open(self, path: str) -> BinaryIO:
        """Open a regular file."""
        return self._at(path).open("rb")

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        return self._at(path).lstat().st_size

    def verity_digest(self, path: str) -> str | None:
        """Return None: directories of tests have no fs-verity."""
        del path
        return None

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def snapshot(folder: Path) -> dict[str, str]:
    """Return every file below *folder* and a digest of what it is."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def materialize(target: MemoryTarget, volume: Volume, folder: Path) -> None:
    """Put what is on a volume of *target* into a directory; owners and fs-verity are left out."""
    for path, action in target.contents(volume).items():
        at = folder / path.lstrip("/")
        match action:
            case MakeDirectory():
                at.mkdir(exist_ok=True, parents=True)
            case WriteFile(data=data):
                at.parent.mkdir(exist_ok=True, parents=True)
                at.write_bytes(data)
            case CopyObject(source=source):
                at.parent.mkdir(exist_ok=True, parents=True)
                at.write_bytes(read_all(source))
            case MakeSymlink(target=text):
                at.parent.mkdir(exist_ok=True, parents=True)
                at.symlink_to(text)
            case MakeHardLink(existing=existing):
                os.link(folder / existing.path.lstrip("/"), at)
            case _:
                msg = f"{path} cannot be put into a directory"
                raise TypeError(msg)
