"""The boot menus of a disk image, as every installed bootloader's reader sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import CfsError
from cfs_core.examine.disk import opened_disk
from cfs_core.interfaces.command import DiskMenu
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.deploy.services import Services
    from cfs_core.model.boot import BootMenu


def boot_menus(services: Services, path: Path) -> tuple[DiskMenu, ...]:
    """Read the menus of the disk image at *path*, one for each installed bootloader, by name.

    Raises:
        DiskError: the layout that is configured cannot read it.
    """
    registry = services.host.collect(families.BOOTLOADERS)
    if not list(registry) or not list(services.host.collect(families.LAYOUTS)):
        return ()  # nobody here reads disks
    with opened_disk(services, path) as disk:

        def read(name: str) -> BootMenu | None:
            try:
                menu: BootMenu = services.make(families.BOOTLOADERS, name).read_menu(disk)
            except CfsError:
                return None  # a disk that another loader starts need not make sense to this one
            return menu

        return tuple(
            DiskMenu(
                loader=provider,
                menu=services.host.attempt(registry.owner(provider.name), "read_menu", read, provider.name),
            )
            for provider in registry
        )
