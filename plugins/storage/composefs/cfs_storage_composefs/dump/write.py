"""Writes trees as dump files, in the form that composefs-rs writes (formats C)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.plugin import (
    Directory,
    HashAlgorithm,
    ImageError,
    Leaf,
    Node,
    RegularFile,
    Special,
    Symlink,
    walk,
)
from cfs_storage_composefs.erofs import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PLAIN = re.compile(rb"[!-\[\]-~]+")  # 0x21 to 0x7e without backslash
_ESCAPED_BYTES = {byte: bytes((byte,)) if 0x21 <= byte <= 0x7E else b"\\x%02x" % byte for byte in range(256)}  # noqa: PLR2004 - as above
_ESCAPED_BYTES |= {0x5C: b"\\\\", 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t"}
_MODES: dict[type[Node], int] = {RegularFile: layout.S_IFREG, Symlink: layout.S_IFLNK, Directory: layout.S_IFDIR}


def write_dump(tree: Directory, out: BinaryIO, algorithm: HashAlgorithm) -> None:
    """Write *tree*, depth first, names and attributes in byte order.

    Raises:
        ImageError: an object was named with another hash algorithm than *algorithm*.
    """
    names: dict[Node, bytes] = {}
    links = _link_counts(tree)
    for path, node in walk(tree):
        if isinstance(node, Leaf) and links[node] > 1:
            first = names.setdefault(node, path)
            if first != path:
                out.write(b"%b 0 @120000 - - - - 0.0 %b - -\n" % (_escaped(path), _escaped(first)))
                continue
        out.write(_line_of(path, node, links, algorithm))


def _link_counts(tree: Directory) -> dict[Node, int]:
    counts: dict[Node, int] = {}
    for _, node in walk(tree):
        counts[node] = counts.get(node, 0) + 1
    return counts


def _line_of(path: bytes, node: Node, links: dict[Node, int], algorithm: HashAlgorithm) -> bytes:
    size = rdev = 0
    payload = content = digest = b"-"
    if isinstance(node, Directory):
        nlink = 2 + sum(isinstance(child, Directory) for child in node.entries.values())
    else:
        nlink = (node.nlink if isinstance(node, Leaf) else 0) or links[node]
    if isinstance(node, RegularFile):
        size = node.size
        if node.data is not None:
            size = len(node.data)
            content = _escaped(node.data)
        elif node.object is not None:
            payload, digest = _object_fields(node, algorithm)
        elif node.path is not None:
            payload = _escaped(node.path)
    elif isinstance(node, Symlink):
        size = len(node.target)
        payload = _escaped(node.target)
    elif isinstance(node, Special):
        rdev = node.rdev
    mode = node.mode | (layout.SPECIAL_MODES[node.kind] if isinstance(node, Special) else _MODES[type(node)])
    line = b"%b %d %o %d %d %d %d %d.%d %b %b %b" % (
        _escaped(path),
        size,
        mode,
        nlink,
        node.uid,
        node.gid,
        rdev,
        node.mtime_sec,
        node.mtime_nsec,
        payload,
        content,
        digest,
    )
    return b" ".join([line, *_xattr_fields(node.xattrs)]) + b"\n"


def _object_fields(node: RegularFile, algorithm: HashAlgorithm) -> tuple[bytes, bytes]:
    name = str(node.object)
    if len(name) != 2 * algorithm.size:
        msg = f"{name[:140]!r} is not the {algorithm.value} identity of an object"
        raise ImageError(msg, hint="write the tree with the hash algorithm that it was made with")
    path = node.path if node.path is not None else f"{name[:2]}/{name[2:]}".encode()
    return _escaped(path), name.encode()


def _xattr_fields(xattrs: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in sorted(xattrs):
        yield b"%b=%b" % (_bytewise(name).replace(b"=", b"\\x3d"), _bytewise(value).replace(b"=", b"\\x3d"))


def _escaped(field: bytes) -> bytes:
    """Escape a field where ``-`` stands for an empty one."""
    if field == b"-":
        return b"\\x2d"
    return _bytewise(field) or b"-"


def _bytewise(field: bytes) -> bytes:
    if not field or _PLAIN.fullmatch(field):
        return field
    return b"".join([_ESCAPED_BYTES[byte] for byte in field])
