"""Programs for UEFI that a plan puts onto the ESP: loaders, whoever made them, and UKIs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.image.kernel import read_program
from cfs_core.model.action import CopyObject, WriteFile
from cfs_core.model.content import BytesContent
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.model.action import PlacingAction
    from cfs_core.model.boot import Architecture

_HINT = "reinstall the package of the loader in the image, or choose another --bootloader"


def examine_programs(actions: Iterable[PlacingAction], architecture: Architecture) -> Iterator[Finding]:
    """Say which ``*.efi`` of *actions*, what a plan puts onto the ESP, no firmware would start.

    The file that firmware starts by itself must be for *architecture*; others may be for other machines.
    """
    removable = f"/EFI/BOOT/BOOT{architecture.efi}.EFI".lower()
    for action in actions:
        if not action.location.path.lower().endswith(".efi") or not isinstance(action, CopyObject | WriteFile):
            continue
        content = action.source if isinstance(action, CopyObject) else BytesContent(action.data)
        try:
            found = read_program(content).architecture
        except ImageError as cause:
            message = f"{action.location} would not be started by firmware: {cause.message}"
            yield Finding.error("boot.loader-damaged", message, _HINT)
            continue
        if action.location.path.lower() == removable and found is not architecture:
            name = found.value if found is not None else "another CPU"
            message = f"{action.location} is a program for {name}, and the disk is for {architecture.value}"
            yield Finding.error("boot.loader-damaged", message, _HINT)
