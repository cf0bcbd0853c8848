"""Filesystem provider ``ext4``: made offline with fs-verity on every file that asks for it."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    CommandError,
    CopyObject,
    DiskError,
    DiskFullError,
    FileReader,
    Filesystem,
    Finding,
    MakeSpecial,
    Region,
    SpecialKind,
    WriteFile,
    open_regular,
)
from cfs_disk.ext4 import fill as ext4_fill
from cfs_disk.ext4.adjust import Adjuster, missing_links, missing_nodes
from cfs_disk.ext4.inode import parse_superblock
from cfs_disk.ext4.nodes import collect
from cfs_disk.ext4.read import Ext4Reader
from cfs_disk.ext4.size import LARGEST, estimate, inode_count, journal_mib
from cfs_disk.ext4.tools import TAR_VERSION, Ext4Tools, MakeOptions
from cfs_disk.ext4.wide import make_directories, spread
from cfs_disk.identifiers import identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cfs_core.plugin import Partition, PlacingAction, PluginContext
    from cfs_disk.ext4.nodes import Ext4Contents


_SCRATCH = 4 << 20
"""Bytes for scripts, values of extended attributes and the little filesystem that is tried first."""

_TREE_SHARE = 60
"""A Merkle tree of SHA-512 has 1/63 of the bytes it is over, on disk before it is placed."""

_BLOCK = 4096
_STAGED = "install e2fsprogs 1.47.1 or newer and libarchive13, which need no copy of the files"


class Ext4Filesystem(Filesystem):
    """ext4 by e2fsprogs, as an ordinary user, in a region of a plain file.

    ``prefer_tar`` False takes the route for e2fsprogs before 1.47.1 even where the other is possible.
    """

    name = "ext4"
    largest = LARGEST

    def __init__(self, context: PluginContext, *, prefer_tar: bool = True) -> None:
        self._context = context
        self._tools = Ext4Tools(context.commands, context.scratch)
        self._tar: bool | None = None if prefer_tar else False
        self._epoch = context.source_date_epoch if context.source_date_epoch is not None else int(time.time())

    def check_host(self) -> Sequence[Finding]:
        """Return what is missing: e2fsprogs, or a version before 1.47.0."""
        return self._tools.check_host()

    def bytes_needed(self, contents: Mapping[str, PlacingAction]) -> int:
        """Return the size of the smallest partition that holds *contents*."""
        return estimate(collect(contents, self._epoch))

    def scratch_needed(self, contents: Mapping[str, PlacingAction]) -> int:
        """Return the size of a copy of all contents where one must be staged, else what Merkle trees and scripts take.

        Raises:
            DiskFullError: there is no room even to try what mkfs.ext4 can do.
        """
        sizes = [_content_bytes(action) for action in contents.values()]
        sockets = any(isinstance(item, MakeSpecial) and item.kind is SpecialKind.SOCKET for item in contents.values())
        if self._reads_tar() and not sockets:
            return _SCRATCH + max(sizes, default=0) // _TREE_SHARE
        return _SCRATCH + sum(sizes) + sum(sizes) // _TREE_SHARE

    def build(self, contents: Mapping[str, PlacingAction], partition: Partition, region: Region) -> None:
        """Make the filesystem; what the region held before is lost."""
        wanted = collect(contents, self._epoch)
        needed = estimate(wanted)
        if needed > region.size:
            msg = f"{partition.volume.name} has {region.size} bytes, and its contents need {needed}"
            raise DiskFullError(msg, hint="make the volume larger", facts={"needed": needed, "available": region.size})
        fs_uuid = partition.fs_uuid or str(identifier(self._context.seed, f"{partition.volume.value}-filesystem"))
        options = MakeOptions(
            uuid=fs_uuid,
            hash_seed=str(identifier(self._context.seed, f"{partition.volume.value}-hash-seed")),
            label=(partition.label or "")[:16],
            inodes=inode_count(wanted, region.size),
            journal_mib=journal_mib(region.size),
            epoch=self._epoch,
            prezeroed=_is_hole(region),
        )
        with tempfile.TemporaryDirectory(prefix="ext4-", dir=self._context.scratch) as directory:
            scratch = Path(directory)
            sockets = any(stat.S_ISSOCK(node.mode) for node in wanted.nodes)
            made = spread(wanted, options.hash_seed)
            if self._reads_tar() and not sockets:
                self._fill_from_tar(made.contents, region, options, scratch)
            else:
                self._fill_from_directory(made.contents, region, options, scratch)
            make_directories(made, region, lambda commands: self._tools.edit(region, commands, self._epoch))
            self._adjust(wanted, region, scratch)

    def check(self, region: Region) -> Sequence[Finding]:
        """Run ``e2fsck -fn``, then check the stored Merkle trees, which e2fsck does not know."""
        try:
            problems = self._tools.check(region, needs_replay=_needs_replay(region))
            if problems:
                return problems
            with Ext4Reader(region) as reader:
                return list(reader.verity_tree_problems())
        except DiskError as error:
            return [Finding.error("ext4.damaged", error.message, where=str(region.path))]

    @contextmanager
    def reader(self, region: Region) -> Iterator[FileReader]:
        """Open an `Ext4Reader`; a journal that must be replayed is replayed in memory, and that is said."""
        with Ext4Reader(region) as reader:
            if reader.replayed_blocks:
                self._context.log.warning(
                    "filesystem.journal-replayed",
                    disk=str(region.path),
                    blocks=reader.replayed_blocks,
                    hint="the journal of this ext4 must be replayed: it was not unmounted. It is read as if it had "
                    "been; nothing is written to it",
                )
            yield reader

    def _fill_from_tar(self, wanted: Ext4Contents, region: Region, options: MakeOptions, scratch: Path) -> None:
        stream = ext4_fill.tar_stream(wanted, self._epoch, scratch)
        ext4_fill.feed(stream, scratch, lambda prefix: self._tools.make(region, options, ("-d", "-"), prefix))

    def _fill_from_directory(self, wanted: Ext4Contents, region: Region, options: MakeOptions, scratch: Path) -> None:
        with ext4_fill.staging_directory(wanted, scratch, "" if self._tar else _STAGED) as staged:
            self._tools.make(region, options, ("-d", str(staged)))
        for missing in (missing_nodes, missing_links):
            with Ext4Reader(region) as reader:
                commands = list(missing(wanted, reader))
            self._tools.edit(region, commands, self._epoch)

    def _adjust(self, wanted: Ext4Contents, region: Region, scratch: Path) -> None:
        adjuster = Adjuster(wanted, self._epoch, scratch)
        with Ext4Reader(region) as reader:
            commands = list(adjuster.commands(reader))
        self._tools.edit(region, commands, self._epoch)
        with Ext4Reader(region) as reader:
            left = next(adjuster.commands(reader), None)
        if left is not None:
            msg = f"debugfs did not do as it was told: {left.decode(errors='backslashreplace')}"
            raise DiskError(msg, hint="please report this with the version of e2fsprogs")

    def _reads_tar(self) -> bool:
        """Return whether mkfs.ext4 takes a tar stream: new enough, and libarchive (loaded at run time) is there."""
        if self._tar is None:
            self._tar = self._tools.version() >= TAR_VERSION and self._try_tar()
            if not self._tar:
                self._context.log.info("filesystem.staging-chosen", filesystem="ext4", hint=_STAGED)
        return self._tar

    def _try_tar(self) -> bool:
        try:
            return self._fills_from_tar()
        except (DiskFullError, OSError) as cause:
            what = (
                "is full"
                if isinstance(cause, DiskFullError) or cause.errno == errno.ENOSPC
                else f"is unusable: {cause}"
            )
            msg = f"the scratch directory {self._context.scratch} {what}"
            raise DiskFullError(msg, hint="free some space there, or set TMPDIR to another filesystem") from cause

    def _fills_from_tar(self) -> bool:
        with tempfile.TemporaryDirectory(prefix="try-", dir=self._context.scratch) as directory:
            scratch = Path(directory)
            image = scratch / "image"
            size = 16 << 20
            with image.open("wb") as file:
                file.truncate(size)
            region = Region(path=image, offset=0, size=size)
            empty = collect({}, self._epoch)
            options = MakeOptions(
                uuid=str(identifier("", "try")),
                hash_seed=str(identifier("", "try")),
                label="",
                inodes=64,
                journal_mib=4,
                epoch=self._epoch,
                prezeroed=True,
            )
            try:
                self._fill_from_tar(empty, region, options, scratch)
            except DiskFullError:
                raise
            except (DiskError, CommandError):
                return False
            return True


def _content_bytes(action: PlacingAction) -> int:
    size = len(action.data) if isinstance(action, WriteFile) else 0
    size = action.source.size if isinstance(action, CopyObject) else size
    return -(-size // _BLOCK) * _BLOCK


def _needs_replay(region: Region) -> bool:
    """Return whether the superblock says so; what cannot be read is for e2fsck to tell."""
    with open_regular(region.path) as file:
        file.seek(region.offset + 1024)
        try:
            return parse_superblock(file.read(1024), region.size).needs_replay
        except DiskError:
            return False


def _is_hole(region: Region) -> bool:
    """Return whether the region was never written, so that inode tables need not be zeroed."""
    descriptor = os.open(region.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, region.offset, os.SEEK_DATA) >= region.offset + region.size
    except OSError:
        return True
    finally:
        os.close(descriptor)
