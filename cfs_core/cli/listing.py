"""Directory listings of image trees, as ``ls -l`` shows them."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cfs_core.errors import UsageError
from cfs_core.model.tree import Directory, RegularFile, Special, SpecialKind, Symlink, lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.model.tree import Node

_KIND = {
    SpecialKind.CHAR: stat.S_IFCHR,
    SpecialKind.BLOCK: stat.S_IFBLK,
    SpecialKind.FIFO: stat.S_IFIFO,
    SpecialKind.SOCKET: stat.S_IFSOCK,
}


def listing(root: Directory, path: str) -> Iterator[str]:
    """Yield a line for the file at *path*, or for each entry of the directory there.

    Raises:
        UsageError: nothing there.
    """
    node = lookup(root, os.fsencode(path))
    if node is None:
        msg = f"there is no {path} in this image"
        raise UsageError(msg, hint="`cfs image ls` lists what there is")
    entries = sorted(node.entries.items()) if isinstance(node, Directory) else [(os.fsencode(path), node)]
    for name, entry in entries:
        yield _line(os.fsdecode(name), entry)


def _line(name: str, node: Node) -> str:
    kind, size, suffix = stat.S_IFDIR, 0, ""
    if isinstance(node, RegularFile):
        kind, size = stat.S_IFREG, node.size
    elif isinstance(node, Symlink):
        kind, size, suffix = stat.S_IFLNK, len(node.target), f" -> {os.fsdecode(node.target)}"
    elif isinstance(node, Special):
        kind = _KIND[node.kind]
    when = datetime.fromtimestamp(node.mtime_sec, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{stat.filemode(kind | node.mode)} {node.uid:5} {node.gid:5} {size:10} {when} {name}{suffix}"
