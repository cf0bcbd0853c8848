"""Writing a merged /etc into a directory that is not in use yet."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cfs_core.lifecycle.etc_merge.nodes import DIRECTORY, REGULAR, SYMLINK, EtcNode, EtcTree, parent, same
from cfs_core.lifecycle.etc_merge.scan import scan_directory
from cfs_core.model.tree import SpecialKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SET_FLAGS = 0x40086602
"""FS_IOC_SETFLAGS, from linux/fs.h."""

_CHUNK = 1 << 20
_SPECIAL = {SpecialKind.CHAR: stat.S_IFCHR, SpecialKind.BLOCK: stat.S_IFBLK, SpecialKind.FIFO: stat.S_IFIFO}


def write_tree(tree: EtcTree, top: Path) -> None:
    """Write *tree* into a new directory *top*, which must not be there. Nothing is durable yet: sync the filesystem.

    Raises:
        OSError: no space, not writable.
    """
    writer = _Writer(tree, top)
    for path in sorted(tree):
        writer.place(path)
    writer.finish()


class _Writer:
    """Writes parents first, and times and permissions of directories last."""

    def __init__(self, tree: EtcTree, top: Path) -> None:
        self._tree = tree
        self._top = top
        self._first: dict[tuple[int, int], bytes] = {}
        top.mkdir(mode=0o700)

    def place(self, path: bytes) -> None:
        node = self._tree[path]
        if not path:
            return
        if self._linked(path, node):
            return
        with self._parent(path) as (directory, name):
            if node.kind == DIRECTORY:
                os.mkdir(name, 0o700, dir_fd=directory)
            elif node.kind == REGULAR:
                self._regular(node, directory, name)
            elif node.kind == SYMLINK:
                os.symlink(node.target or b"", name, dir_fd=directory)
                _metadata(f"/proc/self/fd/{directory}/{os.fsdecode(name)}", node, follow=False)
            else:
                self._special(node, directory, name)

    def finish(self) -> None:
        """Flags come last: an immutable file takes no second name, an immutable directory no file."""
        for path, node in self._tree.items():
            if node.kind == REGULAR and node.flags:
                with self._parent(path) as (directory, name):
                    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                    try:
                        _set_flags(descriptor, node.flags)
                    finally:
                        os.close(descriptor)
        for path in sorted(self._tree, reverse=True):
            node = self._tree[path]
            if node.kind == DIRECTORY:
                with self._directory(path) as directory:
                    _metadata(directory, node, follow=True)
                    _set_flags(directory, node.flags)

    def _linked(self, path: bytes, node: EtcNode) -> bool:
        """Make another name of a file that is there already; return whether that was it."""
        if node.identity is None:
            return False
        known = self._first.setdefault(node.identity, path)
        if known == path or not same(self._tree[known], node):
            return False
        with self._parent(path) as (directory, name), self._parent(known) as (other, existing):
            os.link(existing, name, src_dir_fd=other, dst_dir_fd=directory, follow_symlinks=False)
        return True

    def _regular(self, node: EtcNode, directory: int, name: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        if node.content is None:
            msg = "a regular file of the merge has no content"
            raise ValueError(msg)
        with (
            os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file,
            node.content.open() as source,
        ):
            while piece := source.read(_CHUNK):
                file.write(piece)
            file.flush()
            _metadata(file.fileno(), node, follow=True)

    def _special(self, node: EtcNode, directory: int, name: bytes) -> None:
        device = os.makedev((node.rdev & 0xFFF00) >> 8, (node.rdev & 0xFF) | (node.rdev >> 12 & 0xFFF00))
        os.mknod(name, _SPECIAL[node.special or SpecialKind.FIFO] | 0o600, device, dir_fd=directory)
        _metadata(f"/proc/self/fd/{directory}/{os.fsdecode(name)}", node, follow=False)

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        with self._directory(parent(path)) as directory:
            yield directory, path.rpartition(b"/")[2]

    @contextmanager
    def _directory(self, path: bytes) -> Iterator[int]:
        """Open a directory that was made here; nobody else writes below the top, which has a name of its own."""
        descriptor = os.open(
            os.path.join(os.fsencode(self._top), path) if path else os.fsencode(self._top),  # noqa: PTH118 - bytes
            os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
        )
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _metadata(place: int | str, node: EtcNode, *, follow: bool) -> None:
    """Owner first: changing it takes away capabilities and the set-user-ID bit."""
    found = os.stat(place, follow_symlinks=follow)  # noqa: PTH116 - may be an open file
    if (found.st_uid, found.st_gid) != node.owner:
        os.chown(place, node.uid, node.gid, follow_symlinks=follow)
    if node.kind != SYMLINK:
        os.chmod(place, node.mode)  # noqa: PTH101 - may be an open file
    for name, value in node.xattrs:
        os.setxattr(place, name, value, follow_symlinks=follow)
    os.utime(place, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=follow)


def clear_flags(top: Path) -> None:
    """Take the flags off everything below *top*, so that it can be removed.

    Raises:
        OSError: not allowed.
    """
    for path, node in scan_directory(top).items():
        if node.flags:
            place = os.path.join(os.fsencode(top), path)  # noqa: PTH118 - bytes
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", 0))
            finally:
                os.close(descriptor)


def _set_flags(descriptor: int, flags: int) -> None:
    if flags:
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags))
