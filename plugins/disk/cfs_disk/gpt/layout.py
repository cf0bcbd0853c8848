"""Layout provider ``gpt``: a GUID partition table with the volumes that were asked for."""

from __future__ import annotations

import os
import uuid
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from cfs_core.plugin import (
    Architecture,
    ConfigError,
    DiskError,
    DiskLayout,
    Finding,
    LayoutRequest,
    Partition,
    RefusedError,
    Volume,
    VolumeNeed,
)
from cfs_disk.gpt.table import (
    ENTRY_COUNT,
    ENTRY_SIZE,
    RESERVED_SECTORS,
    SECTOR,
    TABLE_SECTORS,
    GptEntry,
    GptHeader,
    pack_entries,
    pack_header,
    pack_protective_mbr,
    parse_entries,
    parse_header,
)
from cfs_disk.identifiers import identifier, volume_serial
from cfs_disk.probe import probe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Partitions begin and end at whole MiB, a multiple of every sector and of usual erase blocks.
MIB = 1024 * 1024

TYPE_BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
TYPE_ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
TYPE_XBOOTLDR = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
TYPE_LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
TYPE_ROOT = {
    Architecture.AMD64: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    Architecture.ARM64: "b921b045-1df0-41c3-af44-4c6f280d3fae",
    Architecture.RISCV64: "72ec70a6-cf74-40e6-bd49-4bda08e8f224",
    Architecture.I386: "44479540-f297-41b2-9af7-d131d5f0458a",
}
"""Discoverable Partitions Specification, so that systemd finds the root without ``root=``."""

