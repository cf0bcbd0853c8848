"""Which version of its loader a machine has, and which one the image that runs would bring."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.errors import CfsError
from cfs_core.interfaces.bootloader import BootFacts
from cfs_core.model.boot import Architecture, Firmware
from cfs_core.model.content import FileContent, read_within
from cfs_core.model.disk import Volume
from cfs_core.model.tree import Directory

if TYPE_CHECKING:
    from cfs_core.interfaces.bootloader import Bootloader
    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.content import Content


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderVersions:
    """As the loader's own files say; None where they do not, or are not here."""

    installed: str | None = None
    offered: str | None = None


def _architecture() -> str:
    # What reads images is loaded for nobody else who asks for a status.
    from cfs_core.image.resolve import host_platform

    return host_platform().architecture


def loader_versions(
    target: TargetView, bootloader: Bootloader, architecture: str | None, root: Path | None = None
) -> LoaderVersions:
    """Look at the boot volumes of *target* and the image that is mounted at *root*. What is damaged says nothing."""
    try:
        kind = Architecture(architecture or _architecture())
    except ValueError:
        return LoaderVersions()
    volumes = target.volumes()
    facts = BootFacts(
        architecture=kind,
        firmware=frozenset({Firmware.UEFI if Volume.ESP in volumes else Firmware.BIOS}),
        image=MountedTree(root) if root is not None else None,
        volumes=volumes - {Volume.ROOT, Volume.ESP},
    )
    try:
        return LoaderVersions(
            installed=bootloader.installed_version(target, facts),
            offered=bootloader.offered_version(facts) if facts.image is not None else None,
        )
    except (CfsError, OSError):
        return LoaderVersions()


class MountedTree:
    """An image that is mounted, as a tree. Links are followed as long as they do not lead out of it."""

    def __init__(self, top: Path) -> None:
        self._top = Path(os.path.realpath(top))
        self.root = Directory(mode=0o755)

    def exists(self, path: str) -> bool:
        """Return whether *path* is there, links followed."""
        found = self._path(path)
        return found is not None and found.exists()

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*; empty if there is no such directory."""
        found = self._path(path)
        return tuple(sorted(each.name for each in found.iterdir())) if found is not None and found.is_dir() else ()

    def content(self, path: str) -> Content | None:
        """Return the content of regular file *path*, None if there is none."""
        found = self._path(path)
        return FileContent.of(found) if found is not None and found.is_file() else None

    def read(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes | None:
        """Return the bytes of regular file *path*, None if there is none.

        Raises:
            LimitError: longer than *limit* bytes.
        """
        return read_within(self.content(path), path, limit)

    def _path(self, path: str) -> Path | None:
        found = Path(os.path.realpath(self._top / path.lstrip("/")))
        return found if found.is_relative_to(self._top) else None
