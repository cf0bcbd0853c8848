"""SELinux labels of files that no image has: by the policy of the image that comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.lifecycle.etc_merge.nodes import DIRECTORY, LABEL, REGULAR, SYMLINK, EtcNode, EtcTree
from cfs_core.lifecycle.etc_merge.rules import relabelled
from cfs_core.model.tree import Directory, RegularFile, Special, SpecialKind, Symlink, lookup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.interfaces.storage import StorageFormat, TreeReader
    from cfs_core.model.tree import Node


def labelled(tree: EtcTree, unknown: Iterable[bytes], image: TreeReader, storage: StorageFormat) -> EtcTree:
    """Return *tree* with labels for the paths in *unknown*, which *image* does not have.

    Where the image is not labelled, or the storage format knows no policies, labels are left out.

    Raises:
        ImageError: the policy is malformed.
    """
    paths = sorted(unknown)
    if not paths or tree[b""].label is None:
        return {path: relabelled(node, None) if path in paths else node for path, node in tree.items()}
    root = _skeleton(tree)
    storage.bootable(root, image)
    changed = dict(tree)
    for path in paths:
        node = lookup(root, b"etc/" + path)
        label = dict(node.xattrs).get(LABEL) if node is not None else None
        changed[path] = relabelled(tree[path], label)
    return changed


def _skeleton(tree: EtcTree) -> Directory:
    """Make a root with nothing but /etc in it, and what makes a root bootable."""
    root = Directory(0o755)
    root.entries = {name: Directory(0o755) for name in (b"usr", b"boot", b"sysroot", b"etc")}
    made: dict[bytes, Node] = {b"": root.entries[b"etc"]}
    for path in sorted(tree):
        if not path:
            continue
        directory, _, name = path.rpartition(b"/")
        node = made[path] = _node(tree[path])
        parent = made[directory]
        if isinstance(parent, Directory):
            parent.entries[name] = node
    return root


def _node(node: EtcNode) -> Node:
    kinds: dict[str, Node] = {
        DIRECTORY: Directory(0o755),
        REGULAR: RegularFile(0o644),
        SYMLINK: Symlink(0o777, target=node.target or b"/"),
    }
    made = kinds.get(node.kind) or Special(0o644, kind=node.special or SpecialKind.FIFO)
    if isinstance(made, RegularFile):
        made.data = b""
    return made
