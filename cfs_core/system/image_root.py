"""A directory that is to become an image's root, for what puts units and scripts there."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from cfs_core.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path


class ImageRoot:
    """Puts files into a directory: each whole or not at all, replacing an older one, and never outside of it.

    Raises:
        RefusedError: *path* is no directory.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            msg = f"{path} is not a directory"
            raise RefusedError(msg, hint="name the directory that becomes the image's root")
        self._path = path

    def write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Write the file *name*, relative to the root, and the directories on the way.

        Raises:
            RefusedError: it cannot be written, or the way leads out of the root.
        """
        path = self._path / name
        try:
            self._make_parents(path.parent)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".cfs-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    os.fchmod(file.fileno(), mode)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)  # noqa: PTH105 - the same call, without a Path of the temporary name
            except BaseException:
                os.unlink(temporary)  # noqa: PTH108 - as above
                raise
        except OSError as error:
            raise _refused(path, error) from error

    def link(self, name: str, target: str) -> None:
        """Make *name* a symbolic link to *target*.

        Raises:
            RefusedError: as `write`.
        """
        path = self._path / name
        try:
            self._make_parents(path.parent)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
        except OSError as error:
            raise _refused(path, error) from error

    def _make_parents(self, directory: Path) -> None:
        """Create *directory*; a symbolic link on the way must not lead outside."""
        inside = self._path.resolve()
        parent = self._path
        for name in directory.relative_to(self._path).parts:
            parent /= name
            if not parent.exists() and not parent.is_symlink():
                parent.mkdir(mode=0o755)
            if not parent.resolve().is_relative_to(inside):
                msg = f"{parent} leads out of {self._path}"
                raise RefusedError(msg, hint="an absolute link in the image; make it relative")


def _refused(path: Path, error: OSError) -> RefusedError:
    msg = f"cannot write {path}: {error.strerror}"
    return RefusedError(msg, hint="run as the user who owns the image's files")
