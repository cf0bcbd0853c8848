"""Trees in memory: copies of them, and their files by path as transformations need them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from cfs_core.plugin import BytesContent, Content, Directory, LimitError, Node, ObjectId, RegularFile, Symlink
from cfs_storage_composefs.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable

_LINKS_FOLLOWED = 40


def copy_tree(root: Directory) -> Directory:
    """Return an independent copy; hard links stay hard links, attribute sets and contents are shared."""
    leaves: dict[int, Node] = {}
    top = _copy_directory(root)
    pending = [(root, top)]
    while pending:
        source, target = pending.pop()
        for name, node in source.entries.items():
            if isinstance(node, Directory):
                made = _copy_directory(node)
                target.entries[name] = made
                pending.append((node, made))
                continue
            leaf = leaves.get(id(node))
            if leaf is None:
                leaf = leaves[id(node)] = _copy_leaf(node)
            target.entries[name] = leaf
    return top


def _copy_leaf(node: Node) -> Node:
    # Nearly all leaves are of these two classes; `copy.copy` takes ten times as long.
    if type(node) is RegularFile:
        file = RegularFile(node.mode, node.uid, node.gid, node.mtime_sec, node.mtime_nsec, node.xattrs)
        file.nlink, file.size, file.data, file.object, file.path = (
            node.nlink, node.size, node.data, node.object, node.path,
        )  # fmt: skip
        return file
    if type(node) is Symlink:
        link = Symlink(node.mode, node.uid, node.gid, node.mtime_sec, node.mtime_nsec, node.xattrs, node.target)
        link.nlink = node.nlink
        return link
    return copy.copy(node)


def _copy_directory(node: Directory) -> Directory:
    return Directory(node.mode, node.uid, node.gid, node.mtime_sec, node.mtime_nsec, node.xattrs)


class StoredTreeReader:
    """Files of a tree whose contents are in an object store."""

    def __init__(self, root: Directory, content: Callable[[ObjectId], Content]) -> None:
        self.root = root
        self._content = content

    def exists(self, path: str) -> bool:
        """Return whether *path* is there, links followed."""
        return self._resolve(path) is not None

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*; empty if there is no such directory."""
        node = self._resolve(path)
        if not isinstance(node, Directory):
            return ()
        return tuple(name.decode("utf-8", "surrogateescape") for name in sorted(node.entries))

    def content(self, path: str) -> Content | None:
        """Return the content of regular file *path*, None if there is none.

        Raises:
            StorageError: the content is not in the store.
        """
        node = self._resolve(path)
        if not isinstance(node, RegularFile):
            return None
        if node.object is not None:
            return self._content(node.object)
        if node.data is None:
            msg = f"{path} has no content in this tree"
            raise DamagedError(msg, hint="trees read from dump files have names of contents only")
        return BytesContent(node.data)

    def read(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes | None:
        """Return the bytes of regular file *path*, None if there is none.

        Raises:
            LimitError: longer than *limit* bytes.
            StorageError: as for `content`.
        """
        content = self.content(path)
        if content is None:
            return None
        if content.size > limit:
            msg = f"{path} has {content.size} bytes; at most {limit} are read"
            raise LimitError(msg, facts={"limit": limit})
        with content.open() as file:
            return file.read(limit)

    def _resolve(self, path: str) -> Node | None:
        """Follow *path* as in a chroot: links never lead out of the tree."""
        pending = path.encode("utf-8", "surrogateescape").split(b"/")[::-1]
        trail: list[Node] = [self.root]
        links = 0
        while pending:
            name = pending.pop()
            found = _step(trail, name)
            if isinstance(found, Symlink):
                links += 1
                if links > _LINKS_FOLLOWED:
                    return None
                if found.target.startswith(b"/"):
                    trail = [self.root]
                pending += found.target.split(b"/")[::-1]
            elif found is None:
                return None
            elif found is not trail[-1]:
                trail.append(found)
        return trail[-1]


def _step(trail: list[Node], name: bytes) -> Node | None:
    """Return what *name* means at the end of *trail*; ``..`` shortens the trail."""
    here = trail[-1]
    if name in {b"", b"."}:
        return here
    if not isinstance(here, Directory):
        return None
    if name == b"..":
        if len(trail) > 1:
            trail.pop()
        return trail[-1]
    return here.entries.get(name)
