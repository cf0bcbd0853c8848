"""Writes an initrd: a cpio archive in the "newc" format, compressed as a kernel can read, the same at any time."""

from __future__ import annotations

import gzip
import lzma
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

PREFERRED = ("zstd", "xz", "gzip")
"""Compressions that can be written here, best first."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A file of an archive; ``mode`` has no type bits. A symbolic link's ``data`` is its target."""

    data: bytes
    mode: int = 0o644
    is_link: bool = False


def archive(files: Mapping[str, Packed]) -> bytes:
    """Return a cpio archive of *files* by path, and of the directories above them; all belong to root, times are 0."""
    folders = {"/".join(path.split("/")[:count]) for path in files for count in range(1, path.count("/") + 1)}
    entries = dict.fromkeys(folders, (stat.S_IFDIR | 493, b""))
    for path, file in files.items():
        kind = stat.S_IFLNK | 0o777 if file.is_link else stat.S_IFREG | file.mode
        entries[path] = (kind, file.data)
    members = [_member(path, *entries[path], inode) for inode, path in enumerate(sorted(entries), start=1)]
    return b"".join([*members, _member("TRAILER!!!", 0, b"", 0)])


def _member(path: str, mode: int, data: bytes, inode: int) -> bytes:
    name = path.encode("utf-8", "surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def compress(data: bytes, readable: AbstractSet[str]) -> bytes:
    """Compress *data* with the best of `PREFERRED` that is among *readable*; with none where no one is."""
    kind = next((each for each in PREFERRED if each in readable), None)
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=9).compress(data)
    if kind == "xz":
        # of the checks the kernel knows this one only (lib/xz/xz_private.h)
        return lzma.compress(data, check=lzma.CHECK_CRC32, preset=9)
    return gzip.compress(data, 9, mtime=0) if kind == "gzip" else data
