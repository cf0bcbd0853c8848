"""What an ext4 filesystem is to hold, taken from actions and checked once."""

from __future__ import annotations

import stat
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    Attributes,
    BytesContent,
    Content,
    CopyObject,
    DiskError,
    HashAlgorithm,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    PlacingAction,
    SpecialKind,
    WriteFile,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.plugin import Xattrs

_NAME_BYTES = 255
_MOST_LINKS = 65_000
"""EXT4_LINK_MAX (fs/ext4/ext4.h); of subdirectories there may be more."""

_TARGET_BYTES = 4095
_TIME_RANGE = (-(1 << 31), (1 << 34) - (1 << 31) - 1)
_XATTR_NAMES = (b"user.", b"trusted.", b"security.", b"system.posix_acl_access", b"system.posix_acl_default")
_XATTR_ROOM = 4096 - 32 - 4
_SPECIAL_MODES = {
    SpecialKind.CHAR: stat.S_IFCHR,
    SpecialKind.BLOCK: stat.S_IFBLK,
    SpecialKind.FIFO: stat.S_IFIFO,
    SpecialKind.SOCKET: stat.S_IFSOCK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ext4Node:
    """One inode to be made. ``mode`` includes the type; times in (seconds, nanoseconds)."""

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime: tuple[int, int]
    xattrs: dict[bytes, bytes]
    content: Content | None = None
    verity: HashAlgorithm | None = None
    target: bytes = b""
    rdev: int = 0

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number (new_decode_dev)."""
        return (self.rdev & 0xFFF00) >> 8, (self.rdev & 0xFF) | (self.rdev >> 12 & 0xFFF00)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ext4Contents:
    """Everything to be made. ``nodes`` has parents first; ``links`` are (new name, existing name)."""

    nodes: tuple[Ext4Node, ...]
    links: tuple[tuple[bytes, bytes], ...]

    @property
    def inode_count(self) -> int:
        """Inodes needed, those ext4 reserves included."""
        return len(self.nodes) + 16


def collect(contents: Mapping[str, PlacingAction], epoch: int) -> Ext4Contents:
    """Check *contents* and turn it into nodes; *epoch* is the time of what has none of its own.

    Raises:
        DiskError: something ext4 cannot hold; the message names it.
    """
    nodes: dict[bytes, Ext4Node] = {}
    known: dict[Xattrs, dict[bytes, bytes]] = {}
    pending: list[tuple[bytes, bytes]] = []
    for path, action in contents.items():
        raw = _encode(path)
        parent = raw.rpartition(b"/")[0]
        if raw != b"/" and parent and not (parent in nodes and nodes[parent].is_directory):
            msg = f"{path!r} comes before its parent directory"
            raise DiskError(msg, hint="this is a bug in cfs: volumes list parents first")
        if isinstance(action, MakeHardLink):
            pending.append((raw, _encode(action.existing.path)))
            continue
        nodes[raw] = _node(raw, action, epoch, known)
    return Ext4Contents(nodes=tuple(nodes.values()), links=_links(nodes, pending))


def _links(nodes: dict[bytes, Ext4Node], pending: list[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    original: dict[bytes, bytes] = {}
    for name, existing in pending:
        target = original.get(existing, existing)
        if target not in nodes or nodes[target].is_directory or name in nodes:
            msg = f"{name!r} cannot be a hard link to {existing!r}: no such file, or a directory"
            raise DiskError(msg)
        original[name] = target
    for target, count in Counter(original.values()).items():
        if count >= _MOST_LINKS:
            msg = f"{_show(target)} has {count + 1} names, and ext4 counts no more than {_MOST_LINKS}"
            raise DiskError(msg, hint="make some of the hard links copies in the image")
    return tuple(original.items())


def _encode(path: str) -> bytes:
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        msg = f"not a file name: {path!r}"
        raise DiskError(msg) from error
    parts = raw.split(b"/")
    if raw != b"/" and (
        not raw.startswith(b"/")
        or b"\0" in raw
        or any(part in {b"", b".", b".."} or len(part) > _NAME_BYTES for part in parts[1:])
    ):
        msg = f"not a path ext4 can hold: {path!r}"
        raise DiskError(msg, hint=f"names have at most {_NAME_BYTES} bytes, none is empty, '.' or '..'")
    return raw


def _node(path: bytes, action: PlacingAction, epoch: int, known: dict[Xattrs, dict[bytes, bytes]]) -> Ext4Node:
    if isinstance(action, MakeHardLink):
        raise TypeError(action)
    attributes = action.attributes
    kind, verity, target, rdev = stat.S_IFREG, None, b"", 0
    content: Content | None = None
    match action:
        case MakeDirectory():
            kind = stat.S_IFDIR
        case MakeSymlink():
            kind = stat.S_IFLNK
            target = _target(path, action.target)
        case MakeSpecial():
            kind = _SPECIAL_MODES[action.kind]
            rdev = action.rdev if action.kind in {SpecialKind.CHAR, SpecialKind.BLOCK} else 0
        case WriteFile():
            content = BytesContent(action.data)
        case CopyObject():
            content, verity = action.source, action.verity
    if path == b"/" and kind != stat.S_IFDIR:
        msg = "the root of a filesystem can only be a directory"
        raise DiskError(msg)
    xattrs = known.get(attributes.xattrs)
    if xattrs is None:
        xattrs = known[attributes.xattrs] = _xattrs(path, attributes)
    permissions = 0o777 if kind == stat.S_IFLNK else attributes.mode & 0o7777
    return Ext4Node(
        path=path,
        mode=kind | permissions,
        uid=_number(path, "owner", attributes.uid),
        gid=_number(path, "group", attributes.gid),
        mtime=_mtime(attributes, epoch),
        xattrs=xattrs,
        content=content,
        verity=verity,
        target=target,
        rdev=_number(path, "device number", rdev),
    )


def _target(path: bytes, text: str) -> bytes:
    target = text.encode("utf-8", "surrogateescape")
    if not 0 < len(target) <= _TARGET_BYTES or b"\0" in target:
        msg = f"symbolic link {path!r} has a target of {len(target)} bytes"
        raise DiskError(msg, hint=f"ext4 holds 1 to {_TARGET_BYTES} bytes without NUL")
    return target


def _number(path: bytes, what: str, value: int) -> int:
    if not 0 <= value < 1 << 32:
        msg = f"{path!r} has an impossible {what}: {value}"
        raise DiskError(msg)
    return value


def _mtime(attributes: Attributes, epoch: int) -> tuple[int, int]:
    if attributes.mtime_sec is None:
        return epoch, 0
    low, high = _TIME_RANGE
    # The kernel does the same (timestamp_truncate) when such a time is set on a mounted ext4.
    clamped = min(max(attributes.mtime_sec, low), high)
    return clamped, attributes.mtime_nsec if clamped == attributes.mtime_sec else 0


def _xattrs(path: bytes, attributes: Attributes) -> dict[bytes, bytes]:
    xattrs = dict(attributes.xattrs)
    room = _XATTR_ROOM
    for name, value in xattrs.items():
        if not name.startswith(_XATTR_NAMES) or len(name) > _NAME_BYTES or b"\0" in name or b"\n" in name:
            msg = f"{path!r} has an extended attribute ext4 does not know: {name!r}"
            raise DiskError(msg)
        room -= 16 + -(-len(name) // 4) * 4 + -(-len(value) // 4) * 4
    if room < 0:
        msg = f"the extended attributes of {path!r} are {-room} bytes too large"
        raise DiskError(msg, hint="ext4 keeps all attributes of a file in one block of 4096 bytes")
    return xattrs


def _show(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace"))
