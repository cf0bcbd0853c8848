"""A finished disk image, read without mounting: for reading back, for checks, for boot menus."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.errors import DiskError, LimitError
from cfs_core.model.disk import Region
from cfs_core.system.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cfs_core.interfaces.filesystem import Filesystem
    from cfs_core.interfaces.layout import DiskLayout
    from cfs_core.interfaces.storage import FileReader
    from cfs_core.model.content import Content
    from cfs_core.model.disk import Location, Partition, Volume
    from cfs_core.model.plan import Finding

READ_LIMIT = 1 << 30
"""Most bytes `DiskImage.read` returns; larger files are read through `DiskImage.reader`."""


class DiskImage:
    """A `TargetView` of a disk image. Made by `open_disk`."""

    def __init__(self, path: Path, layout: DiskLayout, filesystems: Mapping[str, Filesystem], stack: ExitStack) -> None:
        try:
            open_regular(path).close()
        except OSError as cause:
            msg = f"{path} cannot be read: {cause.strerror}"
            raise DiskError(msg, hint="name a disk image, which is a regular file") from cause
        self.path = path
        self._layout = layout
        self._filesystems = filesystems
        self._stack = stack
        self._partitions: dict[Volume, Partition] = {}
        for partition in layout.read(path):
            self._partitions.setdefault(partition.volume, partition)
        self._readers: dict[Volume, FileReader] = {}

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Partitions that hold a volume, by number."""
        return tuple(sorted(self._partitions.values(), key=lambda partition: partition.number))

    def volumes(self) -> frozenset[Volume]:
        """Return the volumes that exist."""
        return frozenset(self._partitions)

    def partition(self, volume: Volume) -> Partition | None:
        """Return where *volume* lives."""
        return self._partitions.get(volume)

    def reader(self, volume: Volume) -> FileReader | None:
        """Return a reader of *volume*, open as long as the disk is; None where there is no filesystem.

        Raises:
            DiskError: the filesystem is damaged, or no installed plugin knows it.
        """
        known = self._readers.get(volume)
        partition = self._partitions.get(volume)
        if known is not None or partition is None or partition.filesystem is None:
            return known
        opened = self._stack.enter_context(self._filesystem(partition).reader(self._region(partition)))
        self._readers[volume] = opened
        return opened

    def read(self, location: Location) -> bytes:
        """Return a file's bytes; links are not followed.

        Raises:
            FileNotFoundError: no regular file is there.
            LimitError: it is larger than `READ_LIMIT`.
            DiskError: the filesystem is damaged.
        """
        reader = self.reader(location.volume)
        if reader is None or reader.kind(location.path) != "file":
            raise FileNotFoundError(str(location))
        size = reader.size(location.path)
        if size > READ_LIMIT:
            msg = f"{location} has {size} bytes; the limit is {READ_LIMIT}"
            raise LimitError(msg)
        with reader.open(location.path) as file:
            return file.read()

    def content(self, location: Location) -> Content:
        """Return a regular file's content, readable as long as the disk is open.

        Raises:
            FileNotFoundError: no regular file is there.
            DiskError: the filesystem is damaged.
        """
        reader = self.reader(location.volume)
        if reader is None or reader.kind(location.path) != "file":
            raise FileNotFoundError(str(location))
        return _FileOnDisk(reader, location.path, reader.size(location.path))

    def names(self, location: Location) -> tuple[str, ...]:
        """Return sorted names in a directory; empty if there is none."""
        reader = self.reader(location.volume)
        if reader is None or reader.kind(location.path) != "directory":
            return ()
        return reader.names(location.path)

    def exists(self, location: Location) -> bool:
        """Return whether anything is there."""
        reader = self.reader(location.volume)
        return reader is not None and reader.kind(location.path) is not None

    def check(self) -> Iterator[Finding]:
        """Yield what is wrong with the partition table and with each filesystem."""
        yield from self._layout.check(self.path)
        for partition in self.partitions:
            if partition.filesystem is not None:
                yield from self._filesystem(partition).check(self._region(partition))

    def _region(self, partition: Partition) -> Region:
        return Region(path=self.path, offset=partition.start, size=partition.size)

    def _filesystem(self, partition: Partition) -> Filesystem:
        name = partition.filesystem or ""
        filesystem = self._filesystems.get(name)
        if filesystem is None:
            msg = f"{partition.volume.name} of {self.path} holds {name}, which no installed plugin can read"
            raise DiskError(msg, hint="cfs plugins list shows the filesystems that are known")
        return filesystem


@dataclass(frozen=True, slots=True)
class _FileOnDisk:
    """A `Content` on a disk that is not mounted."""

    reader: FileReader
    path: str
    size: int

    def open(self) -> BinaryIO:
        return self.reader.open(self.path)


@contextmanager
def open_disk(path: Path, layout: DiskLayout, filesystems: Mapping[str, Filesystem]) -> Iterator[DiskImage]:
    """Open the disk image at *path*; *filesystems* by name read what its volumes hold.

    Raises:
        DiskError: not a disk image, or damaged beyond use.
    """
    with ExitStack() as stack:
        yield DiskImage(path, layout, filesystems, stack)
