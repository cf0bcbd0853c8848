"""Puts the units into a directory that becomes an image's root."""

from __future__ import annotations

import os
import tempfile
from importlib.resources import files
from typing import TYPE_CHECKING

from cfs_core.plugin import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

UNITS = "usr/lib/systemd/system"

NAMES = (
    "cfs-boot-check.service",
    "cfs-boot-failed.service",
    "cfs-boot-good.service",
    "cfs-boot-trial.timer",
    "cfs-finalize-staged.service",
    "cfs-upgrade.service",
    "cfs-upgrade.timer",
)

WANTED = {
    "cfs-boot-check.service": "multi-user.target.wants",
    "cfs-boot-good.service": "multi-user.target.wants",
    "cfs-boot-trial.timer": "timers.target.wants",
}
"""Units that every boot starts, and the directory that says so. The one for the shutdown is started by what stages."""

TIMER = {"cfs-upgrade.timer": "timers.target.wants"}


def packaged(name: str) -> bytes:
    """Return the bytes of a unit."""
    return files("cfs_host").joinpath("units", name).read_bytes()


def place(root: Path, *, timer: bool = False) -> tuple[str, ...]:
    """Write the units below *root*, replacing older ones, and link those that are to start.

    Returns the paths written, relative to *root*.

    Raises:
        RefusedError: *root* is no directory, or a path in it leads out of it or cannot be written.
    """
    if not root.is_dir():
        message = f"{root} is not a directory"
        raise RefusedError(message, hint="name the directory that becomes the image's root")
    written = []
    try:
        for name in NAMES:
            _write(root, f"{UNITS}/{name}", packaged(name))
            written.append(f"{UNITS}/{name}")
        for name, directory in {**WANTED, **(TIMER if timer else {})}.items():
            path = f"{UNITS}/{directory}/{name}"
            _link(root, path, f"../{name}")
            written.append(path)
    except OSError as error:
        message = f"cannot write {error.filename}: {error.strerror}"
        raise RefusedError(message, hint="run as the user who owns the image's files") from error
    return tuple(sorted(written))


def _write(root: Path, name: str, data: bytes) -> None:
    path = root / name
    _make_parents(root, path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".cfs-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the same call, without building a Path of the temporary name
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 - as above
        raise


def _link(root: Path, name: str, target: str) -> None:
    path = root / name
    _make_parents(root, path.parent)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _make_parents(root: Path, directory: Path) -> None:
    """Create *directory* below *root*; a symbolic link on the way must not lead outside."""
    inside = root.resolve()
    names = directory.relative_to(root).parts
    for count in range(1, len(names) + 1):
        parent = root.joinpath(*names[:count])
        if not parent.exists() and not parent.is_symlink():
            parent.mkdir(mode=0o755)
        if not parent.resolve().is_relative_to(inside):
            message = f"{parent} leads out of {root}"
            raise RefusedError(message, hint="an absolute link in the image; make it relative")
