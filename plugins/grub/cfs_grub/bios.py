"""Starting GRUB from BIOS without root rights: boot code in the first sector, core image in a BIOS boot partition.

Source: GRUB, grub-core/boot/i386/pc/boot.S and diskboot.S, util/setup.c (what grub-bios-setup writes).
"""

from __future__ import annotations

import struct

from cfs_core.plugin import BootError

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


def first_core_sector(disk_boot_image: bytes, core_sector: int) -> bytes:
    """Return diskboot.img, the first sector of a core image, made for a core image at *core_sector*.

    Its block list is told where the second sector is; grub-mkimage fills in how many there are.

    Raises:
        BootError: *disk_boot_image* is not GRUB's diskboot.img.
    """
    if len(disk_boot_image) != SECTOR:
        message = "diskboot.img of the image is not one sector"
        raise BootError(message, hint=_HINT)
    sector = bytearray(disk_boot_image)
    struct.pack_into("<Q", sector, _BLOCK_LIST, core_sector + 1)
    return bytes(sector)


def _check(image: bytes, name: str) -> None:
    if len(image) != SECTOR or image[-2:] != b"\x55\xaa":
        message = f"{name} of the image is not a boot sector"
        raise BootError(message, hint=_HINT)
