"""What cfs-refind offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import BootloaderProvider, Capability, EntryKind, Firmware, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import Bootloader, PluginContext

CFS_PLUGIN_API = (1, 0)


def _make(_context: PluginContext) -> Bootloader:
    from cfs_refind.bootloader import Refind

    return Refind()


@hookimpl
def cfs_register_bootloaders() -> Iterable[BootloaderProvider]:
    """Offer rEFInd."""
    yield BootloaderProvider(
        name="refind",
        summary="rEFInd: UEFI, stanzas in refind.conf, kernels and unified kernel images",
        factory=_make,
        firmware=frozenset({Firmware.UEFI}),
        entries=frozenset({EntryKind.BLS, EntryKind.UKI}),
        can=frozenset({Capability.DEFAULT, Capability.ONCE, Capability.TIMEOUT}),
        preference=30,
        marker_paths=("/usr/share/refind/refind/refind_*.efi",),
    )
