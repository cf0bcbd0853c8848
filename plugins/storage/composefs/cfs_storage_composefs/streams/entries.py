"""What a layer that was just imported says about the tree, packed: it need not be read and parsed a second time."""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import (
    Directory,
    HardLink,
    LayerEntry,
    ObjectId,
    Opaque,
    RegularFile,
    Special,
    SpecialKind,
    Symlink,
    Whiteout,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.plugin import Node

PACKED_BYTES = 64 << 20
"""Of one layer, and of all that one repository has at a time: 300,000 files. The rest is read again."""

_BATCH = 2048
_OBJECT, _DATA, _DIRECTORY, _SYMLINK, _SPECIAL, _HARD_LINK, _WHITEOUT, _OPAQUE = range(8)
_KINDS = tuple(SpecialKind)

Packed = tuple[bytes, ...]
"""Entries in stream order, some thousands in each piece."""


class EntryPacker:
    """Takes a layer's entries in their order, once what is in each of them is known."""

    def __init__(self) -> None:
        self._batch: list[tuple[Any, ...]] = []
        self._pieces: list[bytes] = []
        self._room = PACKED_BYTES

    def add(self, entry: LayerEntry, object_id: bytes | None = None, data: bytes = b"") -> None:
        """Take an entry; of a regular file the object that holds its content, or the content itself."""
        if self._room < 0:
            return
        path, what = entry.path, entry.what
        item: tuple[Any, ...]
        if isinstance(what, RegularFile):
            if object_id is None:
                item = (_DATA, path, *_metadata(what), what.size, data)
            else:
                item = (_OBJECT, path, *_metadata(what), what.size, object_id)
        elif isinstance(what, Directory):
            item = (_DIRECTORY, path, *_metadata(what))
        elif isinstance(what, Symlink):
            item = (_SYMLINK, path, *_metadata(what), what.target)
        elif isinstance(what, Special):
            item = (_SPECIAL, path, *_metadata(what), _KINDS.index(what.kind), what.rdev)
        elif isinstance(what, HardLink):
            item = (_HARD_LINK, path, what.target)
        else:
            item = (_OPAQUE if isinstance(what, Opaque) else _WHITEOUT, path)
        self._batch.append(item)
        if len(self._batch) >= _BATCH:
            self._end_batch()

    def packed(self) -> Packed | None:
        """Return everything; None where it is too much."""
        self._end_batch()
        return tuple(self._pieces) if self._room >= 0 else None

    def _end_batch(self) -> None:
        if self._batch:
            piece = marshal.dumps(self._batch)
            self._batch = []
            self._pieces.append(piece)
            self._room -= len(piece)
            if self._room < 0:
                self._pieces.clear()


def unpacked(packed: Iterable[bytes]) -> Iterator[LayerEntry]:
    """Yield entries as `EntryPacker` took them; *packed* comes from a process of this pull."""
    for piece in packed:
        for item in marshal.loads(piece):  # noqa: S302 - from this process, or from one that it has started
            yield _entry(*item)


def _metadata(node: Node) -> tuple[Any, ...]:
    return node.mode, node.uid, node.gid, node.mtime_sec, node.mtime_nsec, node.xattrs


def _entry(kind: int, path: bytes, *rest: Any) -> LayerEntry:  # noqa: ANN401 - marshal has no types
    if kind == _OBJECT:
        file = RegularFile(*rest[:6])
        file.size, file.object = rest[6], ObjectId(rest[7].hex())
        return LayerEntry(path, file)
    if kind == _DATA:
        file = RegularFile(*rest[:6])
        file.size, file.data = rest[6:]
        return LayerEntry(path, file)
    if kind == _DIRECTORY:
        return LayerEntry(path, Directory(*rest))
    if kind == _SYMLINK:
        return LayerEntry(path, Symlink(*rest))
    if kind == _SPECIAL:
        mode, uid, gid, seconds, nanoseconds, xattrs, number, rdev = rest
        return LayerEntry(path, Special(mode, uid, gid, seconds, nanoseconds, xattrs, _KINDS[number], rdev))
    if kind == _HARD_LINK:
        return LayerEntry(path, HardLink(rest[0]))
    return LayerEntry(path, Opaque() if kind == _OPAQUE else Whiteout())
