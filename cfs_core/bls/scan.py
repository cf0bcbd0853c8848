"""What entry files a target has, and which boot files they need."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.bls.entry import ENTRY_LIMIT, Fields, parse_entry, split_arguments
from cfs_core.bls.names import ENTRY_PREFIX, EntryName, argument_deployment, os_id_of, uki_deployment
from cfs_core.bls.transition import MenuFile
from cfs_core.model.boot import BootEntry, EntryKind
from cfs_core.model.disk import Location, Volume

if TYPE_CHECKING:
    from cfs_core.interfaces.target import TargetView


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory of entry files, and how paths in them become locations.

    Loaders count paths from the root of the filesystem the entries are in. ``prefix`` is where that filesystem shows
    the volume's root: nothing on an ESP, ``/@`` for a root volume in a btrfs subvolume.
    """

    directory: Location
    prefix: str = ""

    def locate(self, path: str) -> Location:
        """Return where *path* of an entry points."""
        clean = posixpath.normpath("/" + path.replace("\\", "/").lstrip("/"))
        prefix = self.prefix.rstrip("/")
        if prefix and clean.startswith(prefix + "/"):
            clean = clean[len(prefix) :]
        return Location(self.directory.volume, clean)

    def spell(self, location: Location) -> str:
        """Return how an entry names *location*."""
        return self.prefix.rstrip("/") + location.path


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFile:
    """An entry file of a target. ``deployment_id`` is None where it boots something that is not a deployment."""

    place: Place
    location: Location
    name: EntryName
    data: bytes = field(repr=False)
    fields: Fields
    deployment_id: str | None

    @property
    def ours(self) -> bool:
        """Whether cfs (or bootc) made it and may change it."""
        return self.deployment_id is not None and self.name.stem.startswith(ENTRY_PREFIX)

    @property
    def identity(self) -> str:
        """What a menu calls it: the deployment, or the file's name where it is foreign."""
        return self.deployment_id if self.ours and self.deployment_id else f"{self.name.stem}.conf"

    @property
    def loader_files(self) -> tuple[Location, ...]:
        """The files the entry needs, the one the loader starts first."""
        paths = [
            *self.fields.every("linux"),
            *self.fields.every("uki"),
            *self.fields.every("efi"),
            *(path for value in self.fields.every("initrd") for path in value.split()),
            *self.fields.every("devicetree"),
        ]
        # A variable of GRUB's, such as Fedora's $tuned_initrd, is no path; usually it is empty.
        return tuple(self.place.locate(path) for path in paths if not path.startswith("$"))

    def menu_file(self) -> MenuFile:
        """Return it as part of a change."""
        return MenuFile(location=self.location, deployment_id=self.deployment_id or "", data=self.data)

    def entry(self) -> BootEntry:
        """Return it as an entry of a menu."""
        stem = self.name.stem
        version = self.fields.first("version") or ""
        return BootEntry(
            deployment_id=self.identity,
            kind=EntryKind.BLS if self.fields.first("linux") else EntryKind.UKI,
            title=self.fields.first("title") or stem,
            version=version,
            os_id=os_id_of(self.fields.first("sort-key")) or stem.removeprefix(ENTRY_PREFIX).partition("-")[0],
            arguments=split_arguments(" ".join(self.fields.every("options"))),
            machine_id=self.fields.first("machine-id"),
            tries_left=self.name.tries_left,
            foreign=not self.ours,
            files=self.loader_files,
            name=f"{stem}.conf",
        )


def scan_entries(target: TargetView, places: tuple[Place, ...]) -> tuple[EntryFile, ...]:
    """Read all entry files of *places*, in no particular order. What is not an entry is passed over."""
    found = []
    for place in places:
        for file_name in target.names(place.directory):
            name = EntryName.parse(file_name)
            location = place.directory / file_name
            if name is None:
                continue
            data = read_file(target, location)
            if data is None or len(data) > ENTRY_LIMIT:
                continue
            fields = parse_entry(data)
            uki = fields.first("uki") or fields.first("efi")
            if uki is not None:
                deployment = uki_deployment(uki)
            else:
                deployment = argument_deployment(split_arguments(" ".join(fields.every("options"))))
            found.append(
                EntryFile(place=place, location=location, name=name, data=data, fields=fields, deployment_id=deployment)
            )
    return tuple(found)


def read_file(target: TargetView, location: Location) -> bytes | None:
    """Return the bytes of a file of *target*, None if there is no such file or volume."""
    if location.volume not in target.volumes():
        return None
    try:
        return target.read(location)
    except (FileNotFoundError, IsADirectoryError):
        return None


def list_names(target: TargetView, location: Location) -> tuple[str, ...]:
    """Return the names in a directory of *target*; none if the volume is not there (yet)."""
    return target.names(location) if location.volume in target.volumes() else ()


def has_volume(target: TargetView, wanted: frozenset[Volume], volume: Volume) -> bool:
    """Return whether *volume* is on *target* or was asked for."""
    return volume in target.volumes() or volume in wanted
