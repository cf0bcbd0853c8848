"""Puts the early-boot script and its initramfs hooks into a directory that becomes an image's root."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageError, ImageRoot

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    image = ImageRoot(root)
    chosen = tuple(generators) or found_generators(root)
    if not chosen:
        message = f"no dracut, mkinitcpio or initramfs-tools in {root}"
        raise ImageError(message, hint="install one of them in the image, or name it with --for")
    wanted = (*COMMON, *(item for generator in chosen for item in HOOKS[generator]))
    for item in wanted:
        image.write(item.destination, packaged(item.source), item.mode)
    return tuple(sorted(item.destination for item in wanted))
