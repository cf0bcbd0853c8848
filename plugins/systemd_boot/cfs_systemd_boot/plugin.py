"""What cfs-systemd-boot offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import BootloaderProvider, EntryKind, Firmware, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import Bootloader, PluginContext

CFS_PLUGIN_API = (1, 0)


def _make(context: PluginContext) -> Bootloader:
    from cfs_systemd_boot.bootloader import SystemdBoot
    from cfs_systemd_boot.enrolment import keys_from

    return SystemdBoot(keys_from(context.settings))


@hookimpl
def cfs_register_bootloaders() -> Iterable[BootloaderProvider]:
    """Offer systemd-boot."""
    return [
        BootloaderProvider(
            name="systemd-boot",
            summary="systemd-boot: UEFI, Boot Loader Specification entries and unified kernel images",
            factory=_make,
            firmware=frozenset({Firmware.UEFI}),
            entries=frozenset({EntryKind.BLS, EntryKind.UKI}),
            preference=20,  # GRUB comes with kernels and live images; systemd-boot is put there on purpose
            marker_paths=("/usr/lib/systemd/boot/efi/systemd-boot*.efi*",),
        )
    ]
