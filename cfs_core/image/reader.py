"""Files of an image by path: symbolic links are followed inside the tree and never leave it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.model.content import BytesContent, read_within
from cfs_core.model.tree import Directory, RegularFile, Symlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfs_core.model.content import Content
    from cfs_core.model.tree import Node, ObjectId

LINK_LIMIT = 40
"""Links followed for one path; Linux stops at 40 too (path_resolution(7))."""

READ_LIMIT = 16 * 1024 * 1024


class ImageReader:
    """A `TreeReader` over a tree whose contents *content* opens."""

    def __init__(self, root: Directory, content: Callable[[ObjectId], Content]) -> None:
        self.root = root
        self._content = content

    def find(self, path: str) -> Node | None:
        """Return what is at *path*, links followed; None if nothing is, or if links go round in circles."""
        pending = _components(os.fsencode(path))
        above: list[Directory] = [self.root]
        node: Node = self.root
        links = 0
        while pending:
            name = pending.pop()
            here = above[-1]
            if name == b"..":
                if len(above) > 1:
                    above.pop()
                node = above[-1]
                continue
            found = here.entries.get(name)
            if isinstance(found, Symlink):
                links += 1
                if links > LINK_LIMIT:
                    return None
                if found.target.startswith(b"/"):
                    above = [self.root]
                pending += _components(found.target)
                node = above[-1]
            elif isinstance(found, Directory):
                above.append(found)
                node = found
            elif found is None or pending:
                return None
            else:
                node = found
        return node

    def exists(self, path: str) -> bool:
        """Return whether *path* is there, links followed."""
        return self.find(path) is not None

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*; empty if there is no such directory."""
        node = self.find(path)
        return tuple(map(os.fsdecode, sorted(node.entries))) if isinstance(node, Directory) else ()

    def content(self, path: str) -> Content | None:
        """Return the content of regular file *path*, None if there is none.

        Raises:
            ImageError: the tree says nothing about what is in the file (dump files may).
        """
        node = self.find(path)
        if not isinstance(node, RegularFile):
            return None
        if node.data is not None:
            return BytesContent(node.data)
        if node.object is not None:
            return self._content(node.object)
        if not node.size:
            return BytesContent(b"")
        msg = f"the content of {path} is not known"
        raise ImageError(msg)

    def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes | None:
        """Return the bytes of regular file *path*, None if there is none.

        Raises:
            LimitError: longer than *limit* bytes.
        """
        return read_within(self.content(path), path, limit)


def _components(path: bytes) -> list[bytes]:
    """Return the components in reverse: the next one is taken from the end."""
    return [name for name in reversed(path.split(b"/")) if name not in {b"", b"."}]
