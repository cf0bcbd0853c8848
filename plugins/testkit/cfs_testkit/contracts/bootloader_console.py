"""Checks of what a bootloader says that it writes to a serial console."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_testkit.contracts.bootloader_setting import BootloaderSetting

if TYPE_CHECKING:
    from cfs_core.plugin import BootloaderProvider

EVERY_BOOT = (
    'BdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x2,0x0)',
    'BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x2,0x0)',
    "SeaBIOS (version 1.16.3-debian-1.16.3-2)",
    "Booting from Hard Disk...",
    "EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path",
    "[    0.000000] Linux version 6.12.0 (builder@example.org) (gcc (Debian 14.2.0) 14.2.0) #1 SMP",
    "[    0.000000] Command line: root=UUID=1 rw console=ttyS0",
    "[    1.234567] ACPI BIOS Error (bug): Could not resolve symbol",
    "[  OK  ] Reached target multi-user.target - Multi-User System.",
    "[FAILED] Failed to start a.service - A.",
    "",
    "Debian GNU/Linux 13 host ttyS0",
    "host login: ",
)
"""Lines that others write, in good boots too."""


class ConsoleChecks(BootloaderSetting):
    """What `cfs prove` is told to look for."""

    def test_the_words_on_its_console_are_its_own(self, offered: BootloaderProvider) -> None:
        """No pattern for its console matches what firmware, kernel and system write in a good boot."""
        console = offered.console
        for field in ("started", "failed", "harmless"):
            for pattern in getattr(console, field):
                matched = [line for line in EVERY_BOOT if re.search(pattern, line)]
                assert matched == [], f"console.{field}: {pattern!r} matches {matched[0]!r}, which others write"
