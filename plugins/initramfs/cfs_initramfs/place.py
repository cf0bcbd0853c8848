"""Puts the early-boot script and its initramfs hooks into a directory that becomes an image's root."""

from __future__ import annotations

import enum
import os
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class Generator(enum.StrEnum):
    """Programs that build an initramfs."""

    DRACUT = "dracut"
    MKINITCPIO = "mkinitcpio"
    INITRAMFS_TOOLS = "initramfs-tools"


@dataclass(frozen=True, slots=True)
class Placed:
    """A packaged file, where it goes in the image, and its mode."""

    source: str
    destination: str
    mode: int


COMMON = (
    Placed("cfs-setup-root", "usr/lib/cfs/cfs-setup-root", 0o755),
    Placed("cfs-setup-root.service", "usr/lib/cfs/cfs-setup-root.service", 0o644),
)

HOOKS = {
    Generator.DRACUT: (
        Placed("dracut/module-setup.sh", "usr/lib/dracut/modules.d/90cfs/module-setup.sh", 0o755),
        Placed("dracut/pre-pivot.sh", "usr/lib/dracut/modules.d/90cfs/pre-pivot.sh", 0o755),
        Placed("dracut/90-cfs.conf", "usr/lib/dracut/dracut.conf.d/90-cfs.conf", 0o644),
    ),
    Generator.MKINITCPIO: (
        Placed("mkinitcpio/install-cfs", "usr/lib/initcpio/install/cfs", 0o644),
        Placed("mkinitcpio/hook-cfs", "usr/lib/initcpio/hooks/cfs", 0o644),
        Placed("mkinitcpio/90-cfs.conf", "etc/mkinitcpio.conf.d/90-cfs.conf", 0o644),
    ),
    Generator.INITRAMFS_TOOLS: (
        Placed("initramfs-tools/hook", "usr/share/initramfs-tools/hooks/cfs", 0o755),
        Placed("initramfs-tools/local-top", "usr/share/initramfs-tools/scripts/local-top/cfs", 0o755),
        Placed("initramfs-tools/local-bottom", "usr/share/initramfs-tools/scripts/local-bottom/cfs", 0o755),
    ),
}

PROGRAMS = {
    Generator.DRACUT: ("usr/bin/dracut", "usr/sbin/dracut"),
    Generator.MKINITCPIO: ("usr/bin/mkinitcpio",),
    Generator.INITRAMFS_TOOLS: ("usr/sbin/mkinitramfs", "usr/bin/mkinitramfs"),
}


def packaged(source: str) -> bytes:
    """Return the bytes of a file below this package's ``boot/``."""
    return files("cfs_initramfs").joinpath("boot", source).read_bytes()


def found_generators(root: Path) -> tuple[Generator, ...]:
    """Return the initramfs generators installed in *root*."""
    return tuple(
        generator for generator, paths in PROGRAMS.items() if any(os.path.lexists(root / path) for path in paths)
    )


def place(root: Path, generators: Sequence[Generator] = ()) -> tuple[str, ...]:
    """Write script and hooks below *root*, replacing older ones; return the paths written, relative to *root*.

    Empty *generators*: those found in *root*.

    Raises:
        ImageError: no generator is installed in *root*.
        RefusedError: *root* is no directory, or a path in it leads out of it or cannot be written.
    """
    if not root.is_dir():
        message = f"{root} is not a directory"
        raise RefusedError(message, hint="name the directory that becomes the image's root")
    chosen = tuple(generators) or found_generators(root)
    if not chosen:
        message = f"no dracut, mkinitcpio or initramfs-tools in {root}"
        raise ImageError(message, hint="install one of them in the image, or name it with --for")
    wanted = (*COMMON, *(item for generator in chosen for item in HOOKS[generator]))
    for item in wanted:
        _write(root, item)
    return tuple(sorted(item.destination for item in wanted))


def _write(root: Path, item: Placed) -> None:
    path = root / item.destination
    try:
        _make_parents(root, path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".cfs-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(packaged(item.source))
                os.fchmod(file.fileno(), item.mode)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 - the same call, without building a Path of the temporary name
        except BaseException:
            os.unlink(temporary)  # noqa: PTH108 - as above
            raise
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise RefusedError(message, hint="run as the user who owns the image's files") from error


def _make_parents(root: Path, directory: Path) -> None:
    """Create *directory* below *root*; a symbolic link on the way must not lead outside."""
    inside = root.resolve()
    for parent in _upwards(root, directory):
        if not parent.exists() and not parent.is_symlink():
            parent.mkdir(mode=0o755)
        if not parent.resolve().is_relative_to(inside):
            message = f"{parent} leads out of {root}"
            raise RefusedError(message, hint="an absolute link in the image; make it relative")


def _upwards(root: Path, directory: Path) -> Iterable[Path]:
    names = directory.relative_to(root).parts
    return [root.joinpath(*names[: count + 1]) for count in range(len(names))]
