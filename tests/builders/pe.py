"""PE files for tests: `pe_bytes` with any sections, `uki_bytes` as ukify would make one (never bootable)."""

from __future__ import annotations

import struct

from cfs_testkit.programs import kernel, optional_header

AMD64 = 0x8664


def pe_bytes(sections, machine: int = AMD64, *, optional: bytes | None = None) -> bytes:
    """Return a PE file, an EFI application, with ``(name, data)`` sections, each aligned to 512 bytes."""
    sections = list(sections)
    optional = optional_header() if optional is None else optional
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", machine, len(sections), 0, 0, 0, len(optional), 0)
    offset = 64 + len(coff) + len(optional) + 40 * len(sections)
    table, body = b"", b""
    start = offset + -offset % 512
    for name, data in sections:
        raw = data + bytes(-len(data) % 512)
        table += struct.pack(
            "<8sIIIIIIHHI", name.encode(), len(data), 0x1000, len(raw), start + len(body), 0, 0, 0, 0, 0
        )
        body += raw
    head = dos + coff + optional + table
    return head + bytes(start - len(head)) + body


def uki_bytes(
    cmdline: str | None = "quiet",
    *,
    version: str = "6.12.1",
    linux: bytes | None = None,
    initrd: bytes | None = b"initrd",
) -> bytes:
    """Return a UKI with these sections."""
    sections = [
        (".osrel", b'ID=test\nPRETTY_NAME="Test OS 1"\nVERSION_ID=1\n'),
        (".uname", version.encode()),
        (".linux", kernel() if linux is None else linux),
    ]
    if cmdline is not None:
        sections.insert(0, (".cmdline", cmdline.encode() + b"\0"))
    if initrd is not None:
        sections.append((".initrd", initrd))
    return pe_bytes(sections)


def addon_bytes(cmdline: str) -> bytes:
    """Return a UKI addon."""
    return pe_bytes([(".cmdline", cmdline.encode() + b"\0")])
