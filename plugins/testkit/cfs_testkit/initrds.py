"""Initramfs archives from ``{"path": "content"}`` (cpio "newc", initramfs.txt in the kernel's documentation)."""

from __future__ import annotations

import gzip
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BOMB_BYTES = 192 << 20


def cpio(files: Mapping[str, str | bytes | None]) -> bytes:
    """Return an archive; None as content makes a directory, ``-> target`` a symbolic link."""
    folders = {folder for path in files for folder in _parents(path)} - files.keys()
    out = bytearray()
    entries = dict.fromkeys(sorted(folders)) | dict(files)
    for number, (path, content) in enumerate(entries.items(), start=1):
        if content is None:
            mode, data = stat.S_IFDIR | 0o755, b""
        elif isinstance(content, str) and content.startswith("-> "):
            mode, data = stat.S_IFLNK | 0o777, content[3:].encode()
        else:
            mode, data = stat.S_IFREG | 0o755, content.encode() if isinstance(content, str) else content
        out += _member(path.strip("/"), mode, data, number)
    return bytes(out + _member("TRAILER!!!", 0, b"", 0))


def bomb(size: int = BOMB_BYTES) -> bytes:
    """Return a gzip stream of *size* zero bytes: an archive that has no end worth waiting for."""
    chunk = gzip.compress(bytes(1 << 20), 9, mtime=0)
    return chunk * (size >> 20)


def _parents(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _member(name: str, mode: int, data: bytes, inode: int) -> bytes:
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
