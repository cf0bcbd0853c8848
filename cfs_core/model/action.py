"""Actions: everything that changes a target, as data. Plugins return these; core applies them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.model.content import Content
    from cfs_core.model.digest import HashAlgorithm
    from cfs_core.model.disk import Location
    from cfs_core.model.tree import SpecialKind, Xattrs


class Effect(enum.IntEnum):
    """How much an action can hurt; plans list the worst first."""

    READ = 0
    ADD = 1
    REPLACE = 2
    DESTROY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Metadata of a file to be made. ``mtime_sec`` None means the build's own time (SOURCE_DATE_EPOCH)."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_sec: int | None = None
    mtime_nsec: int = 0
    xattrs: Xattrs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that will be done. Subclasses are a closed set; ``why`` is shown in the plan.

    ``effect`` is told by core, which knows what is there; a plugin cannot say it.
    """

    why: str
    effect: Effect = field(default=Effect.ADD, init=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile(Action):
    """Make or atomically replace a file with these bytes. Parent directories are made as needed (0755)."""

    location: Location
    data: bytes = field(repr=False)
    attributes: Attributes = Attributes()
    volatile: bool = False
    """True for files that a running loader or system rewrites or renames (a boot counter): later checks skip them."""

    in_place: bool = False
    """True for files whose blocks a loader knows (GRUB's environment block): where a file of the same size is there,
    its bytes are overwritten and the rest of it stays, attributes too. Replaced as usual where the size differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyObject(Action):
    """Make or atomically replace a file with content that is elsewhere; ``verity`` enables fs-verity on it."""

    location: Location
    source: Content
    attributes: Attributes = Attributes()
    verity: HashAlgorithm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory(Action):
    """Make a directory, or give an existing one these attributes."""

    location: Location
    attributes: Attributes = Attributes(mode=0o755)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSymlink(Action):
    """Make or atomically replace a symbolic link. ``target`` is surrogate-escaped text."""

    location: Location
    target: str
    attributes: Attributes = Attributes(mode=0o777)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeHardLink(Action):
    """Give an existing file another name on the same volume."""

    location: Location
    existing: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSpecial(Action):
    """Make a device node, fifo or socket."""

    location: Location
    kind: SpecialKind
    rdev: int = 0
    attributes: Attributes = Attributes()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePath(Action):
    """Remove a file, or a directory with everything below it. Missing is fine."""

    location: Location
    effect: Effect = field(default=Effect.DESTROY, init=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenamePath(Action):
    """Rename, replacing what was there (one atomic step)."""

    source: Location
    location: Location
    effect: Effect = field(default=Effect.REPLACE, init=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePaths(Action):
    """Swap two existing paths of one volume in one step (renameat2 RENAME_EXCHANGE)."""

    a: Location
    b: Location
    effect: Effect = field(default=Effect.REPLACE, init=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBlocks(Action):
    """Write bytes at an offset (bytes) of a raw volume; ``location.path`` is ``/``."""

    location: Location
    offset: int
    data: bytes = field(repr=False)
    effect: Effect = field(default=Effect.DESTROY, init=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEfiVariable(Action):
    """Set a variable of the running machine's firmware. Never part of building a disk image."""

    name: str
    guid: str
    data: bytes = field(repr=False)
    effect: Effect = field(default=Effect.REPLACE, init=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCommand(Action):
    """Run a host tool. States what it reads and writes; refused where the setting ``install.host-tools`` is false."""

    argv: tuple[str, ...]
    reads: tuple[Location, ...] = ()
    writes: tuple[Location, ...] = ()
    effect: Effect = field(default=Effect.REPLACE, init=False, compare=False)


PlacingAction = WriteFile | CopyObject | MakeDirectory | MakeSymlink | MakeHardLink | MakeSpecial
"""Actions that put something at a location."""