_NAMES = {
    Volume.BIOS_BOOT: "BIOS-BOOT",
    Volume.ESP: "EFI-SYSTEM",
    Volume.XBOOTLDR: "XBOOTLDR",
    Volume.BOOT: "boot",
    Volume.ROOT: "root",
}
# Root last: it is the one that grows when a disk turns out larger than planned, and only the last can.
_ORDER = (Volume.BIOS_BOOT, Volume.ESP, Volume.XBOOTLDR, Volume.BOOT, Volume.ROOT)
_DEPLOYMENTS = 4
"""Needs are stated for one deployment; boot volumes hold the booted, the rollback, a staged one and a pinned one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GptSettings:
    """Sizes in MiB that the settings can change."""

    boot_volume_mib: int = 512

    @classmethod
    def from_mapping(cls, settings: Mapping[str, object]) -> GptSettings:
        """Read ``boot_volume_mib``, the least size of ESP, XBOOTLDR and BOOT.

        Raises:
            ConfigError: not a positive whole number.
        """
        value = settings.get("boot_volume_mib")
        if value is None:
            return cls()
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            msg = f"boot_volume_mib must be a number of MiB, not {value!r}"
            raise ConfigError(msg)
        return cls(boot_volume_mib=value)


def align(size: int) -> int:
    """Round up to whole MiB."""
    return -(-size // MIB) * MIB


def merge_needs(needs: Sequence[VolumeNeed]) -> dict[Volume, VolumeNeed]:
    """Add up sizes and intersect filesystems of needs for the same volume.

    Raises:
        RefusedError: two needs accept no common filesystem.
    """
    merged: dict[Volume, VolumeNeed] = {}
    for need in needs:
        known = merged.get(need.volume)
        if known is None:
            merged[need.volume] = need
            continue
        common = tuple(name for name in known.filesystems if name in need.filesystems)
        if known.filesystems and need.filesystems and not common:
            msg = (
                f"no filesystem fits everything that is to live on {need.volume.name}: "
                f"{known.why or 'one need'} takes {', '.join(known.filesystems)}, "
                f"{need.why or 'another'} takes {', '.join(need.filesystems)}"
            )
            raise RefusedError(msg, hint="choose another bootloader or another root filesystem")
        merged[need.volume] = replace(
            known,
            bytes_needed=known.bytes_needed + need.bytes_needed,
            filesystems=common or known.filesystems or need.filesystems,
            why="; ".join(filter(None, (known.why, need.why))),
        )
    return merged


class GptLayout(DiskLayout):
    """GUID partition table in 512-byte sectors, partitions aligned to 1 MiB, ROOT last so that it can grow."""

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        self._settings = GptSettings.from_mapping(settings or {})

    def plan(self, request: LayoutRequest) -> tuple[Partition, ...]:
        """Divide the disk; pure but for random identifiers where there is no seed."""
        needs = merge_needs(request.needs)
        partitions: list[Partition] = []
        start = MIB
        for volume in _ORDER:
            need = needs.get(volume)
            if need is None and volume is not Volume.ROOT:
                continue
            size = (
                self._root_size(request, need, start)
                if volume is Volume.ROOT
                else self._boot_size(request, volume, need)
            )
            partitions.append(_partition(request, volume, need, len(partitions) + 1, start, size))
            start += size
        if request.disk_size is not None and self.disk_bytes(partitions) > request.disk_size:
            raise _too_small(request.disk_size, self.disk_bytes(partitions), partitions)
        return tuple(partitions)

    def _boot_size(self, request: LayoutRequest, volume: Volume, need: VolumeNeed | None) -> int:
        needed = need.bytes_needed if need is not None else 0
        asked = request.volume_sizes.get(volume)
        if asked is not None:
            if asked < needed:
                msg = f"{volume.name} of {_mib(asked)} is too small: its contents need {_mib(needed)}"
                raise RefusedError(
                    msg, hint=f"allow at least {_mib(needed)}", facts={"needed": needed, "available": asked}
                )
            return align(asked)
        if volume is Volume.BIOS_BOOT:
            return max(MIB, align(needed))
        # Deployments share no kernels as they share objects on the root volume, whose room for more is core's to add.
        return max(self._settings.boot_volume_mib * MIB, align(_DEPLOYMENTS * needed))

    def _root_size(self, request: LayoutRequest, need: VolumeNeed | None, start: int) -> int:
        needed = need.bytes_needed if need is not None else 0
        if request.root_size is not None:
            if request.root_size < needed:
                msg = f"a root of {_mib(request.root_size)} is too small: its contents need {_mib(needed)}"
                raise RefusedError(
                    msg, hint=f"allow at least {_mib(needed)}", facts={"needed": needed, "available": request.root_size}
                )
            return align(request.root_size)
        if request.disk_size is None:
            return max(align(needed), MIB)
        room = (request.disk_size - MIB - start) // MIB * MIB
        return max(room, align(needed), MIB)

    def disk_bytes(self, partitions: Sequence[Partition]) -> int:
        """Return the end of the last partition plus 1 MiB for the backup table."""
        return align(max((part.start + part.size for part in partitions), default=MIB)) + MIB

    def write(self, path: Path, partitions: Sequence[Partition], *, seed: str | None) -> None:
        """Write protective MBR and both tables; boot code (bytes 0 to 439) stays as it is.

        Raises:
            DiskError: partitions overlap or do not fit the file, or it cannot be written.
        """
        try:
            with path.open("r+b") as file:
                sectors = file.seek(0, os.SEEK_END) // SECTOR
                entries = [_entry(part) for part in partitions]
                problems = _layout_problems(entries, RESERVED_SECTORS, sectors - RESERVED_SECTORS)
                if problems:
                    raise DiskError(problems[0].message)
                table = pack_entries(entries)
                primary = GptHeader(
                    here=1,
                    other=sectors - 1,
                    first_usable=RESERVED_SECTORS,
                    last_usable=sectors - RESERVED_SECTORS,
                    disk_guid=identifier(seed, "disk"),
                    table=2,
                    entry_count=ENTRY_COUNT,
                    entry_size=ENTRY_SIZE,
                    table_crc=zlib.crc32(table),
                )
                backup = replace(primary, here=sectors - 1, other=1, table=sectors - 1 - TABLE_SECTORS)
                # In any order: nobody sees this file under its name before all of it is there.
                for position, data in (
                    (440, pack_protective_mbr(sectors)),
                    (SECTOR, pack_header(primary)),
                    (2 * SECTOR, table),
                    (backup.table * SECTOR, table),
                    (backup.here * SECTOR, pack_header(backup)),
                ):
                    file.seek(position)
                    file.write(data)
        except OSError as error:
            msg = f"cannot write the partition table of {path}: {error.strerror}"
            raise DiskError(msg) from error

    def read(self, path: Path) -> tuple[Partition, ...]:
        """Read the primary table, or the backup where the primary is damaged."""
        failure: DiskError | None = None
        with _Disk(path) as disk:
            for position in (1, disk.sectors - 1):
                try:
                    header, entries = disk.table(position)
                except DiskError as error:
                    failure = failure or error
                    continue
                if _layout_problems(entries, header.first_usable, header.last_usable):
                    msg = f"the partitions of {path} overlap or leave the disk"
                    raise DiskError(msg, hint="the disk image is damaged; make it again")
                return tuple(filter(None, (_recognise(disk.fd, entry) for entry in entries)))
        msg = f"{path} has no usable partition table: {failure}"
        raise DiskError(msg, hint="is this a disk image made by cfs?")

    def check(self, path: Path) -> Sequence[Finding]:
        """Check protective MBR, both tables and their agreement, overlaps and bounds."""
        problems: list[Finding] = []
        tables: list[tuple[GptHeader, list[GptEntry]]] = []
        with _Disk(path) as disk:
            problems += disk.mbr_problems()
            for position in (1, disk.sectors - 1):
                try:
                    tables.append(disk.table(position))
                except DiskError as error:
                    problems.append(Finding.error("gpt.table", error.message, where=str(path), repairable=True))
        if tables:
            header, entries = tables[0]
            problems += _layout_problems(entries, header.first_usable, header.last_usable)
        both = len(tables) == 2  # noqa: PLR2004 - primary and backup
        if both and (tables[0][1] != tables[1][1] or tables[0][0].disk_guid != tables[1][0].disk_guid):
            message = "primary and backup partition table differ"
            problems.append(Finding.error("gpt.differ", message, where=str(path)))
        return problems


class _Disk:
    """An open disk image, for reading tables."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            self.sectors = os.lseek(self.fd, 0, os.SEEK_END) // SECTOR
        except OSError as error:
            msg = f"cannot read {self.path}: {error.strerror}"
            raise DiskError(msg) from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _pread(self, size: int, offset: int) -> bytes:
        if offset < 0:
            return b""
        try:
            return os.pread(self.fd, size, offset)
        except OSError as error:
            msg = f"cannot read {self.path} at byte {offset}: {error.strerror}"
            raise DiskError(msg) from error

    def table(self, position: int) -> tuple[GptHeader, list[GptEntry]]:
        header = parse_header(self._pread(SECTOR, position * SECTOR), position, self.sectors)
        table = self._pread(header.entry_count * header.entry_size, header.table * SECTOR)
        return header, parse_entries(table, header)

    def mbr_problems(self) -> list[Finding]:
        mbr = self._pread(SECTOR, 0)
        if mbr[510:512] == b"\x55\xaa" and 0xEE in {mbr[450 + 16 * index] for index in range(4)}:  # noqa: PLR2004 - MBR offsets
            return []
        return [Finding.error("gpt.mbr", "no protective MBR", where=str(self.path), repairable=True)]


