"""What cfs-grub offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import BootloaderProvider, Capability, EntryKind, Firmware, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import Bootloader, PluginContext

CFS_PLUGIN_API = (1, 0)


def _make(context: PluginContext) -> Bootloader:
    from cfs_grub.bootloader import Grub

    return Grub(context.commands)


@hookimpl
def cfs_register_bootloaders() -> Iterable[BootloaderProvider]:
    """Offer GRUB 2."""
    return [
        BootloaderProvider(
            name="grub",
            summary="GNU GRUB 2: UEFI and BIOS, Boot Loader Specification entries and unified kernel images",
            factory=_make,
            firmware=frozenset({Firmware.UEFI, Firmware.BIOS}),
            entries=frozenset({EntryKind.BLS, EntryKind.UKI}),
            preference=10,
            can=frozenset(Capability),
            marker_paths=(
                "/usr/lib/grub/*-efi*/*",
                "/usr/lib/grub/i386-pc/boot.img",
                "/usr/share/grub2/*-efi/*",
                "/usr/share/grub2/i386-pc/boot.img",
                "/usr/lib/efi/grub2/*",
                "/usr/lib/ostree-boot/efi/EFI/*/grub*.efi",
                "/usr/lib/bootupd/updates/EFI/*/grub*.efi",
            ),
        )
    ]
