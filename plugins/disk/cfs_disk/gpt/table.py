"""The bytes of a GUID partition table (UEFI 2.10, chapter 5): packed, parsed and checked, without host tools."""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass

from cfs_core.plugin import DiskError

SECTOR = 512
# UEFI wants at least 16 KiB of entries, which are 128 of the least size (2.10, 5.3.1).
ENTRY_COUNT = 128
ENTRY_SIZE = 128
TABLE_SECTORS = ENTRY_COUNT * ENTRY_SIZE // SECTOR
RESERVED_SECTORS = 2 + TABLE_SECTORS
"""Sectors before the first usable one: protective MBR, header, entries. The end of the disk has one less."""

_SIGNATURE = b"EFI PART"
_REVISION = 0x00010000
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MAX_ENTRIES = 1024
_MAX_ENTRY_SIZE = 4096
_NAME_UNITS = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class GptEntry:
    """One partition; ``first`` and ``last`` are sectors, both included."""

    number: int
    type_guid: uuid.UUID
    guid: uuid.UUID
    first: int
    last: int
    name: str
    attributes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GptHeader:
    """One of the two headers, as found on disk."""

    here: int
    other: int
    first_usable: int
    last_usable: int
    disk_guid: uuid.UUID
    table: int
    entry_count: int
    entry_size: int
    table_crc: int


def pack_entries(entries: list[GptEntry]) -> bytes:
    """Return the partition entry array: 128 entries of 128 bytes."""
    table = bytearray(ENTRY_COUNT * ENTRY_SIZE)
    for entry in entries:
        name = entry.name.encode("utf-16-le")
        if len(name) > 2 * _NAME_UNITS:
            msg = f"partition name too long: {entry.name!r} (at most {_NAME_UNITS} UTF-16 units)"
            raise DiskError(msg)
        _ENTRY.pack_into(
            table,
            (entry.number - 1) * ENTRY_SIZE,
            # The first three fields of a GUID are little-endian on disk (UEFI 2.10, appendix A).
            entry.type_guid.bytes_le,
            entry.guid.bytes_le,
            entry.first,
            entry.last,
            entry.attributes,
            name,
        )
    return bytes(table)


def pack_header(header: GptHeader) -> bytes:
    """Return one sector with *header* and its checksum."""
    fields = (
        header.here,
        header.other,
        header.first_usable,
        header.last_usable,
        header.disk_guid.bytes_le,
        header.table,
        header.entry_count,
        header.entry_size,
        header.table_crc,
    )
    blank = _HEADER.pack(_SIGNATURE, _REVISION, _HEADER.size, 0, 0, *fields)
    return _HEADER.pack(_SIGNATURE, _REVISION, _HEADER.size, zlib.crc32(blank), 0, *fields).ljust(SECTOR, b"\0")


def pack_protective_mbr(sectors: int) -> bytes:
    """Return bytes 440 to 511 of the first sector: one 0xEE partition over the whole disk (UEFI 2.10, 5.2.3)."""
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    return bytes(6) + entry.ljust(64, b"\0") + b"\x55\xaa"


def parse_header(sector: bytes, position: int, sectors: int) -> GptHeader:
    """Read the header found at sector *position* of a disk of *sectors*.

    Raises:
        DiskError: no header, a wrong checksum, or values that point outside the disk.
    """
    where = f"the GPT header in sector {position}"
    if len(sector) < SECTOR or sector[:8] != _SIGNATURE:
        msg = f"{where} has no signature"
        raise DiskError(msg, hint="is this a disk image with a GUID partition table?")
    values = _HEADER.unpack_from(sector)
    size, crc = values[2], values[3]
    if not _HEADER.size <= size <= SECTOR:
        msg = f"{where} has an impossible size: {size}"
        raise DiskError(msg)
    blank = sector[:16] + bytes(4) + sector[20:size]
    if zlib.crc32(blank) != crc:
        msg = f"{where} has a wrong checksum"
        raise DiskError(msg)
    header = GptHeader(
        here=values[5],
        other=values[6],
        first_usable=values[7],
        last_usable=values[8],
        disk_guid=uuid.UUID(bytes_le=values[9]),
        table=values[10],
        entry_count=values[11],
        entry_size=values[12],
        table_crc=values[13],
    )
    table_bytes = header.entry_count * header.entry_size
    if (
        header.here != position
        or not 0 < header.entry_count <= _MAX_ENTRIES
        or header.entry_size % ENTRY_SIZE
        or not 0 < header.entry_size <= _MAX_ENTRY_SIZE
        or header.table + -(-table_bytes // SECTOR) > sectors
        or not 0 < header.first_usable <= header.last_usable < sectors
    ):
        msg = f"{where} has values that do not fit the disk"
        raise DiskError(msg)
    return header


def parse_entries(table: bytes, header: GptHeader) -> list[GptEntry]:
    """Read the entries that are in use.

    Raises:
        DiskError: wrong checksum or too few bytes.
    """
    if len(table) != header.entry_count * header.entry_size or zlib.crc32(table) != header.table_crc:
        msg = f"the partition entries in sector {header.table} have a wrong checksum"
        raise DiskError(msg)
    entries: list[GptEntry] = []
    for index in range(header.entry_count):
        type_guid, guid, first, last, attributes, name = _ENTRY.unpack_from(table, index * header.entry_size)
        if type_guid == bytes(16):
            continue
        entries.append(
            GptEntry(
                number=index + 1,
                type_guid=uuid.UUID(bytes_le=type_guid),
                guid=uuid.UUID(bytes_le=guid),
                first=first,
                last=last,
                name=name.decode("utf-16-le", "replace").partition("\0")[0],
                attributes=attributes,
            )
        )
    return entries
