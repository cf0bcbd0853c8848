"""Where things are on a FAT volume, read from its boot sector."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cfs_core.plugin import DiskError

_FAT12_CLUSTERS = 4085
FAT16_CLUSTERS = 65525
"""Volumes with fewer clusters are FAT16, whatever their boot sector says (Microsoft FAT specification, 3.5)."""

_SECTOR_SIZES = frozenset({512, 1024, 2048, 4096})
_MAX_FAT_BYTES = 64 << 20
_WIDEST_CLUSTER = 64 * 512
LARGEST = _MAX_FAT_BYTES // 4 * _WIDEST_CLUSTER
"""Bytes, 512 GiB: what a table of this size can describe. Nobody has a larger one, and a table is read as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FatGeometry:
    """Offsets and sizes in bytes, from the start of the volume.

    ``root_cluster`` is 0 on FAT16, whose root directory has a fixed place.
    """

    sector: int
    cluster_bytes: int
    clusters: int
    fat_start: int
    fat_bytes: int
    fats: int
    data_start: int
    entry_bytes: int
    root_cluster: int
    root_start: int
    root_bytes: int
    info_sector: int

    @property
    def end_mark(self) -> int:
        """What ends a chain, and the least value that does so is this one rounded down to a multiple of 8."""
        return 0x0FFFFFFF if self.entry_bytes == 4 else 0xFFFF  # noqa: PLR2004 - FAT32 entries

    def offset(self, cluster: int) -> int:
        """Return where *cluster* (2 is the first) begins."""
        return self.data_start + (cluster - 2) * self.cluster_bytes


def parse_boot_sector(raw: bytes, region_size: int) -> FatGeometry:
    """Read the first 512 bytes of a volume.

    Raises:
        DiskError: not FAT16 or FAT32, or values that do not fit the region.
    """
    hint = "this volume does not hold a FAT filesystem"
    if len(raw) < 512 or raw[510:512] != b"\x55\xaa":  # noqa: PLR2004 - a sector
        msg = "no FAT boot sector"
        raise DiskError(msg, hint=hint)
    (sector, per_cluster, reserved, fats, root_entries, small_total, _media, small_fat) = struct.unpack_from(
        "<HBHBHHBH", raw, 11
    )
    total, wide_fat = struct.unpack_from("<II", raw, 32)
    total = small_total or total
    fat_sectors = small_fat or wide_fat
    if (
        sector not in _SECTOR_SIZES
        or not per_cluster
        or per_cluster & (per_cluster - 1)
        or not reserved
        or not 0 < fats <= 2  # noqa: PLR2004 - two copies at most
        or not fat_sectors
        or total * sector > region_size
    ):
        msg = "the FAT boot sector has values that do not fit"
        raise DiskError(msg, hint=hint)
    root_sectors = -(-root_entries * 32 // sector)
    root_start = (reserved + fats * fat_sectors) * sector
    data_start = root_start + root_sectors * sector
    clusters = (total * sector - data_start) // (per_cluster * sector)
    wide = clusters >= FAT16_CLUSTERS
    fat_bytes = fat_sectors * sector
    entry_bytes = 4 if wide else 2
    if clusters < _FAT12_CLUSTERS:
        msg = f"{clusters} clusters make a FAT12 volume (or a damaged one), which cfs does not use"
        raise DiskError(msg, hint=hint)
    if (clusters + 2) * entry_bytes > fat_bytes or fat_bytes > _MAX_FAT_BYTES or wide != (root_entries == 0):
        msg = "the file allocation table does not fit the number of clusters"
        raise DiskError(msg, hint=hint)
    root_cluster, info_sector = struct.unpack_from("<I", raw, 44)[0], struct.unpack_from("<H", raw, 48)[0]
    if wide and not 2 <= root_cluster < clusters + 2:  # noqa: PLR2004 - the first cluster is number 2
        msg = "the root directory is outside the volume"
        raise DiskError(msg, hint=hint)
    return FatGeometry(
        sector=sector,
        cluster_bytes=per_cluster * sector,
        clusters=clusters,
        fat_start=reserved * sector,
        fat_bytes=fat_bytes,
        fats=fats,
        data_start=data_start,
        entry_bytes=entry_bytes,
        root_cluster=root_cluster if wide else 0,
        root_start=root_start,
        root_bytes=root_entries * 32,
        info_sector=info_sector if wide and info_sector != 0xFFFF else 0,  # noqa: PLR2004 - means none
    )
