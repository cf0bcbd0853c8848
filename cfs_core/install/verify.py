"""Reading a finished disk back: only what was found on it counts as done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import BootError
from cfs_core.install.command_line import check_entry
from cfs_core.model.action import CopyObject, MakeDirectory, MakeSymlink, WriteFile
from cfs_core.model.content import BytesContent
from cfs_core.model.deployment import Problem
from cfs_core.model.disk import Volume

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.install.plan import PreparedInstall
    from cfs_core.interfaces.storage import FileReader, StorageFormat
    from cfs_core.model.content import Content
    from cfs_core.model.disk import Location
    from cfs_core.target.read import DiskImage

CHUNK = 1 << 20
REPOSITORY = "/composefs"


class VerifyError(BootError):
    """What was written is not what was planned; nothing was published."""

    code = "boot.read-back"


def verify(disk: DiskImage, prepared: PreparedInstall, storage: StorageFormat) -> None:
    """Check table, filesystems, boot files, menu, state and repository of a finished disk image.

    Raises:
        VerifyError: with every problem in ``facts['problems']``.
    """
    problems = list(_problems(disk, prepared, storage))
    if problems:
        first = problems[0]
        msg = f"the disk was written but reads back wrong: {first.where}: {first.message}"
        msg += f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise VerifyError(msg, hint="check the host's memory and disk, and install again", problems=problems)


def _problems(disk: DiskImage, prepared: PreparedInstall, storage: StorageFormat) -> Iterator[Problem]:
    yield from disk.check()
    for volume in disk.volumes():
        reader = disk.reader(volume)
        if reader is not None:
            yield from _compare(volume, reader, prepared)
    root = disk.reader(Volume.ROOT)
    if root is not None:
        yield from storage.check_files(root, REPOSITORY)
    yield from _menu(disk, prepared)


def _compare(volume: Volume, reader: FileReader, prepared: PreparedInstall) -> Iterator[Problem]:
    """Compare every file that the plan put on *volume*, the repository aside: its objects prove themselves."""
    last: dict[Location, WriteFile | CopyObject | MakeSymlink | MakeDirectory] = {}
    for step in prepared.plan.steps:
        if step.id == "repository":
            continue
        for action in step.actions:
            if isinstance(action, WriteFile | CopyObject | MakeSymlink | MakeDirectory):
                last[action.location] = action
    for location, action in last.items():
        if location.volume is volume:
            problem = _difference(reader, location.path, action)
            if problem:
                yield Problem(code="disk.differs", where=str(location), message=problem)


def _difference(
    reader: FileReader, path: str, action: WriteFile | CopyObject | MakeSymlink | MakeDirectory
) -> str | None:
    kind = reader.kind(path)
    if kind is None:
        return "is missing"
    if isinstance(action, MakeDirectory):
        return None if kind == "directory" else f"is a {kind}, not a directory"
    if isinstance(action, MakeSymlink):
        return None if kind == "symlink" and reader.read_link(path) == action.target else "is not the planned link"
    if kind != "file":
        return f"is a {kind}, not a file"
    wanted = BytesContent(action.data) if isinstance(action, WriteFile) else action.source
    return None if _same(reader, path, wanted) else "has other content than planned"


def _same(reader: FileReader, path: str, wanted: Content) -> bool:
    if reader.size(path) != wanted.size:
        return False
    with reader.open(path) as found, wanted.open() as expected:
        while block := expected.read(CHUNK):
            if found.read(len(block)) != block:
                return False
    return True


def _menu(disk: DiskImage, prepared: PreparedInstall) -> Iterator[Problem]:
    """Parse the menu again, as the loader will, and look for the wanted entry and its files."""
    menu = prepared.bootloader.read_menu(disk)
    wanted = prepared.plan.menu.entries[0]
    if not menu.entries:
        yield Problem(code="boot.menu", where="boot menu", message="is empty")
        return
    first = menu.entries[0]
    if first.deployment_id != wanted.deployment_id:
        message = f"starts {first.deployment_id:.16} first, not {wanted.deployment_id:.16}"
        yield Problem(code="boot.menu", where="boot menu", message=message)
        return
    if wanted.arguments and first.arguments != wanted.arguments:
        yield Problem(code="boot.menu", where="boot menu", message=f"has other kernel arguments: {first.arguments}")
    yield from _missing(disk, first.files)
    yield from check_entry(disk, first)


def _missing(disk: DiskImage, files: Iterable[Location]) -> Iterator[Problem]:
    for location in files:
        if not disk.exists(location):
            yield Problem(code="boot.menu", where=str(location), message="is named by the boot menu and missing")
