"""A disk image: what a target in memory holds is built, as a whole, into one plain file."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Self

from cfs_core.errors import DiskError, DiskFullError, RefusedError
from cfs_core.model.disk import RAW, Region, Volume
from cfs_core.target.partial import PartialFile, taken
from cfs_core.target.room import room_on_host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cfs_core.interfaces.filesystem import Filesystem
    from cfs_core.interfaces.layout import DiskLayout
    from cfs_core.model.disk import Partition
    from cfs_core.target.memory import MemoryTarget


class ImageTarget:
    """Builds a disk image at *path* of what *memory* holds. A context manager: `build`, look at the result, `publish`.

    Nothing is at *path* before `publish`, and nothing is left beside it afterwards, whatever happens in between.
    """

    def __init__(
        self,
        path: Path,
        memory: MemoryTarget,
        *,
        layout: DiskLayout,
        filesystems: Mapping[Volume, Filesystem],
        seed: str | None = None,
        replace: bool = False,
    ) -> None:
        # A link that was made for the image stays: what it points to is written.
        self._path = path.resolve()
        self._memory = memory
        self._partitions = memory.partitions
        self._layout = layout
        self._filesystems = filesystems
        self._seed = seed
        self._replace = replace
        self._partial: PartialFile | None = None
        self._built = False

    @staticmethod
    def check_destination(path: Path, *, replace: bool) -> None:
        """Refuse a destination that cannot be written, before any work is done.

        Raises:
            RefusedError: a block device, a directory, an existing file without *replace*, no such directory.
        """
        parent = path.resolve().parent
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            if path.is_symlink():
                msg = f"{path} is a symbolic link to {path.readlink()}, which is not there"
                raise RefusedError(msg, hint="remove the link, or name the file that is to be made") from None
            mode = 0
        except OSError as error:
            msg = f"cannot look at {path}: {error.strerror}"
            raise RefusedError(msg, hint="choose another name for the disk image") from error
        if stat.S_ISBLK(mode):
            msg = f"{path} is a block device; cfs writes disk images into files only, for now"
            raise RefusedError(
                msg, hint="write an image file, then copy it with: dd if=FILE of=DEVICE bs=4M conv=fsync"
            )
        if mode and not stat.S_ISREG(mode):
            msg = f"{path} is not a regular file"
            raise RefusedError(msg, hint="name a file that is to become the disk image")
        if mode and not replace:
            raise taken(path)
        if not parent.is_dir():
            msg = f"there is no directory {parent}"
            raise RefusedError(msg, hint="make it first")
        if not os.access(parent, os.W_OK | os.X_OK):
            msg = f"{parent} is not writable for you"
            raise RefusedError(msg, hint="choose another directory")

    def __enter__(self) -> Self:
        self.check_destination(self._path, replace=self._replace)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._partial is not None:
            self._partial.__exit__(*exception)
            self._partial = None

    def build(self) -> Path:
        """Write partition table, filesystems and boot blocks into a temporary file beside the final name; return it.

        Raises:
            DiskFullError: a volume is too small, or the host's filesystem is.
            DiskError: a tool failed; the temporary file goes with the context.
            RefusedError: an EFI variable was set.
        """
        for _, name in self._memory.efi_variables:
            msg = f"the EFI variable {name} belongs to a machine, not to a disk image"
            raise RefusedError(msg, hint="the plugin that planned it ignores that the disk is generic")
        if self._partial is not None:
            msg = "this disk image was built already"
            raise DiskError(msg)
        self._partial = PartialFile(self._path).__enter__()
        partial = self._partial
        size = self._layout.disk_bytes(self._partitions)
        contents = {
            partition.volume: self._memory.contents(partition.volume)
            for partition in self._partitions
            if partition.volume not in RAW
        }
        self._check_room(room_on_host(self._memory, self._filesystems))
        partial.resize(size)
        self._layout.write(partial.path, self._partitions, seed=self._seed)
        for partition in self._partitions:
            if partition.volume in contents:
                region = Region(path=partial.path, offset=partition.start, size=partition.size)
                self._filesystem(partition).build(contents[partition.volume], partition, region)
        for volume in RAW:
            place = self._memory.partition(volume)
            for offset, data in self._memory.blocks(volume):
                partial.write_at(offset + (place.start if place else 0), data)
        # Before it is read back, so that what the host cannot write out is an error now and not after the disk has its
        # name.
        partial.sync()
        self._built = True
        return partial.path

    def publish(self) -> None:
        """Give the built image its final name, durably and in one step.

        Raises:
            RefusedError: the name was taken meanwhile.
            DiskError: nothing was built, or the host's filesystem refuses.
        """
        if self._partial is None or not self._built:
            msg = "there is no built disk image to publish"
            raise DiskError(msg)
        self._partial.sync()
        self._partial.publish(replace=self._replace)

    def _filesystem(self, partition: Partition) -> Filesystem:
        filesystem = self._filesystems.get(partition.volume)
        if filesystem is None:
            msg = f"no filesystem was chosen for {partition.volume.name}"
            raise DiskError(msg)
        return filesystem

    def _check_room(self, needed: int) -> None:
        try:
            status = os.statvfs(self._path.parent)
        except OSError as error:
            msg = f"cannot look at {self._path.parent}: {error.strerror}"
            raise DiskError(msg) from error
        available = status.f_bavail * status.f_frsize
        if needed > available:
            has, takes = (f"{count / (1 << 20):.1f} MiB" for count in (available, needed))
            msg = f"{self._path.parent} has {has} free, and the disk image will take about {takes}"
            raise DiskFullError(
                msg, hint="free some space, or choose another place", facts={"needed": needed, "available": available}
            )
