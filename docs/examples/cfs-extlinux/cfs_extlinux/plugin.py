"""What cfs-extlinux offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import BootloaderProvider, Capability, EntryKind, Firmware, KernelForm, LoaderConsole, ProviderSetting, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import Bootloader, PluginContext

CFS_PLUGIN_API = (2, 0)


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
        console=LoaderConsole(
            name="U-Boot",
            started=(r"^U-Boot \d", r"\bwith extlinux\b", r"^Retrieving file: "),
            failed=(
                r"^Skipping \S+ for failure retrieving ",
                r"^Bad Linux ",
                r"^SCRIPT FAILED",
                r"^Error reading config file",
                r"^=> ?$",
            ),
            harmless=(r"^append: ",),  # and then the kernel's arguments
        ),
        kernels=frozenset({KernelForm.IMAGE, KernelForm.GZIP, KernelForm.BZIMAGE}),
        can=frozenset({Capability.DEFAULT, Capability.TIMEOUT}),
        one_initrd=True,
        settings=(
            ProviderSetting(
                name="devicetree",
                kind="text",
                summary="device tree of the board, as a path among those of the image's kernel",
            ),
        ),
    )
