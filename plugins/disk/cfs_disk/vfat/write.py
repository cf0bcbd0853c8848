"""Fills a freshly made, empty FAT filesystem: directories, long names, chains, contents."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.plugin import DiskError, DiskFullError
from cfs_disk.vfat.geometry import FatGeometry, parse_boot_sector
from cfs_disk.vfat.names import FatNode, ShortNames, fat_time

if TYPE_CHECKING:
    from typing import BinaryIO

    from cfs_core.plugin import Region

_CHUNK = 1 << 20
_ENTRY = struct.Struct("<11sBBBHHHHHHHI")
_DIRECTORY = 0x10
_ARCHIVE = 0x20
_FREE_COUNT_OFFSET = 488


@dataclass(slots=True)
class _Planned:
    """A node with its place: entries of its own directory block, first cluster, number of clusters."""

    node: FatNode
    parent: _Planned | None
    entries: list[bytes] = field(default_factory=list)
    children: list[_Planned] = field(default_factory=list)
    cluster: int = 0
    clusters: int = 0


def directory_bytes(node: FatNode, *, is_root: bool) -> int:
    """Return the bytes of *node*'s directory entries; the root has a volume label, others have ``.`` and ``..``."""
    count = 1 if is_root else 2
    short_names = ShortNames()
    for child in node.children.values():
        count += 1 + len(short_names.entries(child.name)[0])
    return count * 32


def fill(region: Region, root: FatNode) -> None:
    """Write *root* and everything below it into the filesystem in *region*.

    Raises:
        DiskFullError: it does not fit.
        DiskError: a content is not as long as it says, or writing fails.
    """
    try:
        with region.path.open("r+b", buffering=0) as file:
            file.seek(region.offset)
            geometry = parse_boot_sector(file.read(512), region.size)
            planned, used = _plan(root, geometry)
            _write_table(file, region, geometry, planned, used)
            for item in planned:
                _write_item(file, region, geometry, item)
    except OSError as error:
        msg = f"cannot write the FAT volume in {region.path}: {error.strerror}"
        raise DiskError(msg) from error


def _plan(root: FatNode, geometry: FatGeometry) -> tuple[list[_Planned], int]:
    top = _Planned(root, None)
    order = [top]
    for item in order:  # grows while it is walked: directories first, level by level, so that they lie together
        short_names = ShortNames()
        for _, child in sorted(item.node.children.items()):
            below = _Planned(child, item)
            below.entries, short = short_names.entries(child.name)
            below.entries.append(short)
            item.children.append(below)
        order += [below for below in item.children if below.node.is_directory]
    order += [below for item in list(order) for below in item.children if not below.node.is_directory]
    # Clusters are numbered from 2, and mkfs.vfat puts FAT32's root directory into the first.
    following = 3 if geometry.root_cluster else 2
    for item in order:
        if item is top:
            size = directory_bytes(root, is_root=True)
            if not geometry.root_cluster:
                if size > geometry.root_bytes:
                    msg = "too many names in the root directory of a FAT16 volume"
                    raise DiskFullError(msg, hint="make the volume at least 34 MiB large, or use directories")
                continue
            item.cluster, item.clusters = geometry.root_cluster, -(-size // geometry.cluster_bytes)
            if item.clusters > 1:
                following = _extend_root(item, following)
            continue
        content = item.node.content
        size = directory_bytes(item.node, is_root=False) if content is None else content.size
        item.clusters = -(-size // geometry.cluster_bytes)
        item.cluster = following if item.clusters else 0
        following += item.clusters
    used = following - 2
    if used > geometry.clusters:
        needed, available = used * geometry.cluster_bytes, geometry.clusters * geometry.cluster_bytes
        msg = f"the FAT volume holds {available} bytes, and its contents need {needed}"
        raise DiskFullError(msg, hint="make the volume larger", facts={"needed": needed, "available": available})
    return order, used


def _extend_root(item: _Planned, following: int) -> int:
    if item.cluster + 1 != following:
        msg = "mkfs.vfat put the root directory where cfs does not expect it"
        raise DiskError(msg)
    return following + item.clusters - 1


def _write_table(file: BinaryIO, region: Region, geometry: FatGeometry, planned: list[_Planned], used: int) -> None:
    code = "<I" if geometry.entry_bytes == 4 else "<H"  # noqa: PLR2004 - FAT32 entries
    table = bytearray((used + 2) * geometry.entry_bytes)
    start = region.offset + geometry.fat_start
    head = os.pread(file.fileno(), 3 * geometry.entry_bytes, start)
    table[: len(head)] = head[: len(table)]
    for item in planned:
        for cluster in range(item.cluster, item.cluster + item.clusters - 1):
            struct.pack_into(code, table, cluster * geometry.entry_bytes, cluster + 1)
        if item.clusters:
            last = item.cluster + item.clusters - 1
            struct.pack_into(code, table, last * geometry.entry_bytes, geometry.end_mark)
    for copy in range(geometry.fats):
        os.pwrite(file.fileno(), table, start + copy * geometry.fat_bytes)
    if geometry.info_sector:
        free = struct.pack("<II", geometry.clusters - used, used + 1)
        os.pwrite(file.fileno(), free, region.offset + geometry.info_sector * geometry.sector + _FREE_COUNT_OFFSET)


def _write_item(file: BinaryIO, region: Region, geometry: FatGeometry, item: _Planned) -> None:
    place = geometry.offset(item.cluster) if item.cluster else geometry.root_start
    content = item.node.content
    if content is None:
        start = region.offset + place
        if item.parent is None:
            label = os.pread(file.fileno(), 32, start)
            first = label if label[11:12] == b"\x08" else b""
        else:
            first = _dot(b".", item.cluster, item.node.mtime)
            # The root is cluster 0 to its children, on FAT32 as well (FAT specification 1.03, directories).
            above = item.parent.cluster if item.parent.parent is not None else 0
            first += _dot(b"..", above, item.node.mtime)
        os.pwrite(file.fileno(), first + b"".join(_entries(child) for child in item.children), start)
        return
    file.seek(region.offset + place)
    done = 0
    with content.open() as source:
        while piece := source.read(_CHUNK):
            done += len(piece)
            if done > content.size:
                break
            file.write(piece)
    if done != content.size:
        msg = f"the content of {item.node.name!r} is not the {content.size} bytes it should be"
        raise DiskError(msg, hint="it changed while it was being read")


def _entries(item: _Planned) -> bytes:
    content = item.node.content
    kind = _DIRECTORY if content is None else _ARCHIVE
    size = 0 if content is None else content.size
    return b"".join(item.entries[:-1]) + _short(item.entries[-1], kind, item.cluster, size, item.node.mtime)


def _dot(name: bytes, cluster: int, mtime: int) -> bytes:
    return _short(name.ljust(11), _DIRECTORY, cluster, 0, mtime)


def _short(name: bytes, kind: int, cluster: int, size: int, mtime: int) -> bytes:
    date, time = fat_time(mtime)
    return _ENTRY.pack(name, kind, 0, 0, time, date, date, cluster >> 16, time, date, cluster & 0xFFFF, size)
