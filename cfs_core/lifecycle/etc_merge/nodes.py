"""Files of /etc as the merge compares them, wherever they are from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.model.content import Content
    from cfs_core.model.tree import SpecialKind, Xattrs

LABEL = b"security.selinux"

DIRECTORY, REGULAR, SYMLINK, SPECIAL = "directory", "file", "link", "special file"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcNode:
    """One file. ``digest`` is the SHA-256 of a regular file's content in hex, ``target`` where a link leads.

    Times are in nanoseconds, ``flags`` the inode flags that are carried over (immutable, append only). ``identity`` is
    the same for names of one file, and None where a file has one name.
    """

    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    xattrs: Xattrs = ()
    digest: str | None = None
    content: Content | None = field(default=None, compare=False, repr=False)
    target: bytes | None = None
    special: SpecialKind | None = None
    rdev: int = 0
    flags: int = 0
    identity: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return self.kind == DIRECTORY

    @property
    def data(self) -> tuple[object, ...]:
        """What it is, without its metadata."""
        return self.kind, self.digest, self.target, self.special, self.rdev

    @property
    def owner(self) -> tuple[int, int]:
        """User and group."""
        return self.uid, self.gid

    @property
    def permissions(self) -> int:
        """The mode; of links, which have none, always the same."""
        return 0o777 if self.kind == SYMLINK else self.mode

    @property
    def attributes(self) -> Xattrs:
        """Extended attributes without the SELinux label, which is the policy's and nobody's change."""
        return tuple(sorted(pair for pair in self.xattrs if pair[0] != LABEL))

    @property
    def label(self) -> bytes | None:
        """The SELinux label."""
        return dict(self.xattrs).get(LABEL)


EtcTree = dict[bytes, EtcNode]
"""Files by path below /etc (``b"ssh/sshd_config"``); the directory itself is ``b""``."""


def same(one: EtcNode | None, other: EtcNode | None) -> bool:
    """Return whether nothing that counts differs: times and labels do not count, what is in a directory neither."""
    if one is None or other is None:
        return one is other
    return _facts(one) == _facts(other)


def _facts(node: EtcNode) -> tuple[object, ...]:
    return *node.data, node.permissions, node.owner, node.attributes


def children(tree: EtcTree) -> dict[bytes, list[bytes]]:
    """Return the paths in each directory, sorted."""
    found: dict[bytes, list[bytes]] = {}
    for path in sorted(tree):
        if path:
            found.setdefault(parent(path), []).append(path)
    return found


def parent(path: bytes) -> bytes:
    """Return the directory that *path* is in."""
    return path.rpartition(b"/")[0]
