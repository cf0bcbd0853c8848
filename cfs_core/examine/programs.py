"""Boot files of a finished disk: are they what loader, firmware and kernel can start?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.deploy.bootable.kernels import unstartable
from cfs_core.errors import CfsError
from cfs_core.image.initrd import initrd_compression
from cfs_core.image.kernel import read_kernel, read_program
from cfs_core.model.boot import EntryKind, KernelForm
from cfs_core.model.disk import Location, Volume
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.interfaces.provider import BootloaderProvider
    from cfs_core.model.boot import BootEntry
    from cfs_core.target.read import DiskImage

REMOVABLE = Location(Volume.ESP, "/EFI/BOOT")
"""Where firmware looks for something to start (UEFI 2.10, 3.5.1.1)."""


def examine_loaders(disk: DiskImage) -> Iterator[Finding]:
    """Yield programs that firmware will look at by itself, and not start."""
    for name in disk.names(REMOVABLE):
        if name.lower().startswith("boot") and name.lower().endswith(".efi"):
            yield from examine_program(disk, REMOVABLE / name)


def examine_program(disk: DiskImage, location: Location) -> Iterator[Finding]:
    """Say what keeps firmware from starting a loader."""
    try:
        read_program(disk.content(location))
    except CfsError as cause:
        yield Finding.error("boot.loader-damaged", cause.message, where=str(location))
    except FileNotFoundError:
        yield Finding.error("boot.loader-damaged", "is no regular file", where=str(location))


def examine_kernel(disk: DiskImage, entry: BootEntry, loader: BootloaderProvider) -> Iterator[Finding]:
    """Say why *loader* does not start the kernel of an entry of ours, or the kernel does not unpack its initrds."""
    if entry.foreign or not entry.files or not all(map(disk.exists, entry.files)):
        return
    first, *others = entry.files
    try:
        if entry.kind is EntryKind.UKI:
            linux = read_program(disk.content(first)).section(".linux")
            forms = read_kernel(linux).forms if linux is not None else frozenset()
            reason = None if KernelForm.EFI in forms else "it has no kernel with an EFI stub"
        else:
            forms = read_kernel(disk.content(first)).forms
            reasons = [unstartable(forms, loader, {each}) for each in sorted(loader.firmware)]
            reason = None if None in reasons else next(iter(reasons), None)
    except CfsError as cause:
        reason = cause.message
    except FileNotFoundError:
        reason = "is no regular file"
    if reason is not None:
        yield Finding.error("boot.kernel", reason, where=str(first))
    for location in others if entry.kind is EntryKind.BLS else ():
        try:
            initrd_compression(disk.content(location))
        except CfsError as cause:
            yield Finding.error("boot.initrd", cause.message, where=str(location))
        except FileNotFoundError:
            yield Finding.error("boot.initrd", "is no regular file", where=str(location))