def _layout_problems(entries: list[GptEntry], first_usable: int, last_usable: int) -> list[Finding]:
    problems: list[Finding] = []
    end, before = first_usable - 1, "the partition table"
    for entry in sorted(entries, key=lambda entry: entry.first):
        name = f"partition {entry.number} ({entry.name})"
        if entry.last < entry.first or entry.last > last_usable:
            problems.append(Finding.error("gpt.bounds", f"{name} leaves the disk", where=name))
        if entry.first <= end:
            problems.append(Finding.error("gpt.overlap", f"{name} overlaps {before}", where=name))
        end, before = max(end, entry.last), name
    return problems


def _partition(
    request: LayoutRequest, volume: Volume, need: VolumeNeed | None, number: int, start: int, size: int
) -> Partition:
    filesystem = need.filesystems[0] if need is not None and need.filesystems else None
    if volume is Volume.ROOT:
        if need is not None and need.filesystems and request.root_filesystem not in need.filesystems:
            msg = (
                f"the root filesystem {request.root_filesystem} does not fit: {need.why or 'a need'} "
                f"takes {', '.join(need.filesystems)}"
            )
            raise RefusedError(msg, hint=f"use --filesystem {need.filesystems[0]}")
        filesystem = request.root_filesystem
    purpose = f"{volume.value}-filesystem"
    fs_uuid = None
    if filesystem is not None:
        vfat = filesystem == "vfat"
        fs_uuid = volume_serial(request.seed, purpose) if vfat else str(identifier(request.seed, purpose))
    return Partition(
        number=number,
        volume=volume,
        start=start,
        size=size,
        type_guid=_type_guid(volume, request.architecture),
        uuid=str(identifier(request.seed, f"{volume.value}-partition")),
        name=_NAMES[volume],
        filesystem=filesystem,
        fs_uuid=fs_uuid,
        label=_NAMES[volume] if filesystem else None,
    )


