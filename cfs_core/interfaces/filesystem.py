"""Making, reading and checking filesystems inside plain files."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from cfs_core.interfaces.storage import FileReader
    from cfs_core.model.action import PlacingAction
    from cfs_core.model.disk import Partition, Region
    from cfs_core.model.plan import Finding


class Filesystem(abc.ABC):
    """One kind of filesystem, made offline as an ordinary user: no mount, no loop device."""

    name: str
    """As partitions name it: ``ext4``."""

    largest: int | None = None
    """Bytes of the largest partition that `build` can fill and `reader` can read; None where only the host sets one."""

    @abc.abstractmethod
    def check_host(self) -> Sequence[Finding]:
        """Return what is missing on this host (tools, libraries, versions)."""

    @abc.abstractmethod
    def bytes_needed(self, contents: Mapping[str, PlacingAction]) -> int:
        """Return how large a partition these contents need, metadata and fs-verity trees included."""

    def scratch_needed(self, contents: Mapping[str, PlacingAction]) -> int:
        """Return how many bytes `build` takes in the scratch directory (``PluginContext.scratch``) at once.

        Called where `check_host` finds no fault.

        Raises:
            DiskError: the scratch directory cannot be used.
        """
        del contents
        return 0

    @abc.abstractmethod
    def build(self, contents: Mapping[str, PlacingAction], partition: Partition, region: Region) -> None:
        """Make the filesystem in *region* of an existing sparse file. ``contents`` maps absolute paths, parents first.

        Raises:
            DiskError: no space (code ``disk.full``), or a tool failed.
        """

    @abc.abstractmethod
    def check(self, region: Region) -> Sequence[Finding]:
        """Check consistency without changing anything (``e2fsck -fn``, ``fsck.fat -n``)."""

    @abc.abstractmethod
    def reader(self, region: Region) -> AbstractContextManager[FileReader]:
        """Read files without mounting.

        Raises:
            DiskError: not such a filesystem.
        """
