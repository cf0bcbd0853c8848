"""Filesystem provider ``vfat``: FAT32 (FAT16 below 33 MiB), for ESP and XBOOTLDR."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    CommandError,
    DiskError,
    DiskFullError,
    FileReader,
    Filesystem,
    Finding,
)
from cfs_disk.identifiers import volume_serial
from cfs_disk.vfat.geometry import LARGEST
from cfs_disk.vfat.names import FatNode, collect
from cfs_disk.vfat.read import FatReader
from cfs_disk.vfat.write import directory_bytes, fill

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from cfs_core.plugin import Partition, PlacingAction, PluginContext, Region

_MIB = 1024 * 1024
_FAT32_BYTES = 33 * _MIB
"""The fewest MiB with 65525 clusters of one sector, which FAT32 has at least, and its tables; FAT16 counts no more. An
EFI system partition is to be FAT32 (UEFI 2.10, 13.3)."""

_LEAST_BYTES = 4 * _MIB
_FAT16_ROOT_BYTES = 512 * 32
_CLUSTER = 4096
_SECTOR = 512
# Microsoft's table for FAT32 (FAT specification 1.03, volume initialization), spelled out so that no version of
# mkfs.vfat decides, and used for the small ones as well.
_SECTORS_PER_CLUSTER = ((260 * _MIB, 1), (8192 * _MIB, 8), (16384 * _MIB, 16), (32768 * _MIB, 32))
_LABEL_CHARACTERS = 11


class VfatFilesystem(Filesystem):
    """FAT by mkfs.vfat, filled by cfs itself, in a region of a plain file."""

    name = "vfat"
    largest = LARGEST

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._epoch = context.source_date_epoch if context.source_date_epoch is not None else int(time.time())

    def check_host(self) -> Sequence[Finding]:
        """Return what is missing: dosfstools."""
        missing = [name for name in ("mkfs.vfat", "fsck.fat") if self._context.commands.find(name) is None]
        if not missing:
            return []
        hint = "install dosfstools (Debian: apt install dosfstools)"
        return [Finding.error("disk.tool-missing", f"{', '.join(missing)} not found", hint)]

    def bytes_needed(self, contents: Mapping[str, PlacingAction]) -> int:
        """Return the size of the smallest partition that holds *contents*: at least 4 MiB, the least FAT16 can be."""
        return self._needed(collect(contents, self._epoch))

    def build(self, contents: Mapping[str, PlacingAction], partition: Partition, region: Region) -> None:
        """Make the filesystem; what the region held before is lost."""
        root = collect(contents, self._epoch)
        if region.size < _LEAST_BYTES:
            msg = f"{partition.volume.name} has {region.size} bytes; FAT needs at least {_LEAST_BYTES}"
            raise DiskFullError(
                msg, hint="make the volume larger", facts={"needed": _LEAST_BYTES, "available": region.size}
            )
        _clear(region)
        wide = region.size >= _FAT32_BYTES
        per_cluster = next((count for limit, count in _SECTORS_PER_CLUSTER if region.size <= limit), 64)
        serial = partition.fs_uuid or volume_serial(self._context.seed, f"{partition.volume.value}-filesystem")
        argv = [
            "mkfs.vfat",
            "--invariant",
            "-F", "32" if wide else "16",
            "-s", str(per_cluster),
            "-S", str(_SECTOR),
            "-i", serial.replace("-", "").lower(),
            "-n", (partition.label or partition.name).upper()[:_LABEL_CHARACTERS],
            # Hidden sectors, by which boot code finds the volume on its disk (BPB_HiddSec).
            "-h", str(partition.start // _SECTOR),
            f"--offset={region.offset // _SECTOR}",
            str(region.path.absolute()),
            str(region.size // 1024),
        ]  # fmt: skip
        try:
            self._context.commands.run(argv)
        except CommandError as error:
            msg = f"cannot make a FAT filesystem of {region.size} bytes: {error.message}"
            raise DiskError(msg, hint=error.hint) from error
        fill(region, root)

    def check(self, region: Region) -> Sequence[Finding]:
        """Run ``fsck.fat -n`` on a sparse copy, since it cannot look inside a larger file."""
        with tempfile.TemporaryDirectory(prefix="fat-", dir=self._context.scratch) as directory:
            copy = Path(directory, "volume")
            _copy_sparse(region, copy)
            done = self._context.commands.run(["fsck.fat", "-n", str(copy)], ok=frozenset({0, 1}))
        if done.returncode == 0:
            return []
        lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        wanted = [line.strip() for line in lines if line.strip() and not line.startswith("fsck.fat ")][:20]
        return [Finding.error("vfat.fsck", line, where=str(region.path)) for line in wanted or ["fsck failed"]]

    def reader(self, region: Region) -> AbstractContextManager[FileReader]:
        """Open a `FatReader`."""
        return FatReader(region)

    def _needed(self, root: FatNode) -> int:
        total, pending = 0, [root]
        while pending:
            node = pending.pop()
            size = directory_bytes(node, is_root=False) if node.content is None else node.content.size
            total += -(-size // _CLUSTER) * _CLUSTER
            pending += node.children.values()
        tables = total // _SECTOR * 8 + 64 * _SECTOR
        # FAT16 has a fixed root directory.
        least = _LEAST_BYTES if directory_bytes(root, is_root=True) <= _FAT16_ROOT_BYTES else _FAT32_BYTES
        return max(least, -(-(total + tables) // _MIB) * _MIB)


def _clear(region: Region) -> None:
    """Make sure that stale bytes do not turn up as directory entries or table copies."""
    descriptor = os.open(region.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        at, end = region.offset, region.offset + region.size
        while at < end:
            try:
                at = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError:
                return
            stop = min(os.lseek(descriptor, at, os.SEEK_HOLE), end)
            while at < stop:
                at += os.pwrite(descriptor, bytes(min(_MIB, stop - at)), at)
    finally:
        os.close(descriptor)


def _copy_sparse(region: Region, copy: Path) -> None:
    with region.path.open("rb") as source, copy.open("wb") as target:
        target.truncate(region.size)
        at, end = region.offset, region.offset + region.size
        while at < end:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            stop = min(os.lseek(source.fileno(), at, os.SEEK_HOLE), end)
            if at >= stop:
                return
            target.seek(at - region.offset)
            while at < stop:
                piece = os.pread(source.fileno(), min(_MIB, stop - at), at)
                target.write(piece)
                at += len(piece)
