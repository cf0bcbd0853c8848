"""What cfs-grub offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import BootloaderProvider, Capability, EntryKind, Firmware, KernelForm, LoaderConsole, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import Bootloader, PluginContext

CFS_PLUGIN_API = (2, 0)


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
            kernels=frozenset({KernelForm.BZIMAGE, KernelForm.EFI, KernelForm.GZIP}),
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
            console=LoaderConsole(
                name="GRUB",
                started=(r"^GRUB loading", r"\bWelcome to GRUB", r"\bGNU GRUB +version"),
                failed=(
                    r"\berror: .*\S",
                    r"^Entering rescue mode",
                    r"^(?:grub rescue|grub)> ?$",
                    r"^Failed to boot both default and fallback entries",
                    r"^GRUB .*Error",  # boot.img: "GRUB Geom Error", "GRUB Hard Disk Error"
                ),
                harmless=(
                    r"\berror: no suitable video mode found",
                    r"\berror: .*\.pf2[`'. ]",
                    r"\berror: (?:serial port|terminal) .*(?:not|n't) found",
                ),
            ),
        )
    ]
