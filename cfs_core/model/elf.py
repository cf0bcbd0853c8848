"""Headers of ELF files: the CPU a program is for, and the interpreter that it asks for (elf(5))."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.model.boot import Architecture

if TYPE_CHECKING:
    from typing import BinaryIO

ELF_MAGIC = b"\x7fELF"
_MACHINES = {62: Architecture.AMD64, 183: Architecture.ARM64, 243: Architecture.RISCV64, 3: Architecture.I386}
_WIDE = 2
_LITTLE = 1
_INTERPRETER = 3
_EXECUTABLE = frozenset({2, 3})
"""ET_EXEC and ET_DYN: what the kernel starts."""

_HEADER = 64
_SEGMENTS = 1024
_PATH_LIMIT = 4096


def elf_architecture(head: bytes) -> Architecture | None:
    """Return the CPU of an ELF file by its first 20 bytes; None if it is none, or for a CPU that cfs does not know."""
    if not head.startswith(ELF_MAGIC) or len(head) < 20:  # noqa: PLR2004 - up to e_machine
        return None
    machine = int.from_bytes(head[18:20], "little" if head[5] == _LITTLE else "big")
    found = _MACHINES.get(machine)
    if found in {Architecture.AMD64, Architecture.RISCV64} and head[4] != _WIDE:
        return None  # x32, RV32
    return found


def elf_interpreter(file: BinaryIO) -> str | None:
    """Return the program that loads an ELF file's libraries, None for a static one; *file* can be sought in.

    Raises:
        ImageError: no program that the kernel could start, or damaged.
    """
    file.seek(0)
    head = file.read(_HEADER)
    order = "<" if head[5:6] == bytes([_LITTLE]) else ">"
    wide = head[4:5] == bytes([_WIDE])
    try:
        (kind,) = struct.unpack_from(f"{order}H", head, 16)
        (table,) = struct.unpack_from(f"{order}Q", head, 32) if wide else struct.unpack_from(f"{order}I", head, 28)
        size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    except struct.error:
        raise _damaged() from None
    if kind not in _EXECUTABLE or not 0 < count <= _SEGMENTS or size != (56 if wide else 32):
        msg = "it is an ELF file that cannot be started"
        raise ImageError(msg)
    segment = struct.Struct(f"{order}I4xQ16xQ16x" if wide else f"{order}II8xI12x")
    segments = _read(file, table, count * size)
    for kind, offset, length in segment.iter_unpack(segments):
        if kind == _INTERPRETER:
            if not 0 < length <= _PATH_LIMIT:
                raise _damaged()
            return _read(file, offset, length).partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return None


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    if offset >= 1 << 63:
        raise _damaged()
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise _damaged()
    return data


def _damaged() -> ImageError:
    return ImageError("it is a damaged ELF file: its headers lead outside of it")
