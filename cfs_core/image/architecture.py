"""Which CPU a kernel or a program was built for: what a file says of itself, not what the image claims."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.image.pe import read_pe
from cfs_core.model.boot import Architecture

if TYPE_CHECKING:
    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.model.content import Content

# Every header that is looked at lies in the first few KiB, of what is unpacked as well.
_HEAD = 64 * 1024
_ELF_MACHINES = {62: Architecture.AMD64, 183: Architecture.ARM64, 243: Architecture.RISCV64, 3: Architecture.I386}
_ELF_64 = 2
_PROGRAMS = ("/usr/lib/systemd/systemd", "/usr/bin/bash", "/usr/bin/sh", "/sbin/init")


def kernel_architecture(kernel: Content) -> Architecture | None:
    """Return what a kernel or UKI was built for, None where it does not tell or cfs does not know the CPU.

    Understood are PE (EFI stub, UKI, EFI zboot), x86 bzImage without EFI stub, arm64 and RISC-V ``Image``, gzipped
    or not, and ELF.
    """
    try:
        return read_pe(kernel).architecture
    except ImageError:
        pass
    with kernel.open() as file:
        head = file.read(_HEAD)
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
        except zlib.error:
            return None
    return _of_head(head)


def userspace_architecture(image: TreeReader) -> Architecture | None:
    """Return what the programs of an image were built for, None if none of the usual ones tells."""
    for path in _PROGRAMS:
        content = image.content(path)
        if content is not None:
            with content.open() as file:
                found = _of_elf(file.read(64))
            if found is not None:
                return found
    return None


def _of_head(head: bytes) -> Architecture | None:
    if head[0x38:0x3C] == b"ARM\x64":  # Documentation/arch/arm64/booting.rst
        return Architecture.ARM64
    if head[0x38:0x3C] == b"RSC\x05":  # Documentation/arch/riscv/boot-image-header.rst
        return Architecture.RISCV64
    if head[0x202:0x206] == b"HdrS":  # Documentation/arch/x86/boot.rst: bit 0 of xloadflags is a 64-bit entry point
        return Architecture.AMD64 if head[0x236:0x237] and head[0x236] & 1 else Architecture.I386
    if head[:2] == b"MZ" and len(head) >= 0x40:  # noqa: PLR2004 - a DOS header
        (start,) = struct.unpack_from("<I", head, 0x3C)
        if head[start : start + 4] == b"PE\0\0":
            machine = int.from_bytes(head[start + 4 : start + 6], "little")
            return _PE_IN_GZIP.get(machine)
    return _of_elf(head)


_PE_IN_GZIP = {0xAA64: Architecture.ARM64, 0x5064: Architecture.RISCV64}


def _of_elf(head: bytes) -> Architecture | None:
    if head[:4] != b"\x7fELF" or len(head) < 20:  # noqa: PLR2004 - up to e_machine
        return None
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    found = _ELF_MACHINES.get(machine)
    if found in {Architecture.AMD64, Architecture.RISCV64} and head[4] != _ELF_64:
        return None  # x32, RV32
    return found
