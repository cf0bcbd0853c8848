"""Which inodes a composefs EROFS image has, in which order, with which attributes (formats B.3, B.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.plugin import Directory, FormatVersion, ImageError, Leaf, Node, RegularFile, Special, SpecialKind
from cfs_storage_composefs.erofs.layout import NAME_MAX, Listing
from cfs_storage_composefs.erofs.xattr import ESCAPED, METACOPY, OPAQUE, REDIRECT, escape, object_pairs

if TYPE_CHECKING:
    from cfs_core.plugin import HashAlgorithm, Xattrs

STUB_NAMES = tuple(b"%02x" % number for number in range(256))
_WHITEOUT = {ESCAPED + b"whiteout": b"", b"user.overlay.whiteout": b""}
_WHITEOUTS = {ESCAPED + b"whiteouts": b"", b"user.overlay.whiteouts": b""}
_OPAQUE_X = {ESCAPED + b"opaque": b"x", b"user.overlay.opaque": b"x"}


@dataclass(slots=True)
class Inodes:
    """A tree made ready for writing."""

    nodes: list[Node] = field(default_factory=list)
    """In order of their numbers."""
    listings: dict[Node, Listing] = field(default_factory=dict)
    subdirectories: dict[Node, int] = field(default_factory=dict)
    links: dict[Node, int] = field(default_factory=dict)
    """Number of names, for leaves that have more than one."""
    whiteouts: set[Node] = field(default_factory=set)
    """Devices that are written as regular files with overlay attributes (V0, V1)."""
    xattrs: list[Xattrs] = field(default_factory=list)
    """Of each of ``nodes``, without those of stored files."""


def is_whiteout(node: Node) -> bool:
    """Return whether overlayfs would take *node* for a removed file: character device 0:0."""
    return type(node) is Special and node.rdev == 0 and node.kind is SpecialKind.CHAR


def has_whiteouts(root: Directory) -> bool:
    """Return whether there is a whiteout anywhere: then the C tools' default version is V1 instead of V0."""
    return any(is_whiteout(leaf) for directory in _directories(root) for leaf in directory.entries.values())


def _directories(root: Directory) -> list[Directory]:
    """List all directories, in no particular order.

    Raises:
        ImageError: a directory is in the tree twice.
    """
    found = [root]
    seen: set[Node] = {root}
    for directory in found:
        children = [node for node in directory.entries.values() if type(node) is Directory]
        if children:
            before = len(seen)
            seen.update(children)
            if len(seen) != before + len(children):
                msg = "a directory is in the tree under two names"
                raise ImageError(msg, hint="only files can have hard links")
            found += children
    return found


def _hard_links(root: Directory) -> dict[Node, int]:
    """Count the names of leaves with several."""
    leaves: list[Node] = []
    for directory in _directories(root):
        leaves += directory.entries.values()
    counts: dict[Node, int] = {}
    if len(set(leaves)) != len(leaves):
        seen: set[Node] = set()
        for leaf in leaves:
            if leaf in seen:
                counts[leaf] = counts.get(leaf, 1) + 1
            seen.add(leaf)
    return counts


def _sorted_entries(directory: Directory) -> Listing:
    """Return entries in byte order.

    Raises:
        ImageError: a name that no directory can hold.
    """
    entries = sorted(directory.entries.items())
    if entries:
        names = [name for name, _ in entries]
        joined = b"\0".join(names)
        long = max(map(len, names)) > NAME_MAX
        if long or b"/" in joined or joined.count(b"\0") != len(names) - 1 or not names[0]:
            bad = next(name for name in names if not name or len(name) > NAME_MAX or b"/" in name or b"\0" in name)
            msg = f"{bad!r} cannot be a file name"
            raise ImageError(msg, hint=f"names have 1 to {NAME_MAX} bytes and neither '/' nor NUL")
        if b"." in directory.entries or b".." in directory.entries:
            msg = "a directory has an entry named '.' or '..'"
            raise ImageError(msg, hint="these names are reserved")
    return entries


def _owners(root: Directory, links: dict[Node, int]) -> dict[Node, tuple[Directory, bytes]]:
    """Return the first name of each hard link in depth-first order."""
    owners: dict[Node, tuple[Directory, bytes]] = {}
    # A dump file is depth first, and mkcomposefs gives an inode to the line that describes the file, not to the links
    # to it. So the owner is found in this order although inodes are then numbered breadth first.
    stack: list[Directory | tuple[Node, Directory, bytes]] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            node, directory, name = item
            owners.setdefault(node, (directory, name))
            continue
        stack += [
            node if isinstance(node, Directory) else (node, item, name)
            for name, node in sorted(item.entries.items(), reverse=True)
            if type(node) is Directory or node in links
        ]
    return owners


def _with_dots(entries: Listing, directory: Directory, parent: Directory) -> Listing:
    listing: Listing = [(b".", directory), (b"..", parent), *entries]
    # Bytes below 0x2e ("-", "+", "!") sort before the dots, and the kernel searches directories by bisection.
    if entries and entries[0][0] < b"..":
        listing.sort(key=_name)
    return listing


def _name(entry: tuple[bytes, Node]) -> bytes:
    return entry[0]


class _Escaped(dict["Xattrs", "Xattrs"]):
    """Attributes as V0 and V1 store them, by those of the tree."""

    def __missing__(self, xattrs: Xattrs) -> Xattrs:
        escaped = self[xattrs] = tuple(sorted(escape(xattrs)))
        return escaped


