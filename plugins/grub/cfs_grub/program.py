"""What is inside EFI programs: of which modules a GRUB was made."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODULES_MAGIC = b"mimg"
"""Starts GRUB's list of built-in objects (include/grub/kernel.h, GRUB_MODULE_MAGIC)."""

_ELF_OBJECT = 0
_LIMIT = 2000
"""Modules that are looked at; GRUB has some 300."""

_SBAT = re.compile(rb"^(grub[a-z._0-9]*),[0-9]+,[^,\n]*,grub2?,([!-+\--~]+),", re.MULTILINE)

_LIST_HEADER = struct.Struct("<4sIQQ")
_OBJECT_HEADER = struct.Struct("<II")
_LOADER = re.compile(rb"\\\0((?:[gG]\0[rR]\0[uU]\0[bB]\0)(?:[A-Za-z0-9_.]\0)*(?:[eE]\0[fF]\0[iI]\0))\0\0")


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A module that is part of a GRUB: its name, and its ELF file."""

    name: str
    data: bytes


def built_in(data: bytes) -> tuple[BuiltIn, ...]:
    """Return the modules that a GRUB for EFI has built in, none if it is no such program.

    Source: GRUB, include/grub/kernel.h (64-bit grub_module_info) and util/mkimage.c.
    """
    found = islice(re.finditer(_MODULES_MAGIC, data), _LIMIT)  # GRUB's own code speaks of the magic too
    return next((modules for match in found if (modules := tuple(islice(_objects(data, match.start()), _LIMIT)))), ())


def version(data: bytes) -> str | None:
    """Return the version of a GRUB as the uppermost line about it of its SBAT section says, a distribution's if any.

    Source: shim, SBAT.md; a GRUB that was made of modules has no such section.
    """
    lines = {match[1]: match[2].decode("ascii", "replace") for match in _SBAT.finditer(data)}
    theirs = [name for name in lines if name not in {b"grub", b"grub.peimage"}]
    return lines[theirs[0]] if theirs else lines.get(b"grub")


def loader_name(shim: bytes) -> str | None:
    r"""Return the name of the file that a shim starts from its own directory (``\grubx64.efi`` in UCS-2)."""
    match = _LOADER.search(shim)
    return match[1].decode("utf-16-le") if match else None


def _objects(data: bytes, start: int) -> Iterator[BuiltIn]:
    if start + _LIST_HEADER.size > len(data):
        return
    _, _, offset, size = _LIST_HEADER.unpack_from(data, start)
    at, end = start + offset, min(start + size, len(data))
    for _ in range(_LIMIT if offset else 0):
        if at + _OBJECT_HEADER.size > end:
            return
        kind, length = _OBJECT_HEADER.unpack_from(data, at)
        if length < _OBJECT_HEADER.size:
            return
        if kind == _ELF_OBJECT:
            body = data[at + _OBJECT_HEADER.size : at + length]
            name = _section(body, b".modname").partition(b"\0")[0]
            if name:
                yield BuiltIn(name.decode("ascii", "replace"), body)
        at += length


def _section(elf: bytes, wanted: bytes) -> bytes:
    """Return a section of a little-endian ELF file, empty if it has none of that name."""
    if elf[:4] != b"\x7fELF" or elf[5:6] != b"\1":
        return b""
    wide = elf[4:5] == b"\2"
    try:
        (table,) = struct.unpack_from("<Q", elf, 40) if wide else struct.unpack_from("<I", elf, 32)
        step, count, names = struct.unpack_from("<HHH", elf, 58 if wide else 46)

        def place(number: int) -> tuple[int, int, int]:
            header = table + number * step
            (name,) = struct.unpack_from("<I", elf, header)
            offset, size = (
                struct.unpack_from("<QQ", elf, header + 24) if wide else struct.unpack_from("<II", elf, header + 16)
            )
            return name, offset, size

        _, strings, _ = place(names)
        for number in range(count):
            name, offset, size = place(number)
            if elf[strings + name : strings + name + len(wanted) + 1] == wanted + b"\0":
                return elf[offset : offset + size]
    except (struct.error, OverflowError):
        pass
    return b""
