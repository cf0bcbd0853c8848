"""Reading /etc as it is on disk, and as an image has it. No link is followed, so nothing outside is ever read."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.lifecycle.etc_merge.nodes import DIRECTORY, REGULAR, SPECIAL, SYMLINK, EtcNode, EtcTree
from cfs_core.model.content import BytesContent, Content
from cfs_core.model.digest import Digest
from cfs_core.model.tree import Directory, RegularFile, Special, SpecialKind, Symlink, walk
from cfs_core.target import beneath

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cfs_core.model.tree import Node, ObjectId

_GET_FLAGS = 0x80086601
"""FS_IOC_GETFLAGS, from linux/fs.h."""

CARRIED_FLAGS = 0x10 | 0x20
"""FS_IMMUTABLE_FL and FS_APPEND_FL."""

_KINDS = {
    stat.S_IFCHR: SpecialKind.CHAR,
    stat.S_IFBLK: SpecialKind.BLOCK,
    stat.S_IFIFO: SpecialKind.FIFO,
}


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """Content of a file below a directory, opened without following links."""

    root: Path
    path: bytes
    size: int

    def open(self) -> BinaryIO:
        """Open for reading from the start."""
        with beneath.parent(self.root, "/" + os.fsdecode(self.path), create=False) as (directory, name):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.fdopen(os.open(name, flags, dir_fd=directory), "rb")


def scan_directory(root: Path) -> EtcTree:
    """Read everything below *root*. Sockets are left out: without the process that made one it is nothing.

    Raises:
        OSError: something cannot be read.
    """
    found: EtcTree = {}
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found[b""] = _node(descriptor, b".", root, b"")
        _scan(descriptor, b"", root, found)
    finally:
        os.close(descriptor)
    return found


def _scan(directory: int, prefix: bytes, root: Path, found: EtcTree) -> None:
    for name in sorted(os.fsencode(name) for name in os.listdir(directory)):
        path = prefix + b"/" + name if prefix else name
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            continue
        found[path] = _node(directory, name, root, path)
        if stat.S_ISDIR(status.st_mode):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                _scan(below, path, root, found)
            finally:
                os.close(below)


def _node(directory: int, name: bytes, root: Path, path: bytes) -> EtcNode:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    place = f"/proc/self/fd/{directory}/{os.fsdecode(name)}"
    kind = stat.S_IFMT(status.st_mode)
    xattrs = []
    for attribute in sorted(_xattr_names(place)):
        with suppress(OSError):  # one that went away, or that only root may read
            xattrs.append((os.fsencode(attribute), os.getxattr(place, attribute, follow_symlinks=False)))
    content: Content | None = None
    digest = None
    flags = 0
    if kind == stat.S_IFREG:
        content = _OnDisk(root, path, status.st_size)
        with content.open() as file:
            digest = Digest.of_stream(file).hex
            flags = _flags(file.fileno())
    return EtcNode(
        kind={stat.S_IFREG: REGULAR, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}.get(kind, SPECIAL),
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        xattrs=tuple(xattrs),
        digest=digest,
        content=content,
        target=os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else None,
        special=_KINDS.get(kind),
        rdev=_encoded(status.st_rdev) if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
        flags=flags,
        identity=(status.st_dev, status.st_ino) if kind != stat.S_IFDIR and status.st_nlink > 1 else None,
    )


def _xattr_names(place: str) -> list[str]:
    try:
        return os.listxattr(place, follow_symlinks=False)
    except OSError:
        return []


def _flags(descriptor: int) -> int:
    buffer = bytearray(struct.calcsize("l"))
    try:
        fcntl.ioctl(descriptor, _GET_FLAGS, buffer)
    except OSError:
        return 0
    flags: int = struct.unpack_from("i", buffer)[0]
    return flags & CARRIED_FLAGS


def _encoded(device: int) -> int:
    """Return a device number as Linux encodes it in 32 bits (new_encode_dev)."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def tree_of_image(etc: Directory, content: Callable[[ObjectId], Content]) -> EtcTree:
    """Return /etc of an image, with contents from where the image is stored.

    Raises:
        StorageError: a content is not there.
    """
    found: EtcTree = {}
    names: dict[int, int] = {}
    nodes = list(walk(etc))
    for _, node in nodes:
        names[id(node)] = names.get(id(node), 0) + 1
    for path, node in nodes:
        if isinstance(node, Special) and node.kind is SpecialKind.SOCKET:
            continue
        found[path.strip(b"/")] = _of_image(node, content, shared=names[id(node)] > 1)
    return found


def _of_image(node: Node, content: Callable[[ObjectId], Content], *, shared: bool) -> EtcNode:
    source: Content | None = None
    digest = None
    if isinstance(node, RegularFile):
        source = content(node.object) if node.object is not None else BytesContent(node.data or b"")
        with source.open() as file:
            digest = Digest.of_stream(file).hex
    kinds = {Directory: DIRECTORY, RegularFile: REGULAR, Symlink: SYMLINK}
    return EtcNode(
        kind=kinds.get(type(node), SPECIAL),
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_sec * 10**9 + node.mtime_nsec,
        xattrs=node.xattrs,
        digest=digest,
        content=source,
        target=node.target if isinstance(node, Symlink) else None,
        special=node.kind if isinstance(node, Special) else None,
        rdev=node.rdev if isinstance(node, Special) else 0,
        identity=(-1, id(node)) if shared else None,
    )
