"""EFI programs as small as firmware accepts their headers, for images that a loader is installed from."""

from __future__ import annotations

import struct

from cfs_core.plugin import Architecture

MACHINES = {
    Architecture.AMD64: 0x8664,
    Architecture.ARM64: 0xAA64,
    Architecture.RISCV64: 0x5064,
    Architecture.I386: 0x14C,
}
"""Machine types of PE files (Microsoft PE/COFF)."""

_OPTIONAL_BYTES = 112


def efi_program(architecture: Architecture = Architecture.AMD64, text: bytes = b"") -> bytes:
    """Return a PE32+ file without sections for *architecture*, with *text* behind its headers."""
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", MACHINES[architecture], 0, 0, 0, 0, _OPTIONAL_BYTES, 0x22)
    optional = struct.pack("<H", 0x20B) + bytes(_OPTIONAL_BYTES - 2)
    return dos + coff + optional + text