def _type_guid(volume: Volume, architecture: Architecture) -> str:
    if volume is Volume.ROOT:
        # No default: with another architecture's type systemd would not find the root, or a wrong machine would.
        # Whoever adds an architecture to core adds its type above.
        return TYPE_ROOT[architecture]
    # GPT has no type of its own for /boot: XBOOTLDR makes systemd mount it there, and the name tells the two apart.
    return {Volume.ESP: TYPE_ESP, Volume.BIOS_BOOT: TYPE_BIOS_BOOT}.get(volume, TYPE_XBOOTLDR)


def _recognise(fd: int, entry: GptEntry) -> Partition | None:
    type_guid = str(entry.type_guid)
    is_boot = entry.name.lower() == _NAMES[Volume.BOOT]
    volume = {TYPE_ESP: Volume.ESP, TYPE_BIOS_BOOT: Volume.BIOS_BOOT}.get(type_guid)
    if type_guid in TYPE_ROOT.values():
        volume = Volume.ROOT
    elif type_guid == TYPE_XBOOTLDR:
        volume = Volume.BOOT if is_boot else Volume.XBOOTLDR
    elif type_guid == TYPE_LINUX and (is_boot or entry.name.lower() == _NAMES[Volume.ROOT]):
        volume = Volume.BOOT if is_boot else Volume.ROOT
    if volume is None:
        return None
    found = probe(fd, entry.first * SECTOR)
    return Partition(
        number=entry.number,
        volume=volume,
        start=entry.first * SECTOR,
        size=(entry.last - entry.first + 1) * SECTOR,
        type_guid=type_guid,
        uuid=str(entry.guid),
        name=entry.name,
        filesystem=found.filesystem if found else None,
        fs_uuid=found.fs_uuid if found else None,
        label=found.label if found else None,
    )


def _entry(part: Partition) -> GptEntry:
    return GptEntry(
        number=part.number,
        type_guid=uuid.UUID(part.type_guid),
        guid=uuid.UUID(part.uuid),
        first=part.start // SECTOR,
        last=(part.start + part.size) // SECTOR - 1,
        name=part.name,
    )


def _mib(size: int) -> str:
    return f"{-(-size // MIB)} MiB"


def _too_small(size: int, needed: int, partitions: Sequence[Partition]) -> RefusedError:
    parts = ", ".join(f"{part.volume.name} {_mib(part.size)}" for part in partitions)
    msg = f"a disk of {_mib(size)} is too small: {parts} and the partition tables need {_mib(needed)}"
    return RefusedError(msg, hint=f"use a disk of at least {_mib(needed)}", facts={"needed": needed, "available": size})
