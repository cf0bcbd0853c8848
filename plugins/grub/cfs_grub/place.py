"""Where GRUB's files are on a target, and how GRUB spells their paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import Place, has_volume, read_file
from cfs_core.plugin import BootError, Location, Volume

if TYPE_CHECKING:
    from cfs_core.plugin import TargetView

# Fedora and openSUSE have the first, Debian and Arch the second; where there is one already, it is the one in use.
GRUB_DIRECTORIES = ("grub2", "grub")
"""Names GRUB's directory has had; the first is bootc's and ours."""

ESP_UKIS = Location(Volume.ESP, "/EFI/Linux/bootc")


@dataclass(frozen=True, slots=True, kw_only=True)
class BootPlace:
    """The boot directory: ``/boot`` of the root volume, or the root of a volume of its own.

    ``prefix`` is how GRUB, which knows filesystems and no mount points, sees the volume's root.
    """

    directory: Location
    grub: Location
    prefix: str = ""

    @property
    def entries(self) -> Place:
        """Where entry files are."""
        return Place(directory=self.directory / "loader" / "entries", prefix=self.prefix)

    def spell(self, location: Location) -> str:
        """Return the path GRUB uses for *location* once its ``root`` is this filesystem."""
        return self.entries.spell(location)


def boot_place(target: TargetView, volumes: frozenset[Volume], root_path: str) -> BootPlace:
    """Return where boot files are or are to be."""
    prefix = ""
    for volume in (Volume.BOOT, Volume.XBOOTLDR):
        if has_volume(target, volumes, volume):
            directory = Location(volume, "/")
            break
    else:
        directory, prefix = Location(Volume.ROOT, "/boot"), root_path.rstrip("/")
    present = (name for name in GRUB_DIRECTORIES if read_file(target, directory / name / "grub.cfg") is not None)
    return BootPlace(directory=directory, grub=directory / next(present, GRUB_DIRECTORIES[0]), prefix=prefix)


def filesystem_uuid(target: TargetView, volume: Volume) -> str:
    """Return the UUID by which GRUB finds *volume*'s filesystem.

    Raises:
        BootError: it is not known.
    """
    partition = target.partition(volume)
    if partition is None or not partition.fs_uuid:
        message = f"the UUID of the filesystem on {volume.name} is not known, and GRUB finds it by nothing else"
        raise BootError(message, hint="give the volume a partition and a filesystem of its own")
    return partition.fs_uuid
