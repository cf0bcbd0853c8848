"""The rules of the merge, as docs/explain/etc-merge.md has them. Pure: three trees in, one tree and what to tell out.

``old`` is the image that runs, ``local`` what is in /etc now, ``new`` the image that comes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cfs_core.lifecycle.etc_merge.nodes import LABEL, REGULAR, EtcNode, EtcTree, children, same

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NEVER = frozenset({b".updated"})
"""Says that systemd has seen this /usr (systemd-update-done.service): never true of another image."""


class OnConflict(enum.StrEnum):
    """Who wins where the two cannot be brought together: nobody, this machine, the image."""

    FAIL = "fail"
    LOCAL = "local"
    IMAGE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something the merge decided that somebody may want to know. ``rule`` is its name in the table."""

    path: bytes
    rule: str
    message: str


@dataclass(slots=True, kw_only=True)
class Merge:
    """What comes out: the tree, notes, conflicts, and what was local and is in no tree any more."""

    tree: EtcTree = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    conflicts: list[Note] = field(default_factory=list)
    lost: EtcTree = field(default_factory=dict)
    local: set[bytes] = field(default_factory=set)
    """Paths whose file is this machine's, not the image's."""


def merge(old: EtcTree, local: EtcTree, new: EtcTree, on_conflict: OnConflict = OnConflict.FAIL) -> Merge:
    """Bring the changes of this machine and those of the image together.

    With ``OnConflict.FAIL`` the tree is as with ``LOCAL``; it is the caller who stops where there are conflicts.
    """
    return _Merger(old, local, new, on_conflict).run()


class _Merger:
    """One merge."""

    def __init__(self, old: EtcTree, local: EtcTree, new: EtcTree, on_conflict: OnConflict) -> None:
        self._old, self._local, self._new = old, local, new
        self._below = {name: children(tree) for name, tree in (("old", old), ("local", local), ("new", new))}
        self._on_conflict = on_conflict
        self._result = Merge()

    def run(self) -> Merge:
        self._visit(b"")
        return self._result

    def _visit(self, path: bytes) -> None:
        if path in NEVER:
            return
        old, local, new = self._old.get(path), self._local.get(path), self._new.get(path)
        if local is None and new is None:
            return
        if local is None or new is None:
            node = self._one_sided(path, old, local, new)
        elif local.is_directory and new.is_directory:
            node = _attributes(old if old and old.is_directory else None, local, new)
        elif local.is_directory or new.is_directory:
            node = self._kinds(path, old, local, new)
        else:
            node = self._files(path, old, local, new)
        if node is not None:
            self._keep(path, node)

    def _keep(self, path: bytes, node: EtcNode) -> None:
        new = self._new.get(path)
        if new is not None and node.label != new.label:
            node = relabelled(node, new.label)
        self._result.tree[path] = node
        if node != new:
            self._result.local.add(path)
        if node.is_directory:
            for child in sorted(set().union(*(names.get(path, ()) for names in self._below.values()))):
                self._visit(child)

    def _one_sided(
        self, path: bytes, old: EtcNode | None, local: EtcNode | None, new: EtcNode | None
    ) -> EtcNode | None:
        """One of the two has nothing here: it was removed there, or added by the other."""
        if local is None:
            if old is None:
                return new
            if not same(old, new) or any(self._changed("new", path)):
                self._note(path, "removed-here", "was removed here, and changed in the image: it stays removed")
            return None
        if old is None:
            return local
        below = local.is_directory and any(self._changed("local", path))
        if same(old, local) and not below:
            return None
        if below and same(old, local):
            self._note(path, "directory-kept", "is gone from the image, and stays for what was added here")
        else:
            self._note(path, "removed-there", "was changed here, and removed from the image: it stays")
        return local

    def _files(self, path: bytes, old: EtcNode | None, local: EtcNode, new: EtcNode) -> EtcNode:
        """Neither is a directory."""
        if same(local, new) or same(old, local):
            return new
        if same(old, new):
            return local
        if local.kind == new.kind == REGULAR:
            base = old if old is not None and old.kind == REGULAR else None
            merged = _attributes(base, local, new)
            if base is not None and local.data == base.data:
                merged = replace(merged, digest=new.digest, content=new.content, mtime_ns=new.mtime_ns, identity=None)
            elif local.data != new.data and (base is None or new.data != base.data):
                self._note(path, "both-changed", "was changed here and in the image: this machine's stays")
            return merged
        self._note(path, "both-changed", f"is a {local.kind} here and a {new.kind} in the image: this machine's stays")
        return local

    def _kinds(self, path: bytes, old: EtcNode | None, local: EtcNode, new: EtcNode) -> EtcNode | None:
        """Exactly one of the two is a directory."""
        if same(old, local) and not any(self._changed("local", path)):
            return new
        if same(old, new) and not any(self._changed("new", path)):
            return local
        words = f"is a {local.kind} here and a {new.kind} in the image, and both were changed"
        changed = [*self._changed("local", path), *self._changed("new", path)]
        if changed:
            shown = ", ".join(each.decode("utf-8", "backslashreplace") for each in changed[:3])
            words += f" ({shown}{' …' if len(changed) > 3 else ''})"  # noqa: PLR2004 - a few examples
        self._result.conflicts.append(Note(path=path, rule="conflict", message=words))
        if self._on_conflict is not OnConflict.IMAGE:
            # What the image has below is left out: nothing is ever written through this machine's link.
            return local
        self._result.lost |= {each: self._local[each] for each in (path, *self._changed("local", path))}
        self._result.tree |= {each: self._new[each] for each in (path, *_below(self._below["new"], path))}
        return None

    def _changed(self, side: str, path: bytes) -> Iterator[bytes]:
        """Yield what is below *path* in ``local`` or ``new`` and differs from ``old``."""
        tree = self._local if side == "local" else self._new
        for each in _below(self._below[side], path):
            if not same(self._old.get(each), tree[each]):
                yield each

    def _note(self, path: bytes, rule: str, message: str) -> None:
        self._result.notes.append(Note(path=path, rule=rule, message=message))


def _below(names: Mapping[bytes, list[bytes]], path: bytes) -> Iterator[bytes]:
    for child in names.get(path, ()):
        yield child
        yield from _below(names, child)


def _attributes(old: EtcNode | None, local: EtcNode, new: EtcNode) -> EtcNode:
    """Take mode, owner and attributes each from whoever changed it; this machine's where both did."""

    def pick(name: str) -> EtcNode:
        changed = old is None or getattr(old, name) != getattr(local, name)
        return local if changed and getattr(local, name) != getattr(new, name) else new

    owner, xattrs = pick("owner"), pick("attributes")
    result = local if old is None or local.data != new.data else new
    return replace(
        result,
        mode=pick("permissions").mode,
        uid=owner.uid,
        gid=owner.gid,
        xattrs=xattrs.xattrs,
        flags=local.flags,
    )


def relabelled(node: EtcNode, label: bytes | None) -> EtcNode:
    """Return *node* with another SELinux label, or without one."""
    added = () if label is None else ((LABEL, label),)
    return replace(node, xattrs=tuple(sorted((*node.attributes, *added))))
