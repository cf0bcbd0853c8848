"""What cfs-systemd-boot offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import (
    BootloaderProvider,
    Capability,
    EntryKind,
    Firmware,
    KernelForm,
    LoaderConsole,
    ProviderSetting,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import Bootloader, PluginContext

CFS_PLUGIN_API = (2, 0)


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
            kernels=frozenset({KernelForm.EFI}),
            can=frozenset(Capability),
            settings=(
                ProviderSetting(
                    name="secure-boot-keys", kind="text", summary="directory of Secure Boot keys to enrol (PK, KEK, db)"
                ),
            ),
            preference=20,  # GRUB comes with kernels and live images; systemd-boot is put there on purpose
            marker_paths=("/usr/lib/systemd/boot/efi/systemd-boot*.efi*",),
            console=LoaderConsole(
                name="systemd-boot",
                started=(r"\bsystemd-boot \d",),
                failed=(
                    r"^Error (?:loading|opening|starting|getting|preparing|reading|finding) ",
                    r"^Failed to (?:open|load|execute|start|prepare|boot) ",
                    r"^No loader found",
                    r"^Unable to locate ",  # systemd-stub, of a section that a UKI lacks
                ),
            ),
        )
    ]
