"""Where a PE file keeps its signatures, and the digest that they sign (Microsoft PE/COFF, Authenticode)."""

from __future__ import annotations

import hashlib
import mmap
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageError
from cfs_core.sealing import pkcs_signatures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

PKCS_SIGNED_DATA = 2
_REVISION = 0x0200
_CERTIFICATE = struct.Struct("<IHH")
_PE32, _PE32_PLUS = 0x10B, 0x20B
_SECURITY = 4
"""Number of the data directory that says where the signatures are; its offset is one of the file, not of memory."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Offsets and sizes in a PE file, in bytes."""

    checksum: int
    directory: int
    headers: int
    sections: tuple[tuple[int, int], ...]
    """(offset, size) of what each section has in the file, in the file's order."""

    table: int
    """Where the signatures start; the end of the file where there are none."""

    table_size: int


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Give a file as bytes, without reading it into memory.

    Raises:
        ImageError: it is empty.
    """
    with path.open("rb") as file:
        try:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as cause:
            msg = f"{path} is empty"
            raise ImageError(msg, hint="build or sign it again") from cause
        with mapping, memoryview(mapping) as view:
            yield view


def layout_of(data: memoryview | bytes) -> Layout:
    """Read the headers.

    Raises:
        ImageError: no PE file, or signatures that are not at its end.
    """
    try:
        return _layout_of(data)
    except struct.error as cause:
        msg = "a PE file ends in its headers"
        raise ImageError(msg, hint="build it again") from cause


def _layout_of(data: memoryview | bytes) -> Layout:
    (start,) = struct.unpack_from("<I", data, 0x3C)
    if bytes(data[:2]) != b"MZ" or bytes(data[start : start + 4]) != b"PE\0\0":
        msg = "this is not a PE file"
        raise ImageError(msg, hint="sign EFI programs: UKIs, addons, boot loaders")
    (count,) = struct.unpack_from("<H", data, start + 6)
    (optional_size,) = struct.unpack_from("<H", data, start + 20)
    optional = start + 24
    (magic,) = struct.unpack_from("<H", data, optional)
    if magic not in {_PE32, _PE32_PLUS}:
        msg = f"a PE file has an optional header of the unknown kind {magic:#x}"
        raise ImageError(msg, hint="build it again")
    directories = optional + (112 if magic == _PE32_PLUS else 96)
    (number,) = struct.unpack_from("<I", data, directories - 4)
    if number <= _SECURITY:
        msg = "a PE file has no place for signatures"
        raise ImageError(msg, hint="build it again with a stub that has a certificate table")
    directory = directories + 8 * _SECURITY
    table, size = struct.unpack_from("<II", data, directory)
    if size and (table % 8 or table + size > len(data)):
        msg = "the signatures of a PE file are not where it says"
        raise ImageError(msg, hint="build and sign it again")
    sections = []
    for index in range(count):
        raw_size, offset = struct.unpack_from("<II", data, optional + optional_size + 40 * index + 16)
        if raw_size:
            sections.append((offset, raw_size))
    return Layout(
        checksum=optional + 64,
        directory=directory,
        headers=struct.unpack_from("<I", data, optional + 60)[0],
        sections=tuple(sorted(sections)),
        table=table if size else len(data),
        table_size=size,
    )


def digest(data: memoryview | bytes, algorithm: str = "sha256") -> bytes:
    """Return the digest that signatures sign: all but the checksum and the signatures themselves.

    Raises:
        ImageError: no PE file.
    """
    layout = layout_of(data)
    hasher = hashlib.new(algorithm)
    for start, end in (
        (0, layout.checksum),
        (layout.checksum + 4, layout.directory),
        (layout.directory + 8, layout.headers),
    ):
        hasher.update(data[start:end])
    hashed = layout.headers
    for offset, size in layout.sections:
        hasher.update(data[offset : offset + size])
        hashed += size
    hasher.update(data[hashed : layout.table])
    # Whoever signs pads the file to a multiple of eight bytes first.
    hasher.update(bytes(-layout.table % 8))
    return hasher.digest()


def signatures(data: memoryview | bytes) -> tuple[bytes, ...]:
    """Return the PKCS #7 signatures of a PE file, as DER.

    Raises:
        ImageError: no PE file, or a malformed table.
    """
    layout = layout_of(data)
    return pkcs_signatures(memoryview(data)[layout.table : layout.table + layout.table_size])


def attach(data: memoryview | bytes, found: Sequence[bytes], out: BinaryIO) -> None:
    """Write a PE file with exactly the signatures *found*, and the right checksum.

    Raises:
        ImageError: no PE file.
    """
    layout = layout_of(data)
    table = b""
    for signature in found:
        entry = _CERTIFICATE.pack(_CERTIFICATE.size + len(signature), _REVISION, PKCS_SIGNED_DATA) + signature
        table += entry + bytes(-len(entry) % 8)
    padding = bytes(-layout.table % 8) if table else b""
    start = layout.table + len(padding)
    head = bytearray(data[: layout.headers])
    struct.pack_into("<I", head, layout.checksum, 0)
    struct.pack_into("<II", head, layout.directory, *((start, len(table)) if table else (0, 0)))
    total, length = 0, 0
    for part in (head, data[layout.headers : layout.table], padding + table):
        total += _sum(part, odd=length % 2 == 1)
        length += len(part)
    folded = total % 0xFFFF or (0xFFFF if total else 0)
    struct.pack_into("<I", head, layout.checksum, folded + length & 0xFFFFFFFF)
    for part in (head, data[layout.headers : layout.table], padding + table):
        out.write(part)


def _sum(data: memoryview | bytes | bytearray, *, odd: bool) -> int:
    """Return the sum of 16-bit words modulo 65535, which is what adding the carry back amounts to."""
    total = 0
    for start in range(0, len(data), _CHUNK):
        total += int.from_bytes(data[start : start + _CHUNK], "little") % 0xFFFF
    return total << 8 if odd else total
