"""Checking a disk image that is not mounted: table, filesystems, repository, boot menu."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import CfsError, DiskError
from cfs_core.install.state import recorded_files
from cfs_core.model.deployment import Problem
from cfs_core.model.digest import Digest
from cfs_core.model.disk import Volume
from cfs_core.pluginhost import families
from cfs_core.target.read import open_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.install.services import Services
    from cfs_core.interfaces.filesystem import Filesystem
    from cfs_core.interfaces.storage import FileReader
    from cfs_core.model.boot import BootMenu
    from cfs_core.target.read import DiskImage

REPOSITORY = "/composefs"
DEPLOYMENTS = "/state/deploy"
ORIGIN_LIMIT = 1 << 20


def check_disk(services: Services, path: Path) -> Iterator[Problem]:
    """Yield what is wrong with the disk image at *path*, byte for byte where content has a digest.

    Raises:
        DiskError: no layout that is installed can read it, or it holds no root volume.
    """
    layout = services.make(families.LAYOUTS, str(services.settings.value("install.layout")))
    with open_disk(path, layout, _filesystems(services)) as disk:
        yield from disk.check()
        root = disk.reader(Volume.ROOT)
        if root is None:
            msg = f"{path} has no root volume that can be read"
            raise DiskError(msg, hint="is it a disk made by cfs or bootc?")
        yield from services.storage().check_files(root, REPOSITORY)
        yield from _check_boot_files(disk, root)
        yield from _check_menus(services, disk)


def _filesystems(services: Services) -> dict[str, Filesystem]:
    """Make every filesystem that can be made: which ones the disk has is not known yet."""
    registry = services.host.collect(families.FILESYSTEMS)
    made: dict[str, Filesystem] = {}
    for provider in registry:
        filesystem = services.host.attempt(
            registry.owner(provider.name), "factory", services.make, families.FILESYSTEMS, provider.name
        )
        if filesystem is not None:
            made[provider.name] = filesystem
    return made


def _check_boot_files(disk: DiskImage, root: FileReader) -> Iterator[Problem]:
    """Compare loader, kernels and entries with what each deployment's origin file says was installed.

    A file that is gone was renamed or replaced by an update; what the menu still needs is `_check_menus`' business.
    """
    deployments = root.names(DEPLOYMENTS) if root.kind(DEPLOYMENTS) == "directory" else ()
    for name in deployments:
        path = f"{DEPLOYMENTS}/{name}/{name}.origin"
        if root.kind(path) != "file":
            yield Problem(code="state.origin", where=path, message="is missing")
            continue
        with root.open(path) as file:
            text = file.read(ORIGIN_LIMIT).decode("utf-8", "replace")
        for location, expected in recorded_files(text):
            reader = disk.reader(location.volume)
            if reader is None or reader.kind(location.path) != "file":
                continue
            with reader.open(location.path) as content:
                if Digest.of_stream(content).hex != expected:
                    yield Problem(code="boot.differs", where=str(location), message="differs from what was installed")


def _check_menus(services: Services, disk: DiskImage) -> Iterator[Problem]:
    """Every file that a boot menu names must be there."""

    def read_menu(name: str) -> BootMenu:
        menu: BootMenu = services.make(families.BOOTLOADERS, name).read_menu(disk)
        return menu

    registry = services.host.collect(families.BOOTLOADERS)
    for provider in registry:
        try:
            menu = services.host.attempt(registry.owner(provider.name), "read_menu", read_menu, provider.name)
        except CfsError as error:
            yield Problem(code="boot.menu", where=provider.name, message=error.message)
            continue
        if menu is None:
            continue
        for entry in menu.entries:
            for location in entry.files:
                if not disk.exists(location):
                    message = f"is named by the boot entry {entry.title!r} and missing"
                    yield Problem(code="boot.menu", where=str(location), message=message)
