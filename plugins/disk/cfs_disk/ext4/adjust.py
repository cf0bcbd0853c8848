"""Compares a filled ext4 with what was wanted, and words the differences as debugfs commands."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from cfs_core.plugin import DiskError
from cfs_disk.ext4.inode import FLAG_VERITY
from cfs_disk.ext4.read import ROOT_INODE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_disk.ext4.inode import Inode
    from cfs_disk.ext4.nodes import Ext4Contents, Ext4Node
    from cfs_disk.ext4.read import Ext4Reader

_WORD = 1 << 32
_DEVICES = frozenset({stat.S_IFCHR, stat.S_IFBLK})
_OLD_DEVICE = 256
_UNQUOTABLE = (b"\n", b"\r")
# debugfs reads its script in lines of up to BUFSIZ bytes, 8192 with glibc; the command itself needs a few.
_LINE_BYTES = 8000


def missing_nodes(contents: Ext4Contents, reader: Ext4Reader) -> Iterator[bytes]:
    """Yield commands that make what the staging directory could not hold: devices, then links that are still missing.

    Raises:
        DiskError: a name debugfs cannot be given.
    """
    directories = _Numbers(reader)
    for node in contents.nodes:
        parent, name = _split(node.path)
        if stat.S_IFMT(node.mode) in _DEVICES:
            letter = b"c" if stat.S_ISCHR(node.mode) else b"b"
            yield b"cd <%d>" % directories.of(parent)
            # Its number comes from `Adjuster`, which corrects that of devices made by mkfs as well.
            yield b"mknod %s %s 0 0" % (_quote(name), letter)
            yield b"cd <2>"


def missing_links(contents: Ext4Contents, reader: Ext4Reader) -> Iterator[bytes]:
    """Yield commands for names that are still missing, and link counts that go with them."""
    numbers = _Numbers(reader)
    counts: dict[int, int] = {}
    for name, existing in contents.links:
        parent, last = _split(name)
        if last in reader.numbered_entries(numbers.of(parent)):
            continue
        number = numbers.of(existing)
        counts[number] = counts.get(number, reader.inode(number).links) + 1
        yield b"cd <%d>" % numbers.of(parent)
        yield b"ln <%d> %s" % (number, _quote(last))
        yield b"cd <2>"
    for number, count in counts.items():
        yield b"sif <%d> links_count %d" % (number, count)


class Adjuster:
    """Words differences; *scratch* holds the values of extended attributes until debugfs has read them."""

    def __init__(self, contents: Ext4Contents, epoch: int, scratch: Path) -> None:
        self._contents = contents
        self._epoch = epoch
        self._scratch = scratch
        self._values: dict[bytes, Path] = {}

    def commands(self, reader: Ext4Reader) -> Iterator[bytes]:
        """Yield commands that give every inode its owner, mode, times, attributes, size and flags.

        Raises:
            DiskError: something wanted is not there, or is not the kind of file it should be.
        """
        numbers = _Numbers(reader)
        for node in self._contents.nodes:
            inode = reader.inode(numbers.of(node.path))
            if stat.S_IFMT(inode.mode) != stat.S_IFMT(node.mode):
                msg = f"{node.path!r} was made as the wrong kind of file"
                raise DiskError(msg)
            yield from self._inode_commands(node, inode, reader)

    def _inode_commands(self, node: Ext4Node, inode: Inode, reader: Ext4Reader) -> Iterator[bytes]:
        found = reader.xattrs(inode)
        for name in found.keys() - node.xattrs.keys():
            yield b"ea_rm <%d> %s" % (inode.number, _quote(name))
        for name, value in sorted(node.xattrs.items()):
            if found.get(name) != value:
                yield b"ea_set -f %s <%d> %s" % (self._value(value), inode.number, _quote(name))
        yield from _owner_commands(node, inode)
        if stat.S_IFMT(node.mode) in _DEVICES and inode.rdev != node.rdev:
            major, minor = node.device
            # Two forms: the kernel takes the second word where the first is 0 (ext4_iget in fs/ext4/inode.c).
            old = major << 8 | minor if max(major, minor) < _OLD_DEVICE else 0
            yield b"sif <%d> block[0] %d" % (inode.number, old)
            yield b"sif <%d> block[1] %d" % (inode.number, 0 if old else node.rdev)
        yield from self._time_commands(node, inode)
        if node.content is not None:
            yield from _content_commands(node, inode, node.content.size)

    def _time_commands(self, node: Ext4Node, inode: Inode) -> Iterator[bytes]:
        new = (self._epoch, 0)
        for field, time, wanted in (
            (b"atime", inode.atime, new),
            (b"ctime", inode.ctime, new),
            (b"mtime", inode.mtime, node.mtime),
            (b"crtime", inode.crtime, new),
        ):
            if time != wanted:
                seconds, nanoseconds = wanted
                # The two words separately: debugfs knows no nanoseconds, and takes -1 for a mistake.
                yield b"sif <%d> %s @%d" % (inode.number, field, seconds % _WORD)
                # The word is signed; two more bits say how often it went round (ext4_encode_extra_time,
                # fs/ext4/ext4.h).
                epoch_bits = (seconds + (1 << 31)) // _WORD & 3
                yield b"sif <%d> %s_extra %d" % (inode.number, field, epoch_bits | nanoseconds << 2)

    def _value(self, value: bytes) -> bytes:
        path = self._values.get(value)
        if path is None:
            path = self._values[value] = self._scratch / f"xattr-{len(self._values)}"
            path.write_bytes(value)
        return _quote(bytes(path))


def _owner_commands(node: Ext4Node, inode: Inode) -> Iterator[bytes]:
    for field, have, want in (
        (b"mode", inode.mode, node.mode),
        (b"uid", inode.uid, node.uid),
        (b"gid", inode.gid, node.gid),
    ):
        if have != want:
            yield b"sif <%d> %s %d" % (inode.number, field, want)


def _content_commands(node: Ext4Node, inode: Inode, size: int) -> Iterator[bytes]:
    if inode.size != size:
        if node.verity is None:
            msg = f"{node.path!r} was written with {inode.size} bytes instead of {size}"
            raise DiskError(msg)
        yield b"sif <%d> size %d" % (inode.number, size)
    if node.verity is not None and not inode.flags & FLAG_VERITY:
        yield b"sif <%d> flags %d" % (inode.number, inode.flags | FLAG_VERITY)


class _Numbers:
    """Inode numbers by path, directories remembered."""

    def __init__(self, reader: Ext4Reader) -> None:
        self._reader = reader
        self._known = {b"/": ROOT_INODE, b"": ROOT_INODE}

    def of(self, path: bytes) -> int:
        if path in self._known:
            return self._known[path]
        parent, name = _split(path)
        if parent not in self._known:
            self._known[parent] = self.of(parent)
        number = self._reader.numbered_entries(self._known[parent]).get(name)
        if number is None:
            msg = f"{path!r} is missing from the new filesystem"
            raise DiskError(msg)
        return number


def _split(path: bytes) -> tuple[bytes, bytes]:
    parent, _, name = path.rpartition(b"/")
    return parent or b"/", name


def _quote(word: bytes) -> bytes:
    if any(byte in word for byte in _UNQUOTABLE) or len(word) > _LINE_BYTES:
        msg = f"e2fsprogs before 1.47.1 cannot be told this name: {word!r}"
        raise DiskError(msg, hint="install e2fsprogs 1.47.1 or newer and libarchive13, or rename it")
    return b'"' + word.replace(b'"', b'""') + b'"'
