"""Boot files of deployments: placed, shared where equal, removed when nothing names them (formats F.4 to F.7)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from cfs_core.bls.names import FILES_PREFIX, files_name, uki_name
from cfs_core.bls.scan import list_names, read_file
from cfs_core.errors import BootError
from cfs_core.model.action import Action, CopyObject, RemovePath
from cfs_core.model.boot import EntryKind
from cfs_core.model.content import read_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.boot import BootArtifacts, BootEntry
    from cfs_core.model.content import Content
    from cfs_core.model.disk import Location

KERNEL = "vmlinuz"
INITRD = "initrd"
_EXTRA = ".extra.d"
_INITRDS = re.compile(f"{INITRD}(?:-[1-9][0-9]?)?")


def initrd_name(number: int) -> str:
    """Return what the file of an entry's initrd is called: ``initrd`` for the first (0), then ``initrd-2``."""
    return INITRD if number == 0 else f"{INITRD}-{number + 1}"


class BootFiles:
    """Plans boot files on one target: *kernels* holds a directory per deployment, *ukis* a UKI per deployment.

    ``actions`` puts them there. What another deployment may be using is never overwritten with something else.
    """

    def __init__(self, target: TargetView, kernels: Location, ukis: Location) -> None:
        self._target = target
        self._kernels = kernels
        self._ukis = ukis
        self._digests: dict[str, str | None] = {
            name: None for name in list_names(target, kernels) if name.startswith(FILES_PREFIX) and "." not in name
        }
        self._planned: dict[str, str] = {}
        self.actions: list[Action] = []

    def place(self, entry: BootEntry) -> tuple[Location, ...]:
        """Plan the files of *entry* and return where they will be: kernel and initrds, or the UKI.

        Raises:
            BootError: the entry's artifacts are not of its kind.
        """
        artifacts = entry.artifacts
        if artifacts is None or artifacts.kind is not entry.kind:
            message = f"deployment {entry.deployment_id[:16]} has no artifacts for an entry of kind {entry.kind}"
            raise BootError(message, hint="this is a fault of the program, not of the image")
        return (
            self._place_uki(entry, artifacts) if entry.kind is EntryKind.UKI else self._place_kernel(entry, artifacts)
        )

    def _place_kernel(self, entry: BootEntry, artifacts: BootArtifacts) -> tuple[Location, ...]:
        if artifacts.kernel is None:
            message = f"deployment {entry.deployment_id[:16]} has no kernel"
            raise BootError(message, hint="the image needs /usr/lib/modules/<version>/vmlinuz")
        name = self._shared(artifacts) or self._free_name(entry.deployment_id, artifacts)
        directory = self._kernels / name
        wanted = [(directory / KERNEL, artifacts.kernel)]
        wanted += [(directory / initrd_name(at), content) for at, content in enumerate(artifacts.initrds)]
        if self._digest(name) != artifacts.boot_digest:
            self.actions += [
                RemovePath(location=directory / file, why="initrd of an install that was not finished")
                for file in self._initrds(name)
                if directory / file not in {location for location, _ in wanted}
            ]
            for location, content in wanted:
                self._copy(location, content, f"boot file of {entry.title}")
            self._planned[name] = artifacts.boot_digest
        return tuple(location for location, _ in wanted)

    def _place_uki(self, entry: BootEntry, artifacts: BootArtifacts) -> tuple[Location, ...]:
        if artifacts.uki is None:
            message = f"deployment {entry.deployment_id[:16]} has no unified kernel image"
            raise BootError(message, hint="the image needs one under /boot/EFI/Linux")
        location = self._ukis / uki_name(entry.deployment_id)
        extra = self._ukis / (uki_name(entry.deployment_id) + _EXTRA)
        # Addons meant for every UKI go beside this one all the same: another deployment's boot must not change.
        for addon in artifacts.addons:
            self._copy_unless_equal(extra / addon.name, addon.content, f"addon of {entry.title}")
        self.actions += [
            RemovePath(location=extra / name, why="addon is no longer part of the image")
            for name in list_names(self._target, extra)
            if name not in {addon.name for addon in artifacts.addons}
        ]
        self._copy_unless_equal(location, artifacts.uki, f"unified kernel image of {entry.title}")
        return (location,)

    def _shared(self, artifacts: BootArtifacts) -> str | None:
        """Return a directory that holds these very files already."""
        names = [*self._planned, *self._digests]
        return next((name for name in names if self._digest(name) == artifacts.boot_digest), None)

    def _free_name(self, deployment_id: str, artifacts: BootArtifacts) -> str:
        """Return the deployment's own directory, or one beside it where that holds other files that may be in use."""
        name = files_name(deployment_id)
        if self._planned.get(name) is None and not (name in self._digests and self._complete(name)):
            return name
        return f"{name}-{artifacts.boot_digest[:16]}"

    def _complete(self, name: str) -> bool:
        return KERNEL in list_names(self._target, self._kernels / name)

    def _digest(self, name: str) -> str | None:
        if name in self._planned:
            return self._planned[name]
        if name not in self._digests:
            return None
        if self._digests[name] is None:
            directory = self._kernels / name
            data = [read_file(self._target, directory / file) for file in (KERNEL, *self._initrds(name))]
            self._digests[name] = hashlib.sha256(b"".join(part or b"" for part in data)).hexdigest()
        return self._digests[name]

    def _initrds(self, name: str) -> list[str]:
        """Return the initrds of a directory in the order in which they are unpacked."""
        found = [file for file in list_names(self._target, self._kernels / name) if _INITRDS.fullmatch(file)]
        return sorted(found, key=lambda file: (len(file), file))

    def _copy_unless_equal(self, location: Location, content: Content, why: str) -> None:
        if read_file(self._target, location) != read_all(content):
            self._copy(location, content, why)

    def _copy(self, location: Location, content: Content, why: str) -> None:
        self.actions.append(CopyObject(location=location, source=content, why=why))

    def removals(self, texts: Iterable[bytes]) -> list[Action]:
        """Plan the removal of boot files of deployments that none of *texts* (entries, scripts) names."""
        kept = b"\n".join(texts)
        candidates = [(self._kernels, name) for name in list_names(self._target, self._kernels)]
        candidates += [(self._ukis, name) for name in list_names(self._target, self._ukis)]
        return [
            RemovePath(location=directory / name, why="no entry uses these boot files")
            for directory, name in candidates
            if name.startswith(FILES_PREFIX) and not _names(kept, name.removesuffix(_EXTRA))
        ]


def _names(texts: bytes, name: str) -> bool:
    """Return whether *name* is in *texts* as a whole: ``NAME-1234`` beside it is another directory.

    Somebody may have written it in other letter case, which on FAT is the same file.
    """
    return re.search(re.escape(name.encode()) + rb"(?![0-9A-Za-z_.-])", texts, re.IGNORECASE) is not None
