"""Starting GRUB from BIOS without root rights: boot code in the first sector, core image in a BIOS boot partition.

Source: GRUB, grub-core/boot/i386/pc/boot.S and diskboot.S, util/setup.c (what grub-bios-setup writes).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cfs_core.plugin import BootError

if TYPE_CHECKING:
    from cfs_core.plugin import Partition

SECTOR = 512
MBR_CODE = 440
"""Bytes of the first sector that are code; disk signature and partition table follow."""

_KERNEL_SECTOR = 0x5C
_DRIVE_CHECK = 0x66
_BLOCK_LIST = SECTOR - 12
_HINT = "reinstall GRUB's package for BIOS (grub-pc-bin on Debian) in the image"


def boot_code(boot_image: bytes, core_sector: int) -> bytes:
    """Return the code of a disk's first sector that starts the core image at *core_sector* (in 512-byte sectors).

    Raises:
        BootError: *boot_image* is not GRUB's boot.img.
    """
    _check(boot_image, "boot.img")
    code = bytearray(boot_image[:MBR_CODE])
    struct.pack_into("<Q", code, _KERNEL_SECTOR, core_sector)
    # boot.S jumps over its check of the drive number unless whoever installs it knows that this is a hard disk.
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    return bytes(code)


def block_list(disk_boot_image: bytes, core_sector: int) -> tuple[int, bytes]:
    """Return offset and bytes of what the first sector of a core image at *core_sector* says of where the second is.

    That sector is *disk_boot_image*, diskboot.img; grub-mkimage fills in how many follow.

    Raises:
        BootError: *disk_boot_image* is not GRUB's diskboot.img.
    """
    if len(disk_boot_image) != SECTOR:
        message = "diskboot.img of the image is not one sector"
        raise BootError(message, hint=_HINT)
    return _BLOCK_LIST, struct.pack("<Q", core_sector + 1)


def free_half(partition: Partition, code: bytes) -> int:
    """Return the offset, in bytes of the BIOS boot *partition*, of the half that boot *code* does not start from.

    A core image takes a third of 1 MiB, so there is room for the next one beside what starts now.
    """
    half = partition.size // 2 // SECTOR * SECTOR
    if len(code) < _KERNEL_SECTOR + 8:
        return 0
    started = struct.unpack_from("<Q", code, _KERNEL_SECTOR)[0] * SECTOR - partition.start
    return half if 0 <= started < half else 0


def _check(image: bytes, name: str) -> None:
    if len(image) != SECTOR or image[-2:] != b"\x55\xaa":
        message = f"{name} of the image is not a boot sector"
        raise BootError(message, hint=_HINT)
