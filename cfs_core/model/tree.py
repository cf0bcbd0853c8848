"""Filesystem trees under construction: the one mutable part of the model.

Hard links are one node object under several names. Names and paths are raw bytes. `Node.mode` holds
permission bits only (07777); the type of a file is the class of its node.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Iterator

ObjectId = NewType("ObjectId", str)
"""Name of stored content, minted and understood only by the storage format (composefs: fs-verity digest in hex)."""

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Extended attributes, ascending by name; equal sets share one tuple where the producer can arrange it."""


class Node:
    """What every file has: permissions, owner, modification time, extended attributes."""

    __slots__ = ("gid", "mode", "mtime_nsec", "mtime_sec", "uid", "xattrs")

    def __init__(
        self, mode: int, uid: int = 0, gid: int = 0, mtime_sec: int = 0, mtime_nsec: int = 0, xattrs: Xattrs = ()
    ) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_sec = mtime_sec
        self.mtime_nsec = mtime_nsec
        self.xattrs = xattrs

    def copy_metadata_from(self, other: Node) -> None:
        """Take over all six attributes of *other*."""
        self.mode = other.mode
        self.uid = other.uid
        self.gid = other.gid
        self.mtime_sec = other.mtime_sec
        self.mtime_nsec = other.mtime_nsec
        self.xattrs = other.xattrs


class Directory(Node):
    """A directory. ``entries`` is unordered; writers sort by raw bytes."""

    __slots__ = ("entries",)

    def __init__(
        self, mode: int, uid: int = 0, gid: int = 0, mtime_sec: int = 0, mtime_nsec: int = 0, xattrs: Xattrs = ()
    ) -> None:
        super().__init__(mode, uid, gid, mtime_sec, mtime_nsec, xattrs)
        self.entries: dict[bytes, Node] = {}


class Leaf(Node):
    """Anything but a directory. ``nlink`` is 0 where it is to be counted; a dump file may state it."""

    __slots__ = ("nlink",)

    def __init__(
        self, mode: int, uid: int = 0, gid: int = 0, mtime_sec: int = 0, mtime_nsec: int = 0, xattrs: Xattrs = ()
    ) -> None:
        super().__init__(mode, uid, gid, mtime_sec, mtime_nsec, xattrs)
        self.nlink = 0


class RegularFile(Leaf):
    """A regular file of ``size`` bytes, whose content is exactly one of.

    * ``data``: the bytes themselves,
    * ``object``: stored under this name,
    * ``path``: kept at this place, without an identity (dump files only),
    * none of them: a hole of ``size`` bytes (dump files only).
    """

    __slots__ = ("data", "object", "path", "size")

    def __init__(
        self, mode: int, uid: int = 0, gid: int = 0, mtime_sec: int = 0, mtime_nsec: int = 0, xattrs: Xattrs = ()
    ) -> None:
        super().__init__(mode, uid, gid, mtime_sec, mtime_nsec, xattrs)
        self.size = 0
        self.data: bytes | None = None
        self.object: ObjectId | None = None
        self.path: bytes | None = None


class Symlink(Leaf):
    """A symbolic link to ``target``."""

    __slots__ = ("target",)

    def __init__(
        self,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        mtime_sec: int = 0,
        mtime_nsec: int = 0,
        xattrs: Xattrs = (),
        target: bytes = b"",
    ) -> None:
        super().__init__(mode, uid, gid, mtime_sec, mtime_nsec, xattrs)
        self.target = target


class SpecialKind(enum.Enum):
    """Files without content."""

    CHAR = "char"
    """A character device."""

    BLOCK = "block"
    """A block device."""

    FIFO = "fifo"
    """A named pipe."""

    SOCKET = "socket"
    """A socket."""


class Special(Leaf):
    """A device, fifo or socket. ``rdev`` is the 32-bit device number (kernel: new_encode_dev), 0 for the others."""

    __slots__ = ("kind", "rdev")

    def __init__(
        self,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        mtime_sec: int = 0,
        mtime_nsec: int = 0,
        xattrs: Xattrs = (),
        kind: SpecialKind = SpecialKind.FIFO,
        rdev: int = 0,
    ) -> None:
        super().__init__(mode, uid, gid, mtime_sec, mtime_nsec, xattrs)
        self.kind = kind
        self.rdev = rdev


def lookup(root: Directory, path: bytes) -> Node | None:
    """Find *path* below *root* without following symbolic links; None where nothing is."""
    node: Node = root
    for name in path.split(b"/"):
        if name in {b"", b"."}:
            continue
        if not isinstance(node, Directory):
            return None
        found = node.entries.get(name)
        if found is None:
            return None
        node = found
    return node


def walk(root: Directory, path: bytes = b"/") -> Iterator[tuple[bytes, Node]]:
    """Yield ``(absolute path, node)`` depth first, names in byte order, the root included as ``/``."""
    yield path, root
    stack = [(path.rstrip(b"/"), iter(sorted(root.entries.items())))]
    while stack:
        prefix, children = stack[-1]
        for name, node in children:
            here = prefix + b"/" + name
            yield here, node
            if isinstance(node, Directory):
                stack.append((here, iter(sorted(node.entries.items()))))
                break
        else:
            stack.pop()
