"""What cfs-extlinux offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import BootloaderProvider, Capability, EntryKind, Firmware, ProviderSetting, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import Bootloader, PluginContext

CFS_PLUGIN_API = (1, 0)


def _make(context: PluginContext) -> Bootloader:
    from cfs_extlinux.bootloader import Extlinux

    return Extlinux.of(context.settings)


@hookimpl
def cfs_register_bootloaders() -> Iterable[BootloaderProvider]:
    """Offer extlinux.conf."""
    yield BootloaderProvider(
        name="extlinux",
        summary="extlinux.conf on a boot volume, for boards with U-Boot and no EFI",
        factory=_make,
        firmware=frozenset({Firmware.UBOOT}),
        entries=frozenset({EntryKind.BLS}),
        can=frozenset({Capability.DEFAULT, Capability.TIMEOUT}),
        settings=(
            ProviderSetting(
                name="devicetree",
                kind="text",
                summary="device tree of the board, as a path among those of the image's kernel",
            ),
        ),
    )
