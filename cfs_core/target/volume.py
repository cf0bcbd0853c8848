"""What one volume will hold: a tree in memory that actions are applied to, in order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from cfs_core.errors import DiskError
from cfs_core.model.action import (
    CopyObject,
    ExchangePaths,
    MakeDirectory,
    MakeHardLink,
    RemovePath,
    RenamePath,
    WriteFile,
)
from cfs_core.model.content import BytesContent
from cfs_core.model.disk import Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.model.action import Action, MakeSpecial, MakeSymlink, PlacingAction
    from cfs_core.model.content import Content
    from cfs_core.model.disk import Volume

    LeafAction = WriteFile | CopyObject | MakeSymlink | MakeSpecial

HINT = "the actions are in an order that cannot work; the plugin that planned them is at fault"


@dataclass(eq=False, slots=True)
class Leaf:
    """A file, link or device; several names share one object where they are hard links."""

    action: LeafAction


@dataclass(eq=False, slots=True)
class Branch:
    """A directory; ``action`` None where it was made only because something is below it."""

    action: MakeDirectory | None = None
    children: dict[str, Leaf | Branch] = field(default_factory=dict)


class VolumeContents:
    """The tree of one volume."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._root = Branch()
        self.touched = False
        """Whether any action was applied."""

        self.folded = False
        """Whether names that differ in letter case only are the same, as on FAT."""

    # --- writing ------------------------------------------------------------------------------

    def apply(self, action: Action) -> None:
        """Do what *action* says.

        Raises:
            DiskError: it cannot be done where it comes: a file in the place of a directory, a missing source.
        """
        self.touched = True
        match action:
            case MakeDirectory():
                self._make_directory(action)
            case MakeHardLink():
                existing = self._find(action.existing.path)
                if not isinstance(existing, Leaf):
                    self._fail(f"{action.location} cannot be a hard link to {action.existing}: it is no file there")
                self._place(action.location.path, existing)
            case RemovePath():
                self._remove(action)
            case RenamePath():
                self._rename(action.source.path, action.location.path)
            case ExchangePaths():
                self._exchange(action.a.path, action.b.path)
            case WriteFile() if action.in_place and self._overwrite(action):
                pass
            case _:
                leaf: LeafAction = action  # type: ignore[assignment]  # nothing else is left
                self._place(leaf.location.path, Leaf(leaf))

    def _make_directory(self, action: MakeDirectory) -> None:
        parts = self._parts(action.location.path)
        if not parts:
            self._root.action = action
            return
        parent = self._parent(parts, create=True)
        found = parent.children.get(parts[-1])
        if isinstance(found, Leaf):
            self._fail(f"{action.location} cannot become a directory: there is a file")
        if found is None:
            parent.children[parts[-1]] = Branch(action)
        else:
            found.action = action

    def _place(self, path: str, node: Leaf | Branch) -> None:
        parts = self._parts(path)
        if not parts:
            self._fail(f"{Location(self._volume, path)} is the root of its volume and stays a directory")
        parent = self._parent(parts, create=True)
        if isinstance(parent.children.get(parts[-1]), Branch):
            self._fail(f"{Location(self._volume, path)} is a directory and cannot be replaced by a file")
        parent.children[parts[-1]] = node

    def _overwrite(self, action: WriteFile) -> bool:
        """Give the file that is there other bytes; return whether there is one of that size."""
        node = self._find(action.location.path)
        old = node.action if isinstance(node, Leaf) else None
        size = len(old.data) if isinstance(old, WriteFile) else old.source.size if isinstance(old, CopyObject) else -1
        if not (isinstance(node, Leaf) and isinstance(old, WriteFile | CopyObject) and size == len(action.data)):
            return False
        node.action = replace(action, location=old.location, attributes=old.attributes)
        return True

    def _remove(self, action: RemovePath) -> None:
        parts = self._parts(action.location.path)
        if not parts:
            self._fail(f"{action.location} is the root of its volume and cannot be removed")
        if self._find(action.location.path) is not None:
            del self._parent(parts, create=False).children[parts[-1]]

    def _rename(self, source: str, target: str) -> None:
        old, new = self._parts(source), self._parts(target)
        where, to = Location(self._volume, source), Location(self._volume, target)
        node = self._find(source)
        if node is None or not old or not new:
            self._fail(f"{where} cannot be renamed to {to}: nothing is there, or it is the root of the volume")
        if old == new:
            return
        if new[: len(old)] == old:
            self._fail(f"{where} cannot be moved into itself ({to})")
        parent = self._parent(new, create=True)
        there = parent.children.get(new[-1])
        if there is not None and isinstance(there, Branch) != isinstance(node, Branch):
            self._fail(f"{where} cannot replace {to}: one is a directory, the other is not")
        if isinstance(there, Branch) and there.children:
            self._fail(f"{where} cannot replace {to}: that directory is not empty")
        del self._parent(old, create=False).children[old[-1]]
        parent.children[new[-1]] = node

    def _exchange(self, first: str, second: str) -> None:
        one, other = self._parts(first), self._parts(second)
        a, b = self._find(first), self._find(second)
        where = f"{Location(self._volume, first)} and {Location(self._volume, second)}"
        if a is None or b is None or not one or not other:
            self._fail(f"{where} cannot be exchanged: both must be there")
        shorter, longer = sorted((one, other), key=len)
        if longer[: len(shorter)] == shorter:
            self._fail(f"{where} cannot be exchanged: one is inside the other")
        self._parent(one, create=False).children[one[-1]] = b
        self._parent(other, create=False).children[other[-1]] = a

    # --- reading ------------------------------------------------------------------------------

    def contents(self) -> dict[str, PlacingAction]:
        """Return what is there by absolute path, parents first and names sorted; further names of a file are links."""
        result: dict[str, PlacingAction] = {}
        first_names: dict[Leaf, str] = {}
        if self._root.action is not None:
            result["/"] = self._root.action
        for path, node in self._walk():
            location = Location(self._volume, path)
            if isinstance(node, Branch):
                made = node.action or MakeDirectory(why="holds what is below", location=location)
                result[path] = made if made.location.path == path else replace(made, location=location)
                continue
            first = first_names.setdefault(node, path)
            if first != path:
                existing = Location(self._volume, first)
                result[path] = MakeHardLink(why=node.action.why, location=location, existing=existing)
                continue
            action = node.action if node.action.location == location else replace(node.action, location=location)
            result[action.location.path] = action  # the action's own string, so that it is in memory once
        return result

    def content(self, path: str) -> Content:
        """Return the bytes of a regular file.

        Raises:
            FileNotFoundError: no regular file is there.
        """
        node = self._find(path)
        action = node.action if isinstance(node, Leaf) else None
        if isinstance(action, WriteFile):
            return BytesContent(action.data)
        if isinstance(action, CopyObject):
            return action.source
        raise FileNotFoundError(str(Location(self._volume, path)))

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in a directory; empty if there is none."""
        node = self._find(path)
        return tuple(sorted(node.children)) if isinstance(node, Branch) else ()

    def exists(self, path: str) -> bool:
        """Return whether anything is there."""
        return self._find(path) is not None

    def is_directory(self, path: str) -> bool:
        """Return whether a directory is there."""
        return isinstance(self._find(path), Branch)

    def copy(self) -> VolumeContents:
        """Return an independent copy; actions and contents are shared, being immutable."""
        result = VolumeContents(self._volume)
        result.touched, result.folded = self.touched, self.folded
        leaves: dict[Leaf, Leaf] = {}
        result._root = _copy_branch(self._root, leaves)
        return result

    def _walk(self) -> Iterator[tuple[str, Leaf | Branch]]:
        stack = [("", iter(sorted(self._root.children.items())))]
        while stack:
            prefix, children = stack[-1]
            for name, node in children:
                path = f"{prefix}/{name}"
                yield path, node
                if isinstance(node, Branch):
                    stack.append((path, iter(sorted(node.children.items()))))
                    break
            else:
                stack.pop()

    def _find(self, path: str) -> Leaf | Branch | None:
        node: Leaf | Branch | None = self._root
        for part in self._parts(path):
            if not isinstance(node, Branch):
                return None
            node = node.children.get(part)
        return node

    def _parent(self, parts: list[str], *, create: bool) -> Branch:
        node = self._root
        for part in parts[:-1]:
            below = node.children.get(part)
            if below is None and create:
                below = node.children[part] = Branch()
            if not isinstance(below, Branch):
                path = Location(self._volume, "/" + "/".join(parts))
                self._fail(f"{path} cannot be made: {part!r} on the way to it is not a directory")
            node = below
        return node

    def _parts(self, path: str) -> list[str]:
        parts = path.split("/")[1:] if path != "/" else []
        if not path.startswith("/") or any(part in {"", ".", ".."} or "\0" in part for part in parts):
            self._fail(f"{Location(self._volume, path)!s} is not an absolute, normalised path")
        return self._spelled(parts) if self.folded else parts

    def _spelled(self, parts: list[str]) -> list[str]:
        """Return *parts* in the letter case of what is there."""
        node: Leaf | Branch | None = self._root
        found: list[str] = []
        for part in parts:
            children = node.children if isinstance(node, Branch) else {}
            same = (name for name in children if name.casefold() == part.casefold())
            name = part if part in children else next(same, part)
            found.append(name)
            node = children.get(name)
        return found

    def _fail(self, message: str) -> NoReturn:
        raise DiskError(message, hint=HINT)


def _copy_branch(branch: Branch, leaves: dict[Leaf, Leaf]) -> Branch:
    copied = Branch(branch.action)
    for name, node in branch.children.items():
        if isinstance(node, Branch):
            copied.children[name] = _copy_branch(node, leaves)
        else:
            copied.children[name] = leaves.setdefault(node, Leaf(node.action))
    return copied
