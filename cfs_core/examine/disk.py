"""Checking a disk image that is not mounted: table, filesystems, repository, boot menu."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cfs_core.deploy.kernel_line import examine_sealed_entry
from cfs_core.deploy.services import each_made
from cfs_core.deploy.storage import storage_of
from cfs_core.errors import CfsError, ImageError
from cfs_core.examine.programs import examine_kernel, examine_loaders
from cfs_core.image.pe import read_pe
from cfs_core.model.digest import Digest
from cfs_core.model.disk import Volume
from cfs_core.model.origin import ORIGIN_LIMIT, OriginFile, unread_message
from cfs_core.model.places import DEPLOYMENTS, REPOSITORY
from cfs_core.model.plan import Finding
from cfs_core.pluginhost import families
from cfs_core.target.read import open_disk

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.provider import BootloaderProvider
    from cfs_core.interfaces.storage import FileReader, StorageFormat
    from cfs_core.model.boot import BootEntry, BootMenu
    from cfs_core.model.disk import Location
    from cfs_core.target.read import DiskImage

LOADER_LIMIT = 64 << 20
"""Bytes; a boot loader has a few MiB."""


@contextmanager
def opened_disk(services: Services, path: Path) -> Iterator[DiskImage]:
    """Open a disk image with the layout that is configured and every filesystem that is installed.

    Raises:
        DiskError: that layout cannot read it.
    """
    layout = services.make(families.LAYOUTS, str(services.settings.value("install.layout")))
    with open_disk(path, layout, dict(each_made(services, families.FILESYSTEMS))) as disk:
        yield disk


def examine_disk(services: Services, path: Path) -> Iterator[Finding]:
    """Yield what is wrong with the disk image at *path*, byte for byte where content has a digest.

    Raises:
        DiskError: no layout that is installed can read it.
    """
    with opened_disk(services, path) as disk:
        root = disk.reader(Volume.ROOT)
        storage = storage_of(services, root, REPOSITORY.path) if root is not None else None
        yield from examine_volumes(disk, storage)
        if root is not None:
            yield from _examine_boot_files(disk, root, storage, services.host.collect(families.BOOTLOADERS))
        yield from _examine_menus(services, disk)


def examine_volumes(disk: DiskImage, storage: StorageFormat | None) -> Iterator[Finding]:
    """Check partition table, filesystems and the repository, whose format is *storage* if any that is known."""
    yield from disk.check()
    yield from examine_loaders(disk)
    root = disk.reader(Volume.ROOT)
    if root is None:
        yield Finding.error("disk.no-root", "has no root volume that can be read", where=str(disk.path))
    elif storage is None:
        message = "is of no storage format that is installed, or is not there"
        yield Finding.error("storage.unknown", message, where=str(REPOSITORY))
    else:
        yield from storage.check_files(root, REPOSITORY.path)


def examine_entry(disk: DiskImage, entry: BootEntry, loader: BootloaderProvider) -> Iterator[Finding]:
    """Look whether what a boot entry names is there, whether *loader* starts it, and whether it finds its root."""
    for location in entry.files:
        if not disk.exists(location):
            message = f"is named by the boot entry {entry.title!r} and missing"
            yield Finding.error("boot.menu", message, where=str(location))
    found = list(examine_sealed_entry(disk, entry))
    yield from found
    if not any(problem.code == "boot.uki-damaged" for problem in found):
        yield from examine_kernel(disk, entry, loader)


def _examine_boot_files(
    disk: DiskImage, root: FileReader, storage: StorageFormat | None, loaders: Container[str]
) -> Iterator[Finding]:
    """Compare loader, kernels and entries with what each deployment's origin file says was installed.

    A file that is gone was renamed or replaced by an update, or taken away with its deployment's entry; what the menu
    still needs is `_examine_menus`' business.
    """
    deployments = root.names(DEPLOYMENTS.path) if root.kind(DEPLOYMENTS.path) == "directory" else ()
    for name in deployments:
        path = f"{DEPLOYMENTS.path}/{name}/{name}.origin"
        if root.kind(path) != "file":
            yield Finding.error("state.origin", "is missing", where=path)
            continue
        with root.open(path) as file:
            text = file.read(ORIGIN_LIMIT).decode("utf-8", "replace")
        try:
            origin = OriginFile.parse(text)
        except ValueError as error:
            yield Finding.error("state.origin", str(error), where=path)
            continue
        if origin.bootloader is not None and origin.bootloader not in loaders:
            message = unread_message(origin.bootloader, origin.bootloader_distribution)
            yield Finding.error("boot.loader-unknown", message, where=name[:16])
        for location, expected in origin.files:
            reader = disk.reader(location.volume)
            if reader is None or reader.kind(location.path) != "file":
                continue
            with reader.open(location.path) as content:
                same = Digest.of_stream(content).hex == expected
            if not same and not _is_loader_update(disk, location, root, storage):
                yield Finding.error("boot.differs", "differs from what was installed", where=str(location))


def _is_loader_update(disk: DiskImage, location: Location, root: FileReader, storage: StorageFormat | None) -> bool:
    """Return whether a running system put a loader of one of its images there (systemd-boot-update.service, bootupd).

    Kernels, UKIs and their addons are never replaced in place.
    """
    content = disk.content(location)
    if storage is None or not location.path.lower().endswith(".efi") or content.size > LOADER_LIMIT:
        return False
    try:
        sections = {section.name for section in read_pe(content).sections}
    except ImageError:
        return False
    return not sections & {".linux", ".cmdline"} and storage.has_file(root, REPOSITORY.path, content)


def _examine_menus(services: Services, disk: DiskImage) -> Iterator[Finding]:
    """Every file that a boot menu names must be there."""

    def read_menu(name: str) -> BootMenu:
        menu: BootMenu = services.make(families.BOOTLOADERS, name).read_menu(disk)
        return menu

    registry = services.host.collect(families.BOOTLOADERS)
    for provider in registry:
        try:
            menu = services.host.attempt(registry.owner(provider.name), "read_menu", read_menu, provider.name)
        except CfsError as error:
            yield Finding.error("boot.menu", error.message, where=provider.name)
            continue
        if menu is None:
            continue
        for entry in menu.entries:
            yield from examine_entry(disk, entry, provider)
