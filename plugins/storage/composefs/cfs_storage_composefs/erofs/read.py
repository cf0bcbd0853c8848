"""Reads composefs EROFS images back as trees, undoing what the writers add for overlayfs (formats B.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import Directory, FormatVersion, Leaf, Node, ObjectId, RegularFile, Special, SpecialKind, Symlink
from cfs_storage_composefs.erofs import layout
from cfs_storage_composefs.erofs.image import DamagedImageError, ErofsImage, ImageHeader, Inode, damaged, read_header
from cfs_storage_composefs.erofs.order import STUB_NAMES
from cfs_storage_composefs.erofs.xattr import ESCAPED, METACOPY, OPAQUE, OVERLAY, REDIRECT
from cfs_storage_composefs.pause import collector_paused

if TYPE_CHECKING:
    import mmap

    from cfs_core.plugin import Xattrs
    from cfs_storage_composefs.erofs.xattr import Pair

__all__ = ["DamagedImageError", "ImageHeader", "read_erofs", "read_header", "referenced_objects"]

_SPECIAL_KINDS = {mode: kind for kind, mode in layout.SPECIAL_MODES.items()}
_DEVICES = {SpecialKind.CHAR, SpecialKind.BLOCK}
_WHITEOUT = {ESCAPED + b"whiteout", b"user.overlay.whiteout"}
_WHITEOUTS = {(ESCAPED + b"whiteouts", b""), (b"user.overlay.whiteouts", b"")}
_OPAQUE_X = {(ESCAPED + b"opaque", b"x"), (b"user.overlay.opaque", b"x")}
_HASH_SIZES = {1: 32, 2: 64}


def read_erofs(data: bytes | memoryview | mmap.mmap) -> Directory:
    """Return the tree of an image: writing it again gives the same image.

    Raises:
        StorageError: damaged, hostile, or not made by composefs.
    """
    with collector_paused():
        return _TreeReader(ErofsImage(_sliceable(data))).read()


def referenced_objects(data: bytes | memoryview | mmap.mmap) -> set[str]:
    """Return the names, in hex, of all objects that an image needs.

    Raises:
        StorageError: as for `read_erofs`.
    """
    image = ErofsImage(_sliceable(data))
    found = set()
    seen = {image.header.root_nid}
    pending = [image.header.root_nid]
    while pending:
        inode = image.inode(pending.pop())
        kind = inode.mode & layout.S_IFMT
        if kind == layout.S_IFREG:
            for name, value in image.xattrs(inode):
                if name == METACOPY and value:
                    found.add(_digest_of(value))
        elif kind == layout.S_IFDIR:
            for _, nid in image.entries(inode):
                if nid not in seen:
                    seen.add(nid)
                    pending.append(nid)
    return found


def _sliceable(data: bytes | memoryview | mmap.mmap) -> bytes | mmap.mmap:
    return bytes(data) if isinstance(data, memoryview) else data


def _digest_of(value: bytes) -> str:
    """Return the digest in a metacopy attribute (struct ovl_metacopy)."""
    if len(value) < 4 or value[0] or value[1] != len(value) or _HASH_SIZES.get(value[3]) != len(value) - 4:  # noqa: PLR2004 - its header
        damaged("a metacopy attribute is malformed")
    return value[4:].hex()


class _TreeReader:
    def __init__(self, image: ErofsImage) -> None:
        self.image = image
        self.v2 = image.header.version is FormatVersion.V2
        self.leaves: dict[int, Leaf] = {}
        self.counts: dict[int, int] = {}
        self.directories: set[int] = set()
        self.whiteouts: set[Node] = set()
        """Removed files of the tree, stored as regular files."""
        self.pending: list[tuple[Directory, Inode]] = []
        self.own: dict[tuple[Pair, ...], Xattrs] = {(): ()}

    def read(self) -> Directory:
        nid = self.image.header.root_nid
        root = self._node(nid)
        if not isinstance(root, Directory):
            damaged("its root is not a directory")
        while self.pending:
            directory, inode = self.pending.pop()
            entries = directory.entries
            for name, child in self.image.entries(inode):
                if name in entries:
                    damaged(f"a directory has two entries named {name[:300]!r}")
                entries[name] = self._node(child)
            pairs = self.image.xattrs(inode)
            if not self.v2:
                pairs = self._without_marks(pairs, entries, is_root=directory is root)
            directory.xattrs = self._own_xattrs(pairs)
        if not self.v2:
            _remove_stubs(root, self.whiteouts)
        for number, leaf in self.leaves.items():
            if leaf.nlink == self.counts[number]:
                leaf.nlink = 0
        return root

    def _node(self, nid: int) -> Node:
        """Return the node of an inode: the same for every name of a file, a new one for a directory."""
        leaf = self.leaves.get(nid)
        if leaf is not None:
            self.counts[nid] += 1
            return leaf
        inode = self.image.inode(nid)
        metadata = (inode.mode & 0o7777, inode.uid, inode.gid, inode.mtime_sec, inode.mtime_nsec)
        kind = inode.mode & layout.S_IFMT
        if kind == layout.S_IFDIR:
            if nid in self.directories:
                damaged("a directory has two names")
            self.directories.add(nid)
            directory = Directory(*metadata)
            self.pending.append((directory, inode))
            return directory
        pairs = self.image.xattrs(inode)
        if kind == layout.S_IFREG:
            leaf = self._regular(metadata, inode, pairs)
        elif kind == layout.S_IFLNK:
            target = self.image.content(inode)
            if not 0 < len(target) <= layout.SYMLINK_MAX or b"\0" in target:
                damaged("a symbolic link has no proper target")
            leaf = Symlink(*metadata, self._own_xattrs(pairs), target)
        elif kind in _SPECIAL_KINDS:
            special = _SPECIAL_KINDS[kind]
            leaf = Special(*metadata, self._own_xattrs(pairs), special, inode.u if special in _DEVICES else 0)
        else:
            damaged(f"inode {nid} has no file type")
        leaf.nlink = inode.nlink
        self.leaves[nid] = leaf
        self.counts[nid] = 1
        return leaf

    def _regular(self, metadata: tuple[int, int, int, int, int], inode: Inode, pairs: list[Pair]) -> Leaf:
        if inode.layout != layout.CHUNKED:
            if not self.v2 and inode.size == 0 and {name for name, value in pairs if not value} >= _WHITEOUT:
                rest = self._own_xattrs([pair for pair in pairs if pair[0] not in _WHITEOUT])
                whiteout = Special(*metadata, rest, SpecialKind.CHAR)
                self.whiteouts.add(whiteout)
                return whiteout
            file = RegularFile(*metadata, self._own_xattrs(pairs))
            file.data = self.image.content(inode)
            file.size = inode.size
            return file
        metacopy = redirect = None
        own = []
        for pair in pairs:
            if pair[0] == METACOPY:
                metacopy = pair[1]
            elif pair[0] == REDIRECT:
                redirect = pair[1]
            else:
                own.append(pair)
        if metacopy is None or (redirect is not None and redirect[:1] != b"/"):
            damaged("a file without content does not say where its content is")
        file = RegularFile(*metadata, self._own_xattrs(own))
        file.size = inode.size
        file.path = redirect[1:] if redirect is not None else None
        if metacopy:
            name = file.object = ObjectId(_digest_of(metacopy))
            if file.path is None:
                file.path = b""
            elif file.path == f"{name[:2]}/{name[2:]}".encode():
                file.path = None
        return file

    def _own_xattrs(self, pairs: list[Pair]) -> Xattrs:
        """Undo the escaping of names, and put them in order."""
        key = tuple(pairs)
        own = self.own.get(key)
        if own is None:
            own = self.own[key] = tuple(sorted((_unescaped(name), value) for name, value in pairs))
        return own

    def _without_marks(self, pairs: list[Pair], entries: dict[bytes, Node], *, is_root: bool) -> list[Pair]:
        """Leave out what V0 and V1 add to the root, and to directories with removed files."""
        if is_root:
            pairs = [pair for pair in pairs if pair != (OPAQUE, b"y")]
        if self.whiteouts and not self.whiteouts.isdisjoint(entries.values()):
            marks = _WHITEOUTS if self.image.header.version is FormatVersion.V0 else _WHITEOUTS | _OPAQUE_X
            if marks <= set(pairs):
                pairs = [pair for pair in pairs if pair not in marks]
        return pairs


def _unescaped(name: bytes) -> bytes:
    if not name.startswith(OVERLAY):
        return name
    if not name.startswith(ESCAPED):
        damaged(f"attribute {name!r} is in a place where composefs has none")
    return OVERLAY + name[len(ESCAPED) :]


def _remove_stubs(root: Directory, whiteouts: set[Node]) -> None:
    """Remove the whiteouts that hide the object store's directories."""
    xattrs = tuple(pair for pair in root.xattrs if pair[0] == b"security.selinux")
    like = (0o644, root.uid, root.gid, root.mtime_sec, root.mtime_nsec, xattrs)
    for name in STUB_NAMES:
        node = root.entries.get(name)
        if type(node) is Special and node not in whiteouts and node.kind is SpecialKind.CHAR and node.rdev == 0:
            found = (node.mode, node.uid, node.gid, node.mtime_sec, node.mtime_nsec, node.xattrs)
            if found == like:
                del root.entries[name]
