"""Layers become one tree, by the rules of composefs-rs (formats E.1): strict where other tools guess."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from cfs_core.archive.tar_fields import raising
from cfs_core.errors import ImageError, LimitError
from cfs_core.model.layer import HardLink, Opaque, Whiteout
from cfs_core.model.tree import Directory, Leaf, Node, Symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfs_core.model.layer import LayerEntry

ENTRY_LIMIT = 2_000_000
"""Entries of all layers together; each that stays takes about 200 bytes of memory."""


IMPLIED_MODE = 0o755
"""Of a directory that no entry names; it is root's, of 1970, and has no extended attributes."""


def merge_layers(
    layers: Iterable[Iterable[LayerEntry]],
    *,
    entry_limit: int = ENTRY_LIMIT,
    implied: Callable[[bytes], None] = lambda _path: None,
    contradicted: Callable[[int, bytes], None] = lambda _layer, _path: None,
) -> Directory:
    """Flatten *layers*, lowest first. Nodes are taken over, not copied; ``nlink`` stays 0.

    The root starts with mode 0 and no times; only an entry for ``/`` changes that. A directory that an entry is in and
    no entry has named is made (Bazel, ko, Nix and apko leave such out), and *implied* is told its path; an entry that
    names it later decides what it is. A whiteout of nothing is nothing. No symbolic link is followed.

    A whiteout or opaque mark also takes away what the same layer had before it, as in composefs-rs; *contradicted* is
    told the layer's number and the path.

    Raises:
        ImageError: an entry below something else than a directory, a hard link to nothing or to a directory, a root
            that is none.
        LimitError: more than *entry_limit* entries.
    """
    merger = _Merger(entry_limit, implied, contradicted)
    for number, layer in enumerate(layers, 1):
        merger.apply(number, layer)
    return merger.root


class _Merger:
    def __init__(
        self, entry_limit: int, implied: Callable[[bytes], None], contradicted: Callable[[int, bytes], None]
    ) -> None:
        self.root = Directory(0)
        self._implied = implied
        self._contradicted = contradicted
        self._own: set[int] = set()
        """Which nodes the layer at hand has named, by `id`: all of them live as long as they are in the tree."""

        self._left = entry_limit
        self._limit = entry_limit

    def apply(self, number: int, layer: Iterable[LayerEntry]) -> None:
        parent_path: bytes | None = None
        parent = self.root
        self._own.clear()
        own = self._own.add
        for entry in layer:
            self._left -= 1
            if self._left < 0:
                msg = f"the image has more than {self._limit} entries"
                facts = {"limit": self._limit, "setting": "limits.image-entries"}
                raise LimitError(msg, hint=raising("limits.image-entries"), facts=facts)
            what = entry.what
            if entry.path == b"/" or isinstance(what, Opaque | Whiteout):
                self._at_directory(entry, number)
                parent_path = None
                continue
            here, _, name = entry.path.rpartition(b"/")
            # Entries of one directory come one after the other, so the way to it is walked once for all of them.
            if here != parent_path:
                parent = self._made(number, entry.path, here)
                parent_path = here
            if isinstance(what, HardLink):
                parent.entries[name] = self._link_target(number, entry.path, what.target)
            elif isinstance(what, Directory) and isinstance(present := parent.entries.get(name), Directory):
                present.copy_metadata_from(what)
                own(id(present))
            else:
                parent.entries[name] = what
                own(id(what))

    def _at_directory(self, entry: LayerEntry, number: int) -> None:
        """Handle what concerns a directory itself: the root's metadata, whiteouts and opaque marks."""
        what = entry.what
        if isinstance(what, Opaque):
            node = self._found(entry.path)
            if isinstance(node, Directory):
                for name, child in node.entries.items():
                    if id(child) in self._own:
                        self._contradicted(number, entry.path.rstrip(b"/") + b"/" + name)
                node.entries.clear()
        elif isinstance(what, Whiteout):
            here, _, name = entry.path.rpartition(b"/")
            node = self._found(here)
            gone = node.entries.pop(name, None) if isinstance(node, Directory) else None
            if gone is not None and id(gone) in self._own:
                self._contradicted(number, entry.path)
        elif isinstance(what, Directory):
            self.root.copy_metadata_from(what)
        else:
            _refuse(number, b"/", "is not a directory", _ROOT)

    def _found(self, path: bytes) -> Node | None:
        """Return what is at *path*, None if nothing is; links are not followed."""
        node: Node = self.root
        for name in filter(None, path.split(b"/")):
            if not isinstance(node, Directory) or (found := node.entries.get(name)) is None:
                return None
            node = found
        return node

    def _made(self, number: int, path: bytes, where: bytes) -> Directory:
        """Return the directory *where*, in which the entry *path* is; what of it is missing is made."""
        node = self.root
        for name in filter(None, where.split(b"/")):
            found = node.entries.get(name)
            if found is None:
                found = node.entries[name] = Directory(IMPLIED_MODE)
                self._implied(where)
            if not isinstance(found, Directory):
                kind = "a symbolic link" if isinstance(found, Symlink) else "not a directory"
                _refuse(number, path, f"is in {_shown(where)}, where {_shown(name)} is {kind}", _THROUGH)
            node = found
        return node

    def _link_target(self, number: int, path: bytes, target: bytes) -> Leaf:
        found = self._found(target)
        if found is None:
            _refuse(number, path, f"is a hard link to {_shown(target)}, which does not exist", _LINK)
        if not isinstance(found, Leaf):
            _refuse(number, path, f"is a hard link to the directory {_shown(target)}", _LINK)
        return found


def _shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace"))


def _refuse(number: int, path: bytes, why: str, hint: str) -> NoReturn:
    msg = f"layer {number}: {_shown(path)} {why}"
    raise ImageError(msg, hint=hint, facts={"layer": number})


_THROUGH = "layers are unpacked without following links: build the image so that the entry has the path behind the link"
_LINK = "a layer names a file before its hard links; rebuild the image with a current podman, buildah or docker"
_ROOT = "the layer is damaged, or no layer of an image; make the image again"
