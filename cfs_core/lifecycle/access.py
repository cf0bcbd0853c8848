"""Opening a machine: the system below a directory, or a disk image."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.deploy.services import each_made
from cfs_core.errors import StateError
from cfs_core.lifecycle.machine import read_machine, with_versions
from cfs_core.lifecycle.running import RunningSystem, read_running
from cfs_core.lifecycle.status import mounted_volumes
from cfs_core.lifecycle.volumes import bios_boot, partition_of
from cfs_core.pluginhost import families
from cfs_core.target.mounted import MountedTarget
from cfs_core.target.mounted_raw import RawPlaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.bootloader import Bootloader
    from cfs_core.lifecycle.machine import Machine
    from cfs_core.model.disk import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the system that is looked at has its parts; ``root`` is ``/`` but in tests and rescue systems."""

    root: Path
    roots: dict[Volume, Path]
    """Where each volume is mounted."""

    @property
    def run(self) -> Path:
        """The directory of what does not outlive a boot."""
        return self.root / "run"

    @property
    def sysroot(self) -> Path:
        """Where the root volume is mounted."""
        return self.root / "sysroot"

    @property
    def repository(self) -> Path:
        """The repository that the machine runs from."""
        return self.sysroot / "composefs"


def find_places(root: Path) -> Places:
    """Find the volumes of the system below *root*.

    Raises:
        StateError: no deployments are there.
    """
    sysroot = root / "sysroot"
    if not (sysroot / "state/deploy").is_dir():
        msg = f"{sysroot} holds no deployments: it has no state/deploy"
        raise StateError(msg, hint="name a disk image, or where the root volume is mounted: cfs status --sysroot PATH")
    return Places(root=root, roots=mounted_volumes(sysroot, root))


def mounted_target(places: Places, running: RunningSystem, services: Services) -> MountedTarget:
    """Return the volumes as a target, with the partitions they are on."""
    partitions = [partition_of(volume, path, places.root, running) for volume, path in places.roots.items()]
    raw = bios_boot(places.root, running)
    return MountedTarget(
        places.roots,
        partitions=[each for each in (*partitions, raw[0] if raw else None) if each is not None],
        raw=RawPlaces(raw[1]) if raw else None,
        commands=services.commands,
        scratch=services.scratch,
        host_tools=bool(services.settings.value("install.host-tools")),
    )


def machine_below(root: Path, services: Services) -> Machine:
    """Read the system below *root*.

    Raises:
        StateError: no deployments are there.
    """
    places = find_places(root)
    running = read_running(root)
    loaders = all_bootloaders(services)
    machine = read_machine(mounted_target(places, running, services), loaders, running)
    machine = with_versions(machine, loaders, root)
    if all(each.origin.architecture or not each.manifest_digest for each in machine.status.deployments):
        return machine
    from cfs_core.lifecycle.image_facts import completed  # only bootc's origin files leave it to the repository

    return replace(machine, status=completed(machine.status, places.repository, services))


def machine_of_sysroot(sysroot: Path, services: Services) -> Machine:
    """Read a root volume that is mounted somewhere, and runs nothing.

    Raises:
        StateError: no deployments are there.
    """
    if not (sysroot / "state/deploy").is_dir():
        msg = f"{sysroot} holds no deployments: it has no state/deploy"
        raise StateError(msg, hint="name a disk image, or where the root volume is mounted: --sysroot PATH")
    loaders = all_bootloaders(services)
    return with_versions(read_machine(MountedTarget(mounted_volumes(sysroot)), loaders), loaders)


@contextmanager
def machine_on(disk: Path, services: Services) -> Iterator[Machine]:
    """Read a disk image.

    Raises:
        DiskError: no layout that is installed can read it.
    """
    from cfs_core.examine.disk import opened_disk  # a machine that runs need not wait for readers of disks

    with opened_disk(services, disk) as image:
        loaders = all_bootloaders(services)
        yield with_versions(read_machine(image, loaders), loaders)


def all_bootloaders(services: Services) -> dict[str, Bootloader]:
    """Make every bootloader that can be made: which one is in charge is not known yet."""
    return dict(each_made(services, families.BOOTLOADERS))
