"""A machine that is being changed: locked, writable, with the one that is in charge of its boot menu."""

from __future__ import annotations

import platform
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.deploy.bounds import Bounds
from cfs_core.deploy.storage import storage_at
from cfs_core.errors import StateError
from cfs_core.image.resolve import host_platform
from cfs_core.interfaces.bootloader import BootFacts
from cfs_core.lifecycle.access import all_bootloaders, find_places, mounted_target
from cfs_core.lifecycle.lock import locked
from cfs_core.lifecycle.machine import read_machine
from cfs_core.lifecycle.mounts import make_writable
from cfs_core.lifecycle.running import BOOTC_STAGED, STAGED, format_staged, read_running
from cfs_core.model.action import Action, CopyObject, RemovePath
from cfs_core.model.boot import Architecture, Firmware
from cfs_core.model.digest import Digest
from cfs_core.model.disk import Volume
from cfs_core.pluginhost import families
from cfs_core.system.atomic import atomic_file, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.bootloader import Bootloader
    from cfs_core.interfaces.storage import Repository, StorageFormat
    from cfs_core.lifecycle.access import Places
    from cfs_core.lifecycle.machine import Machine
    from cfs_core.lifecycle.records import Records
    from cfs_core.lifecycle.running import Staged
    from cfs_core.model.boot import BootMenu
    from cfs_core.target.mounted import MountedTarget


@dataclass(slots=True, kw_only=True)
class Session:
    """One change. ``machine`` is read again by `refresh` after something was written."""

    services: Services
    places: Places
    target: MountedTarget
    machine: Machine
    bootloaders: dict[str, Bootloader]

    @property
    def bootloader(self) -> Bootloader:
        """The loader in charge.

        Raises:
            StateError: none is.
        """
        return self.bootloaders[self.machine.require_loader()]

    def refresh(self) -> Machine:
        """Read the machine again."""
        self.machine = read_machine(self.target, self.bootloaders, read_running(self.places.root))
        return self.machine

    def apply(self, actions: Iterable[Action]) -> None:
        """Do *actions* in order, each durably.

        Raises:
            DiskError: one cannot be done; those before it are.
        """
        for action in actions:
            self.target.apply(action)

    # --- boot menu ----------------------------------------------------------------------------

    def facts(self) -> BootFacts:
        """Return what the loader may know of this machine; nothing of an image.

        Raises:
            StateError: cfs cannot make machines of this architecture boot.
        """
        name = host_platform().architecture
        try:
            architecture = Architecture(name)
        except ValueError as cause:
            msg = f"cfs knows no boot menus of machines of architecture {platform.machine()}"
            raise StateError(msg, hint="manage it with what installed it") from cause
        efi = (self.places.root / "sys/firmware/efi").is_dir() or Volume.ESP in self.places.roots
        root = self.target.partition(Volume.ROOT)
        return BootFacts(
            architecture=architecture,
            firmware=frozenset({Firmware.UEFI if efi else Firmware.BIOS}),
            root_filesystem=(root.filesystem or "") if root else "",
            volumes=frozenset(self.places.roots) - {Volume.ROOT, Volume.ESP},
            generic=False,
        )

    def plan_menu(self, wanted: BootMenu) -> tuple[Action, ...]:
        """Return what turns the menu that is there into *wanted*.

        Raises:
            BootError: the loader cannot express it.
            PluginError: it wants to write elsewhere.
        """
        loader, facts = self.machine.require_loader(), self.facts()
        actions = tuple(self.bootloader.plan_menu(self.target, self.machine.menu, wanted, facts))
        owner = self.services.host.collect(families.BOOTLOADERS).owner(loader)
        bounds = Bounds.of_bootloader(loader, owner, (), replace(facts, volumes=frozenset(self.places.roots)))
        bounds.check(actions)
        return actions

    def write_menu(self, wanted: BootMenu) -> tuple[Action, ...]:
        """Plan and write *wanted*; return what was done.

        Raises:
            BootError, PluginError, DiskError: the default that was there, or that of *wanted*, is a whole entry.
        """
        actions = self.plan_menu(wanted)
        self.apply(actions)
        if actions:
            self.target.settle()
        self.refresh()
        return actions

    def place_boot_files(self, actions: Sequence[Action]) -> tuple[CopyObject, ...]:
        """Write the boot files among *actions* and read them back; the menu stays as it is.

        Raises:
            DiskError: no room, or another content comes back.
        """
        files = tuple(action for action in actions if isinstance(action, CopyObject))
        for action in files:
            self.target.apply(action)
            with action.source.open() as source:
                expected = Digest.of_stream(source)
            if Digest.of(self.target.read(action.location)) != expected:
                msg = f"{action.location} reads back other than it was written"
                raise StateError(msg, hint="check the disk; the machine starts what it started before")
        return files

    # --- records ------------------------------------------------------------------------------

    def keep(self, records: Records) -> None:
        """Write what cfs keeps about this machine, if that has changed."""
        if records != self.machine.records:
            self.target.apply(records.action())
            self.machine = replace(self.machine, records=records)

    def stage(self, staged: Staged | None) -> None:
        """Say what waits for the shutdown, or that nothing does."""
        path = self.places.run / STAGED
        if staged is None:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_directory(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                file.write(format_staged(staged))
        why = "bootc staged it, and it is no more what will be finalized"
        there = [each for each in BOOTC_STAGED if each.volume in self.target.volumes() and self.target.exists(each)]
        self.apply(RemovePath(location=each, why=why) for each in there)
        self.machine = replace(self.machine, running=replace(self.machine.running, staged=staged))

    # --- storage ------------------------------------------------------------------------------

    def storage(self) -> StorageFormat:
        """Return the format of the repository that the machine runs from.

        Raises:
            StateError: no storage format that is installed knows it.
        """
        storage = storage_at(self.services, self.places.repository)
        if storage is not None:
            return storage
        msg = f"{self.places.repository} is no repository of a storage format that is installed"
        raise StateError(msg, hint="install the plugin of that format: cfs plugins list")

    @contextmanager
    def repository(self) -> Iterator[Repository]:
        """Open the repository that the machine runs from.

        Raises:
            StateError, StorageError: it cannot be.
        """
        with self.storage().open(self.places.repository) as repository:
            yield repository


@contextmanager
def session(
    root: Path, services: Services, what: str, *, writable: bool = True, wait_seconds: float = 0
) -> Iterator[Session]:
    """Lock the machine below *root* for *what* and read it. Without *writable* nothing is locked: only to look.

    *wait_seconds*: how long somebody else may hold the lock.

    Raises:
        StateError: no deployments are there.
        RefusedError: somebody else changes it.
        HostError: without root rights.
    """
    if not writable:
        yield _opened(root, services, None)
        return
    with locked(root / "run/cfs.lock", what, wait_seconds=wait_seconds):
        esp = make_writable() if root == Path("/") else None
        yield _opened(root, services, esp)


def _opened(root: Path, services: Services, esp: Path | None) -> Session:
    places, running = find_places(root), read_running(root)
    if esp is not None:
        places = replace(places, roots={**places.roots, Volume.ESP: esp})
    target = mounted_target(places, running, services)
    loaders = all_bootloaders(services)
    machine = read_machine(target, loaders, running)
    return Session(services=services, places=places, target=target, machine=machine, bootloaders=loaders)
