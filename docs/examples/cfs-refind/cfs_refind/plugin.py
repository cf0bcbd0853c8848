"""What cfs-refind offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import BootloaderProvider, Capability, EntryKind, Firmware, KernelForm, LoaderConsole, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import Bootloader, PluginContext

CFS_PLUGIN_API = (2, 0)


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
        kernels=frozenset({KernelForm.EFI}),
        can=frozenset({Capability.DEFAULT, Capability.ONCE, Capability.TIMEOUT}),
        preference=30,
        marker_paths=("/usr/share/refind/refind/refind_*.efi",),
        console=LoaderConsole(
            name="rEFInd",
            started=(r"\brEFInd(?: \d| - )", r"^Starting .*\.efi\b", r"^Using load options"),
            failed=(r"^Error: ", r"^Invalid loader file", r"^Unknown error", r"\bwhile (?:loading|starting|opening) "),
            harmless=(r"^Using load options",),  # and then the kernel's arguments
        ),
    )
