"""A kernel and an init that are small and real: what loaders and kernels look at is right, the code only waits.

Sources: Linux, Documentation/arch/x86/boot.rst, arch/arm64/booting.rst, arch/riscv/boot-image-header.rst; Microsoft
PE/COFF; the ELF specification.
"""

from __future__ import annotations

import struct

PE_MACHINES = {"amd64": 0x8664, "arm64": 0xAA64, "386": 0x014C, "riscv64": 0x5064}
ELF_MACHINES = {"amd64": 62, "arm64": 183, "386": 3, "riscv64": 243}
EFI_APPLICATION = 10

_SETUP = 1024
"""Bytes before a kernel's code: PE header, and on x86 two sectors of setup."""

_OPTIONAL = 112
"""Bytes of the optional header of PE32+, without data directories."""

_IMAGE_MAGIC = {"arm64": b"ARM\x64", "riscv64": b"RSC\x05"}

_WAITING = {
    # again: mov eax, pause; syscall; jmp again
    "amd64": bytes.fromhex("b8220000000f05ebf7"),
    "386": bytes.fromhex("b81d000000cd80ebf7"),
    # again: the first four arguments = 0; ppoll; jump to again
    "arm64": struct.pack("<7I", 0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001, 0x17FFFFFA),
    "riscv64": struct.pack("<7I", 0x00000513, 0x00000593, 0x00000613, 0x00000693, 0x04900893, 0x73, 0xFE9FF06F),
}


def optional_header(subsystem: int = EFI_APPLICATION) -> bytes:
    """Return the optional header of a PE32+ file for this subsystem, without data directories."""
    header = bytearray(_OPTIONAL)
    struct.pack_into("<H", header, 0, 0x20B)
    struct.pack_into("<II", header, 32, 4096, 512)
    struct.pack_into("<H", header, 68, subsystem)
    return bytes(header)


def kernel(architecture: str = "amd64", version: str = "6.12.0-testkit", *, stub: bool = True) -> bytes:
    """Return a bzImage (x86) or an ``Image`` (arm64, riscv64), with an EFI stub or without."""
    code = (b"kernel" * 200).ljust(1536, b"\0")
    head = bytearray(_SETUP)
    if stub:
        _put_pe_header(head, architecture, len(code))
    if architecture in _IMAGE_MAGIC:
        struct.pack_into("<QQ", head, 0x10, _SETUP + len(code), 0xA)
        head[0x38:0x3C] = _IMAGE_MAGIC[architecture]
    else:
        _put_setup_header(head, architecture, len(code), version)
    return bytes(head) + code


def _put_pe_header(head: bytearray, architecture: str, code: int) -> None:
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 0x40)
    struct.pack_into("<4sHHIIIHH", head, 0x40, b"PE\0\0", PE_MACHINES[architecture], 1, 0, 0, 0, _OPTIONAL, 0x206)
    head[0x58 : 0x58 + _OPTIONAL] = optional_header()
    section = (b".text", code, 0x1000, code, _SETUP, 0, 0, 0, 0, 0x60000020)
    struct.pack_into("<8sIIIIIIHHI", head, 0x58 + _OPTIONAL, *section)


def _put_setup_header(head: bytearray, architecture: str, code: int, version: str) -> None:
    head[0x1F1] = _SETUP // 512 - 1
    struct.pack_into("<I", head, 0x1F4, code // 16)
    struct.pack_into("<HH", head, 0x1FE, 0xAA55, 0x66EB)
    struct.pack_into("<4sH", head, 0x202, b"HdrS", 0x20F)
    struct.pack_into("<H", head, 0x20E, 0x300 - 0x200)
    text = f"{version} (testkit) #1\0".encode()
    head[0x300 : 0x300 + len(text)] = text
    head[0x211] = 1  # loaded high
    struct.pack_into("<H", head, 0x236, 1 if architecture == "amd64" else 0)  # a 64-bit entry point
    struct.pack_into("<I", head, 0x238, 2047)


def program(architecture: str = "amd64", *, interpreter: str | None = None) -> bytes:
    """Return a static ELF program that waits for ever, or one that asks for *interpreter*."""
    wide = architecture != "386"
    code, base = _WAITING[architecture], 0x400000
    path = interpreter.encode() + b"\0" if interpreter else b""
    count = 2 if interpreter else 1
    header, each = (64, 56) if wide else (52, 32)
    start = header + each * count
    size = start + len(path) + len(code)
    head = struct.pack("<4sBBB9xHHI", b"\x7fELF", 2 if wide else 1, 1, 1, 2, ELF_MACHINES[architecture], 1)
    place = (base + start + len(path), header, 0)
    head += struct.pack("<QQQ" if wide else "<III", *place) + struct.pack("<IHHHHHH", 0, header, each, count, 0, 0, 0)
    table = _segment(3, 4, start, base + start, len(path), wide=wide) if interpreter else b""
    return head + table + _segment(1, 5, 0, base, size, wide=wide) + path + code


def _segment(kind: int, flags: int, offset: int, address: int, size: int, *, wide: bool) -> bytes:
    if wide:
        return struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, 4096)
    return struct.pack("<IIIIIIII", kind, offset, address, address, size, size, flags, 4096)
