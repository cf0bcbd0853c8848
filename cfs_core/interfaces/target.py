"""What bootloaders and state code see of a target: volumes that can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cfs_core.model.disk import Location, Partition, Volume


class TargetView(Protocol):
    """Read access to a target's volumes. Nothing writes but core's executor."""

    def volumes(self) -> frozenset[Volume]:
        """Return the volumes that exist."""

    def partition(self, volume: Volume) -> Partition | None:
        """Return where *volume* lives, None where it has no partition of its own."""

    def read(self, location: Location) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: nothing there.
        """

    def names(self, location: Location) -> tuple[str, ...]:
        """Return sorted names in a directory; empty if there is none."""

    def exists(self, location: Location) -> bool:
        """Return whether anything is there."""
