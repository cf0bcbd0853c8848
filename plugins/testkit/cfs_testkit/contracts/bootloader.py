"""The contract of bootloaders. Its heart: after every single action, whatever starts by default is complete."""

from __future__ import annotations

from cfs_testkit.contracts.bootloader_arguments import ArgumentChecks
from cfs_testkit.contracts.bootloader_console import ConsoleChecks
from cfs_testkit.contracts.bootloader_crash import CrashChecks
from cfs_testkit.contracts.bootloader_install import InstallChecks
from cfs_testkit.contracts.bootloader_menu import MenuChecks
from cfs_testkit.contracts.bootloader_options import OptionChecks


class BootloaderContract(InstallChecks, MenuChecks, ArgumentChecks, OptionChecks, CrashChecks, ConsoleChecks):
    """What a bootloader must do.

    Give `image_files` if the loader comes out of the image, a `foreign` entry with its `shared_files`, and
    `as_the_loader_reads` where there is an independent reader.
    """