class _EscapedInPlace(dict["Xattrs", "Xattrs"]):
    """Attributes as V2 stores them: in the order of their names in the tree."""

    def __missing__(self, xattrs: Xattrs) -> Xattrs:
        escaped = self[xattrs] = escape(tuple(sorted(xattrs)))
        return escaped


def breadth_first(root: Directory, version: FormatVersion, algorithm: HashAlgorithm) -> Inodes:
    """Order *root* for V0 and V1: breadth first, with stubs and escaped whiteouts.

    Raises:
        ImageError: impossible names, a directory under two names.
    """
    result = Inodes(links=_hard_links(root))
    owners = _owners(root, result.links) if result.links else {}
    holders: set[Node] = set()
    nodes: list[Node] = [root]
    queue: list[tuple[Directory, Directory]] = [(root, root)]
    for directory, parent in queue:
        entries = _sorted_entries(directory)
        subdirectories = [(node, directory) for _, node in entries if type(node) is Directory]
        queue += subdirectories
        result.subdirectories[directory] = len(subdirectories)
        listing = _with_stubs(root, entries) if directory is root else entries
        if owners:
            own = [node for name, node in listing if owners.get(node, (directory, name)) == (directory, name)]
        else:
            own = [node for _, node in listing]
        whiteouts = {node for node in own if type(node) is Special and is_whiteout(node)}
        # The stubs are whiteouts too, and are meant: overlayfs shall see them and hide the store's directories.
        if directory is root:
            whiteouts &= set(root.entries.values())
        if whiteouts:
            result.whiteouts |= whiteouts
            holders.add(directory)
        nodes += own
        result.listings[directory] = _with_dots(listing, directory, parent)
    result.nodes = nodes
    # V1 also marks the directory with opaque=x: kernels since 6.8 look for whiteouts that are attributes only there
    # (Documentation/filesystems/overlayfs.rst). V0 is from before that.
    marks = _WHITEOUTS if version is FormatVersion.V0 else _WHITEOUTS | _OPAQUE_X
    _add_xattrs(result, holders, marks, algorithm)
    return result


def _add_xattrs(inodes: Inodes, holders: set[Node], marks: dict[bytes, bytes], algorithm: HashAlgorithm) -> None:
    """Fill in the attributes of V0 and V1; *holders*, the directories with removed files, get *marks*."""
    nodes = inodes.nodes
    escaped = _Escaped()
    inodes.xattrs = effective = [escaped[node.xattrs] for node in nodes]
    if holders:
        for at, node in enumerate(nodes):
            if node in holders:
                effective[at] = _merged(effective[at], marks)
            elif node in inodes.whiteouts:
                effective[at] = _merged(effective[at], _WHITEOUT)
    for at, node in enumerate(nodes):
        if type(node) is RegularFile and node.data is None and (node.object is None or node.path is not None):
            effective[at] = tuple(sorted((*effective[at], *_external_pairs(node, algorithm))))
    # The object store is overlayfs's lowest layer; an opaque root keeps the directories 00 to ff out of the system.
    effective[0] = _merged(effective[0], {OPAQUE: b"y"})


def _with_stubs(root: Directory, entries: Listing) -> Listing:
    """Add a whiteout for each name that the object store could have, so that its directories do not show through."""
    xattrs = tuple(pair for pair in escape(root.xattrs) if pair[0] == b"security.selinux")
    metadata = (0o644, root.uid, root.gid, root.mtime_sec, root.mtime_nsec, xattrs, SpecialKind.CHAR)
    stubs: Listing = [(name, Special(*metadata)) for name in STUB_NAMES if name not in root.entries]
    return sorted(entries + stubs, key=_name)


def _merged(xattrs: Xattrs, added: dict[bytes, bytes]) -> Xattrs:
    return tuple(sorted((dict(xattrs) | added).items()))


def _external_pairs(node: RegularFile, algorithm: HashAlgorithm) -> Xattrs:
    """Return overlay attributes of files without data whose name in the object store is not the usual one."""
    if node.size == 0:
        return ()
    if node.object is None:
        metacopy = (METACOPY, b"")
    else:
        metacopy, _ = object_pairs(node.object, algorithm)
    if not node.path:
        return (metacopy,)
    return (metacopy, (REDIRECT, node.path if node.path.startswith(b"/") else b"/" + node.path))


def depth_first(root: Directory, algorithm: HashAlgorithm) -> Inodes:
    """Order *root* for V2: depth first, nothing added but the attributes of stored files.

    Raises:
        ImageError: as for `breadth_first`.
    """
    result = Inodes(links=_hard_links(root))
    links = result.links
    done: set[Node] = set()
    nodes = result.nodes
    stack: list[tuple[Node, Directory]] = [(root, root)]
    while stack:
        node, parent = stack.pop()
        if type(node) is Directory:
            entries = _sorted_entries(node)
            result.listings[node] = _with_dots(entries, node, parent)
            result.subdirectories[node] = sum(type(child) is Directory for _, child in entries)
            stack += [(child, node) for _, child in reversed(entries)]
        elif node in links:
            if node in done:
                continue
            done.add(node)
        nodes.append(node)
    escaped = _EscapedInPlace()
    result.xattrs = effective = [escaped[node.xattrs] for node in nodes]
    for at, node in enumerate(nodes):
        if type(node) is RegularFile and node.data is None and (node.object is None or node.path is not None):
            effective[at] = (*_external_pairs(node, algorithm), *effective[at])
    return result


def link_count(node: Node, inodes: Inodes) -> int:
    """Return the number of names as EROFS stores it."""
    if isinstance(node, Leaf):
        return node.nlink or inodes.links.get(node, 1)
    return 2 + inodes.subdirectories[node]
