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
    """Looks, and changes nothing."""

    ADD = 1
    """Makes what was not there."""

    REPLACE = 2
    """Something else was there before."""

    DESTROY = 3
    """What was there is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Metadata of a file to be made. ``mtime_sec`` None means the build's own time (SOURCE_DATE_EPOCH)."""

    mode: int = 0o644
    """Permission bits, set-user-id and sticky bits included; no file type."""

    uid: int = 0
    """Owner, as a number."""

    gid: int = 0
    """Group, as a number."""

    mtime_sec: int | None = None
    """Time of the last change, in seconds since 1970."""

    mtime_nsec: int = 0
    """The part of it below a second, in nanoseconds."""

    xattrs: Xattrs = ()
    """Extended attributes: names and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that will be done. Subclasses are a closed set; ``why`` is shown in the plan.

    ``effect`` is told by core, which knows what is there; a plugin cannot say it.
    """

    why: str
    """What it is for, in words for people."""

    effect: Effect = field(default=Effect.ADD, init=False, compare=False)
    """Belongs to the kind of action; nobody gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile(Action):
    """Make or atomically replace a file with these bytes. Parent directories are made as needed (0755)."""

    location: Location
    """The file."""

    data: bytes = field(repr=False)
    """All of its content."""

    attributes: Attributes = Attributes()
    """Owner, mode, time, extended attributes; a FAT volume has no owners and no modes."""

    volatile: bool = False
    """True for files that a running loader or system rewrites or renames (a boot counter): later checks skip them."""

    in_place: bool = False
    """True for files whose blocks a loader knows (GRUB's environment block): where a file of the same size is there,
    its bytes are overwritten and the rest of it stays, attributes too. Replaced as usual where the size differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyObject(Action):
    """Make or atomically replace a file with content that is elsewhere; ``verity`` enables fs-verity on it."""

    location: Location
    """The file."""

    source: Content
    """Where its content comes from."""

    attributes: Attributes = Attributes()
    """Owner, mode, time, extended attributes; a FAT volume has no owners and no modes."""

    verity: HashAlgorithm | None = None
    """The hash of fs-verity; None leaves the file without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory(Action):
    """Make a directory, or give an existing one these attributes."""

    location: Location
    """The directory."""

    attributes: Attributes = Attributes(mode=0o755)
    """Owner, mode and time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSymlink(Action):
    """Make or atomically replace a symbolic link. ``target`` is surrogate-escaped text."""

    location: Location
    """The link."""

    target: str
    """What it holds; it need not exist."""

    attributes: Attributes = Attributes(mode=0o777)
    """Owner and time; the mode of a link is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeHardLink(Action):
    """Give an existing file another name on the same volume."""

    location: Location
    """The new name."""

    existing: Location
    """The file that has a name already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSpecial(Action):
    """Make a device node, fifo or socket."""

    location: Location
    """The node."""

    kind: SpecialKind
    """What kind of node."""

    rdev: int = 0
    """The 32-bit device number (kernel: new_encode_dev); 0 for a fifo or a socket."""

    attributes: Attributes = Attributes()
    """Owner, mode and time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePath(Action):
    """Remove a file, or a directory with everything below it. Missing is fine."""

    location: Location
    """What goes."""

    effect: Effect = field(default=Effect.DESTROY, init=False, compare=False)
    """What was there is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenamePath(Action):
    """Rename, replacing what was there (one atomic step)."""

    source: Location
    """The old name."""

    location: Location
    """The new name, on the same volume."""

    effect: Effect = field(default=Effect.REPLACE, init=False, compare=False)
    """Something else may have been there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePaths(Action):
    """Swap two existing paths of one volume in one step (renameat2 RENAME_EXCHANGE)."""

    a: Location
    """One path."""

    b: Location
    """The other, on the same volume."""

    effect: Effect = field(default=Effect.REPLACE, init=False, compare=False)
    """Something else was there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBlocks(Action):
    """Write bytes at an offset (bytes) of a raw volume; ``location.path`` is ``/``."""

    location: Location
    """The volume, with the path ``/``."""

    offset: int
    """Where the bytes go, in bytes from the start of the volume."""

    data: bytes = field(repr=False)
    """The bytes."""

    effect: Effect = field(default=Effect.DESTROY, init=False, compare=False)
    """What was there is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEfiVariable(Action):
    """Set a variable of the running machine's firmware. Never part of building a disk image."""

    name: str
    """Name without GUID: ``BootNext``."""

    guid: str
    """The vendor's GUID, in lower case."""

    data: bytes = field(repr=False)
    """Its value."""

    effect: Effect = field(default=Effect.REPLACE, init=False, compare=False)
    """It may have had another value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCommand(Action):
    """Run a host tool. States what it reads and writes; refused where the setting ``install.host-tools`` is false."""

    argv: tuple[str, ...]
    """Program and arguments."""

    reads: tuple[Location, ...] = ()
    """What it reads of the target."""

    writes: tuple[Location, ...] = ()
    """What it writes there."""

    offset: int = 0
    """Where on a raw volume its output goes, in bytes from the start of the volume."""

    effect: Effect = field(default=Effect.REPLACE, init=False, compare=False)
    """What a tool does is not known better."""


PlacingAction = WriteFile | CopyObject | MakeDirectory | MakeSymlink | MakeHardLink | MakeSpecial
"""Actions that put something at a location."""
