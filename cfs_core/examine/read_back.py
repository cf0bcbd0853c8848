"""Reading a finished disk back: only what was found on it counts as done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.errors import BootError
from cfs_core.examine.disk import examine_entry, examine_volumes
from cfs_core.interfaces.storage import MetadataReader
from cfs_core.model.action import (
    CopyObject,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    PlacingAction,
    WriteFile,
)
from cfs_core.model.content import BytesContent
from cfs_core.model.plan import Finding
from cfs_core.model.tree import SpecialKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.interfaces.bootloader import Bootloader
    from cfs_core.interfaces.provider import BootloaderProvider
    from cfs_core.interfaces.storage import FileReader, StorageFormat
    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.boot import BootEntry
    from cfs_core.model.content import Content
    from cfs_core.model.disk import Location, Volume
    from cfs_core.model.plan import InstallPlan, Step
    from cfs_core.target.read import DiskImage

CHUNK = 1 << 20


class ReadBackError(BootError):
    """What was written is not what was planned; nothing was published."""

    code = "boot.read-back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Makers:
    """What a disk was made with, and is read with: its loader, and what that declares; its storage format."""

    bootloader: Bootloader
    declared: BootloaderProvider
    storage: StorageFormat


def read_back(disk: DiskImage, plan: InstallPlan, makers: Makers) -> None:
    """Examine a finished disk image, and compare it with the plan: boot files, menu, state.

    Raises:
        ReadBackError: with every problem in ``facts['problems']``.
    """
    problems = list(_problems(disk, plan, makers))
    if problems:
        first = problems[0]
        msg = f"the disk was written but reads back wrong: {first.where}: {first.message}"
        msg += f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ReadBackError(
            msg, hint="check the host's memory and disk, and install again", facts={"problems": problems}
        )


def _problems(disk: DiskImage, plan: InstallPlan, makers: Makers) -> Iterator[Finding]:
    yield from examine_volumes(disk, makers.storage)
    for volume in disk.volumes():
        reader = disk.reader(volume)
        if reader is not None:
            yield from compare(volume, reader, plan.steps)
    yield from menu_problems(disk, plan.menu.entries[0], makers.bootloader)
    for entry in makers.bootloader.read_menu(disk).entries[:1]:
        yield from examine_entry(disk, entry, makers.declared)


def compare(volume: Volume, reader: FileReader, steps: Iterable[Step]) -> Iterator[Finding]:
    """Compare everything that *steps* put on *volume*; contents of the repository aside, which prove themselves."""
    last: dict[Location, tuple[PlacingAction, bool]] = {}
    for step in steps:
        for action in step.actions:
            if isinstance(action, PlacingAction):
                last[action.location] = action, step.id != "repository"
    metadata = reader if isinstance(reader, MetadataReader) else None
    for location, (action, contents) in last.items():
        if location.volume is volume:
            problem = _difference(reader, location.path, action) if contents else None
            if problem is None and metadata is not None:
                try:
                    problem = _other_metadata(metadata, location.path, action)
                except OSError:
                    problem = "is missing"
            if problem:
                yield Finding.error("disk.differs", problem, where=str(location))


def _difference(reader: FileReader, path: str, action: PlacingAction) -> str | None:
    kind = reader.kind(path)
    if kind is None:
        return "is missing"
    match action:
        case MakeDirectory():
            return None if kind == "directory" else f"is a {kind}, not a directory"
        case MakeSymlink():
            found = reader.read_link(path) if kind == "symlink" else None
            return None if found == action.target else "is not the planned link"
        case MakeSpecial():
            return None if kind == "special" else f"is a {kind}, not a special file"
        case MakeHardLink():
            return None if kind != "directory" else "is a directory, not a link"
        case WriteFile() | CopyObject() if kind != "file":
            return f"is a {kind}, not a file"
        case WriteFile():
            wanted: Content = BytesContent(action.data)
        case CopyObject():
            wanted = action.source
    return None if _same(reader, path, wanted) else "has other content than planned"


def _other_metadata(reader: MetadataReader, path: str, action: PlacingAction) -> str | None:
    """Compare permissions, owner, extended attributes, device number and links. Times decide nothing at a boot."""
    if isinstance(action, MakeHardLink):
        same = reader.same_file(path, action.existing.path)
        return None if same else f"is not a link to {action.existing.path}"
    # What ConditionNeedsUpdate= compares is no exception: the time of /usr is in the image, whose digest is checked,
    # and /etc/.updated is not copied. FAT could not hold the times anyway, as it counts in steps of two seconds.
    found, wanted = reader.attributes(path), action.attributes
    if found.mode != wanted.mode & 0o7777 and not isinstance(action, MakeSymlink):
        return f"has permissions {found.mode:04o}, not {wanted.mode:04o}"
    if (found.uid, found.gid) != (wanted.uid, wanted.gid):
        return f"belongs to {found.uid}:{found.gid}, not {wanted.uid}:{wanted.gid}"
    if found.xattrs != wanted.xattrs and dict(found.xattrs) != dict(wanted.xattrs):
        names = {name for name, _ in {*found.xattrs} ^ {*wanted.xattrs}}
        return f"has other extended attributes than planned: {', '.join(sorted(map(os.fsdecode, names)))}"
    if isinstance(action, MakeSpecial) and action.kind in {SpecialKind.CHAR, SpecialKind.BLOCK}:
        device = reader.device(path)
        return None if device == action.rdev else f"is device {device:#x}, not {action.rdev:#x}"
    return None


def _same(reader: FileReader, path: str, wanted: Content) -> bool:
    if reader.size(path) != wanted.size:
        return False
    with reader.open(path) as found, wanted.open() as expected:
        while block := expected.read(CHUNK):
            if found.read(len(block)) != block:
                return False
    return True


def menu_problems(target: TargetView, wanted: BootEntry, bootloader: Bootloader) -> Iterator[Finding]:
    """Parse the menu again, as the loader will, and look for the wanted entry and its files.

    On a new disk it is the only entry of ours: the first is what starts, whatever the loader's default says.
    """
    menu = bootloader.read_menu(target)
    if not menu.entries:
        yield Finding.error("boot.menu", "is empty", where="boot menu")
        return
    first = menu.entries[0]
    if first.deployment_id != wanted.deployment_id:
        message = f"starts {first.deployment_id:.16} first, not {wanted.deployment_id:.16}"
        yield Finding.error("boot.menu", message, where="boot menu")
        return
    if wanted.arguments and first.arguments != wanted.arguments:
        yield Finding.error("boot.menu", f"has other kernel arguments: {first.arguments}", where="boot menu")
