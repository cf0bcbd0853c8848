"""Layers become one tree, by the rules of composefs-rs (formats E.1): strict where other tools guess."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from cfs_core.errors import ImageError, LimitError
from cfs_core.model.layer import HardLink, Opaque, Whiteout
from cfs_core.model.tree import Directory, Leaf, Node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.model.layer import LayerEntry

ENTRY_LIMIT = 2_000_000
"""Entries of all layers together; each that stays takes about 200 bytes of memory."""


def merge_layers(layers: Iterable[Iterable[LayerEntry]], *, entry_limit: int = ENTRY_LIMIT) -> Directory:
    """Flatten *layers*, lowest first. Nodes are taken over, not copied; ``nlink`` stays 0.

    The root starts with mode 0 and no times; only an entry for ``/`` changes that. Nothing is made implicitly, and
    no symbolic link is followed.

    Raises:
        ImageError: an entry without a parent directory, a hard link to nothing or to a directory, a root that is none.
        LimitError: more than *entry_limit* entries.
    """
    merger = _Merger(entry_limit)
    for number, layer in enumerate(layers, 1):
        merger.apply(number, layer)
    return merger.root


class _Merger:
    def __init__(self, entry_limit: int) -> None:
        self.root = Directory(0)
        self._left = entry_limit
        self._limit = entry_limit

    def apply(self, number: int, layer: Iterable[LayerEntry]) -> None:
        parent_path: bytes | None = None
        parent = self.root
        for entry in layer:
            self._left -= 1
            if self._left < 0:
                msg = f"the image has more than {self._limit} entries"
                raise LimitError(msg, limit=self._limit)
            what = entry.what
            if entry.path == b"/" or isinstance(what, Opaque):
                self._at_directory(number, entry)
                parent_path = None
                continue
            here, _, name = entry.path.rpartition(b"/")
            if here != parent_path:
                parent = self._directory(number, entry.path, here)
                parent_path = here
            if isinstance(what, Whiteout):
                parent.entries.pop(name, None)
            elif isinstance(what, HardLink):
                parent.entries[name] = self._link_target(number, entry.path, what.target)
            elif isinstance(what, Directory) and isinstance(present := parent.entries.get(name), Directory):
                present.copy_metadata_from(what)
            else:
                parent.entries[name] = what

    def _at_directory(self, number: int, entry: LayerEntry) -> None:
        """Handle what concerns a directory itself: the root's metadata, and opaque marks."""
        what = entry.what
        if isinstance(what, Opaque):
            self._directory(number, entry.path, entry.path).entries.clear()
        elif isinstance(what, Directory):
            self.root.copy_metadata_from(what)
        else:
            _refuse(number, b"/", "is not a directory")

    def _directory(self, number: int, path: bytes, where: bytes) -> Directory:
        node: Node = self.root
        for name in where.split(b"/"):
            if not name:
                continue
            assert isinstance(node, Directory)  # noqa: S101 - checked below before each step
            found = node.entries.get(name)
            if found is None:
                _refuse(number, path, f"is in {_shown(where)}, which does not exist")
            if not isinstance(found, Directory):
                _refuse(number, path, f"is in {_shown(where)}, where {_shown(name)} is not a directory")
            node = found
        assert isinstance(node, Directory)  # noqa: S101 - as above
        return node

    def _link_target(self, number: int, path: bytes, target: bytes) -> Leaf:
        where, _, name = target.rpartition(b"/")
        found = self._directory(number, path, where).entries.get(name) if name else self.root
        if found is None:
            _refuse(number, path, f"is a hard link to {_shown(target)}, which does not exist")
        if not isinstance(found, Leaf):
            _refuse(number, path, f"is a hard link to the directory {_shown(target)}")
        return found


def _shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace"))


def _refuse(number: int, path: bytes, why: str) -> NoReturn:
    msg = f"layer {number}: {_shown(path)} {why}"
    raise ImageError(
        msg,
        hint="composefs needs layers that name every directory before what is in it; "
        "rebuild the image with a current podman, buildah or docker",
        layer=number,
    )
