"""The canonical form of an image's tree and its bootable form: what decides identities (formats E.2, E.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import Directory, ImageError, Leaf
from cfs_storage_composefs.selinux.labels import load_policy, relabel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.plugin import Node, TreeReader, Xattrs

# Builders and stores keep and drop other attributes as they please; file capabilities are what programs need to work.
_KEPT_XATTRS = frozenset({b"security.capability"})
_RUN = b"run"
_EMPTIED = (b"boot", b"sysroot")


def canonicalise(tree: Directory, keep_user_xattrs: bool) -> None:  # noqa: FBT001 - the one option there is
    """Give *tree* (merged layers, or a directory as it was on disk) the form that every way in has in common, in place.

    The root gets the metadata of /usr, /run is emptied, only file capabilities (and ``user.*`` on request) stay of the
    extended attributes, and link counts are counted.

    Raises:
        ImageError: there is no /usr.
    """
    usr = _directory(tree, b"usr", "it is where the root directory's metadata comes from")
    # A layer says nothing about "/", or whatever the builder's directory happened to be; /usr is in every image.
    tree.copy_metadata_from(usr)
    run = tree.entries.get(_RUN)
    if isinstance(run, Directory):
        run.entries.clear()
        run.mtime_sec = usr.mtime_sec
        run.mtime_nsec = usr.mtime_nsec
    elif run is not None:
        raise _not_a_directory(_RUN)
    filtered: dict[Xattrs, Xattrs] = {(): ()}
    for node in nodes_of(tree):
        kept = filtered.get(node.xattrs)
        if kept is None:
            kept = filtered[node.xattrs] = tuple(
                pair
                for pair in node.xattrs
                if pair[0] in _KEPT_XATTRS or (keep_user_xattrs and pair[0].startswith(b"user."))
            )
        node.xattrs = kept
        if isinstance(node, Leaf):
            # 0: counted when written. Names have come and gone with layers, so a number that was read may be wrong by
            # now.
            node.nlink = 0


def make_bootable(tree: Directory, reader: TreeReader, *, nanoseconds: bool = False) -> None:
    """Give a canonical *tree* the form mounted at boot, in place: /boot and /sysroot empty, files labelled.

    *reader* gives the contents of the SELinux policy's files. /boot and /sysroot get the modification time of /usr: its
    seconds, as bootc and composefs-rs 0.9.0 do, or with *nanoseconds* all of it, as composefs-rs 0.9.4 does. This
    matters to V0 and V1 only, and only where the layers' times have fractions.

    Raises:
        ImageError: /boot or /sysroot is missing, or the SELinux policy is unreadable.
    """
    policy = load_policy(reader)
    usr = _directory(tree, b"usr", "a bootable image has its system there")
    for name in _EMPTIED:
        directory = _directory(tree, name, "a bootable image has an empty directory there, which is mounted over")
        directory.entries.clear()
        directory.mtime_sec = usr.mtime_sec
        if nanoseconds:
            directory.mtime_nsec = usr.mtime_nsec
    relabel(tree, policy)


def nodes_of(root: Directory) -> Iterator[Node]:
    """Yield every node, in no order, hard links once for each name."""
    yield root
    pending = [root]
    while pending:
        for node in pending.pop().entries.values():
            yield node
            if isinstance(node, Directory):
                pending.append(node)


def _directory(tree: Directory, name: bytes, why: str) -> Directory:
    found = tree.entries.get(name)
    if found is None:
        msg = f"the image has no /{name.decode()}: {why}"
        raise ImageError(msg, hint=f"create /{name.decode()} in the image (RUN mkdir -p /{name.decode()})")
    if not isinstance(found, Directory):
        raise _not_a_directory(name)
    return found


def _not_a_directory(name: bytes) -> ImageError:
    msg = f"/{name.decode()} of the image is not a directory"
    return ImageError(msg, hint="bootable images have real directories there, not links")
