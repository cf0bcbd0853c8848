"""Trees as text, composefs-dump(5): read as mkcomposefs reads it, written as composefs-rs writes it (formats C)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from cfs_core.plugin import (
    Directory,
    ImageError,
    Leaf,
    Node,
    ObjectId,
    RegularFile,
    Special,
    Symlink,
)
from cfs_storage_composefs.dump.write import write_dump
from cfs_storage_composefs.erofs import layout
from cfs_storage_composefs.pause import collector_paused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.plugin import Xattrs

__all__ = ["read_dump", "write_dump"]

INLINE_MAX = 5000
LINE_MAX = 1 << 20
"""Bytes; more than the limits of all fields together."""
_CHUNK = 1 << 20
_XATTR_TEXT_MAX = 65535
_XATTR_NAME_MAX = 255
_XATTRS_MAX = 32767
_SIZE_MAX = layout.CHUNKS_MAX << layout.CHUNK_BITS_MAX

_FIELDS = (
    ("PATH", rb"/.*"),
    ("SIZE", rb"\d{1,19}"),
    ("MODE", rb"@?[0-7]{1,12}"),
    ("NLINK", rb"\d{1,19}"),
    ("UID", rb"\d{1,19}"),
    ("GID", rb"\d{1,19}"),
    ("RDEV", rb"\d{1,19}"),
    ("MTIME", rb"-?\d{1,19}\.\d{1,9}"),
)
_FIXED_FIELDS = 11
_U32_MAX = 0xFFFFFFFF
_LINK = -1
"""File type of a hard link, in place of one from its mode."""
_HEX_DIGITS = b"0123456789abcdef"
_ESCAPE = re.compile(rb"\\(?:([\\nrt])|x([0-9a-fA-F]{2})|)")
_NAMED = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_DEVICES = {layout.S_IFCHR, layout.S_IFBLK}
_SPECIAL_KINDS = {mode: kind for kind, mode in layout.SPECIAL_MODES.items()}
_TYPES = {layout.S_IFREG, layout.S_IFDIR, layout.S_IFLNK, *_SPECIAL_KINDS}


class _LineError(Exception):
    """A line is malformed; the reader adds its number."""


def _fail(message: str) -> NoReturn:
    raise _LineError(message)


class _Integers(dict[bytes, int]):
    """Decimal numbers already read; most fields repeat a few of them."""

    def __missing__(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > 19:  # noqa: PLR2004 - digits of u64
            raise ValueError
        value = self[text] = int(text)
        return value


class _Times(dict[bytes, tuple[int, int]]):
    """Times already read. Nanoseconds are a plain number: ``1.5`` is one second and five nanoseconds."""

    def __missing__(self, text: bytes) -> tuple[int, int]:
        seconds, _, nanoseconds = text.partition(b".")
        if not seconds.removeprefix(b"-").isdigit() or not nanoseconds.isdigit():
            raise ValueError
        time = int(seconds), int(nanoseconds)
        if not -(1 << 63) <= time[0] < 1 << 63 or time[1] > 999_999_999:  # noqa: PLR2004 - nanoseconds
            raise ValueError
        self[text] = time
        return time


class _Modes(dict[bytes, tuple[int, int]]):
    """Modes already read, as file type and permissions; bits above the type are ignored, as mkcomposefs does."""

    def __missing__(self, text: bytes) -> tuple[int, int]:
        digits = text.removeprefix(b"@")
        if not digits.isdigit() or len(digits) > 12:  # noqa: PLR2004 - u32 with room
            raise ValueError
        mode = int(digits, 8)
        kind = mode & layout.S_IFMT
        if kind not in _TYPES:
            _fail(f"mode {text.decode()} has no file type")
        if text[:1] == b"@":
            if kind == layout.S_IFDIR:
                _fail("directories cannot have hard links")
            kind = _LINK
        found = self[text] = kind, mode & 0o7777
        return found


class _Link(Leaf):
    """A hard link whose target may stand further down."""

    __slots__ = ("line", "target")

    def __init__(self, target: bytes, line: int) -> None:
        super().__init__(0)
        self.target = target
        self.line = line


def read_dump(dump: BinaryIO) -> Directory:
    """Read a tree. Hard links may stand before their targets; the final newline may be missing.

    Raises:
        ImageError: malformed; the message has the line number.
    """
    with collector_paused():
        return _Reader().read(dump)


class _Reader:
    """One dump file being read. ``line`` is the number of the line that errors are about."""

    def __init__(self) -> None:
        self.line = 0
        self.directories: dict[bytes, Directory] = {}
        self.links: list[tuple[Directory, bytes, _Link]] = []
        self.xattrs: dict[bytes, Xattrs] = {b"": ()}
        self.integers = _Integers()
        self.times = _Times()
        self.modes = _Modes()

    def read(self, dump: BinaryIO) -> Directory:
        line = b""
        try:
            for lines in self._batches(dump):
                for line in lines:
                    self.line += 1
                    self._add(line)
            root = self.directories.get(b"")
            if root is None:
                self.line = 1
                _fail("nothing describes the root directory")
            for parent, name, link in self.links:
                self.line = link.line
                parent.entries[name] = self._target(link)
        except _LineError as error:
            raise self._error(str(error)) from None
        except ValueError:
            raise self._error(_malformed_field(line)) from None
        return root

    def _error(self, what: str) -> ImageError:
        msg = f"line {self.line} of the dump file: {what}"
        return ImageError(msg, hint="composefs-dump(5) describes the format", facts={"line": self.line})

    def _batches(self, dump: BinaryIO) -> Iterator[list[bytes]]:
        rest = b""
        while chunk := dump.read(_CHUNK):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if b"\0" in chunk:
                self._refuse_nul([*lines, rest])
            yield lines
            if len(rest) > LINE_MAX:
                self.line += 1
                _fail(f"longer than {LINE_MAX} bytes")
        if rest:
            yield [rest]

    def _refuse_nul(self, lines: list[bytes]) -> NoReturn:
        self.line += 1 + next(at for at, line in enumerate(lines) if b"\0" in line)
        _fail("an embedded NUL")

    def _add(self, line: bytes) -> None:
        """Add what a line describes."""
        fields = line.split(b" ", _FIXED_FIELDS)
        text = fields.pop() if len(fields) > _FIXED_FIELDS else b""
        if len(fields) < _FIXED_FIELDS:
            fields += [b""] * (_FIXED_FIELDS - len(fields))
        path, size_text, mode_text, nlink_text, uid_text, gid_text, rdev, mtime, payload, content, digest = fields
        kind, mode = self.modes[mode_text]
        if b"\\" in path:
            path = _unescape(path)
        if kind == _LINK:
            self._add_link(path, payload)
            return
        integers = self.integers
        xattrs = self.xattrs.get(text)
        if xattrs is None:
            xattrs = self.xattrs[text] = _parse_xattrs(text)
        uid, gid, nlink = integers[uid_text], integers[gid_text], integers[nlink_text]
        if (uid | gid | nlink) > _U32_MAX:
            _fail("an owner, group or link count is over 4294967295")
        metadata = (mode, uid, gid, *self.times[mtime], xattrs)
        device = integers[rdev]
        size = integers[size_text]
        leaf: Leaf
        if kind == layout.S_IFREG:
            leaf = _regular_file(metadata, size, payload, content, digest)
        elif kind == layout.S_IFDIR:
            self._add_directory(path, Directory(*metadata))
            return
        elif kind == layout.S_IFLNK:
            leaf = Symlink(*metadata, _symlink_target(payload))
        else:
            leaf = Special(*metadata, _SPECIAL_KINDS[kind], device & _U32_MAX if kind in _DEVICES else 0)
        leaf.nlink = nlink
        parent, name = self._place(path)
        parent.entries[name] = leaf

    def _add_directory(self, path: bytes, directory: Directory) -> None:
        if path == b"/":
            if self.directories:
                _fail("a second root")
            self.directories[b""] = directory
            return
        parent, name = self._place(path)
        parent.entries[name] = self.directories[path] = directory

    def _place(self, path: bytes) -> tuple[Directory, bytes]:
        """Return parent and name of a new entry."""
        head, slash, name = path.rpartition(b"/")
        parent = self.directories.get(head) if slash else None
        if parent is None:
            if not self.directories:
                _fail("the root must come first")
            if not path.startswith(b"/"):
                _fail(f"PATH is {path[:80]!r}")
            _fail(f"no directory {head[:300]!r} for {path[:300]!r}")
        if not name or len(name) > layout.NAME_MAX or name in {b".", b".."} or b"\0" in name:
            _fail("the root must be a directory" if path == b"/" else f"{name[:300]!r} cannot be a file name")
        if name in parent.entries:
            _fail(f"{path[:300]!r} is there twice")
        return parent, name

    def _add_link(self, path: bytes, payload: bytes) -> None:
        if payload in {b"", b"-"}:
            _fail("a hard link without a target")
        link = _Link(_plain(payload), self.line)
        parent, name = self._place(path)
        parent.entries[name] = link
        self.links.append((parent, name, link))

    def _target(self, link: _Link) -> Leaf:
        """Follow a hard link, through other hard links, to a file."""
        trail: set[Node] = set()
        found: Node = link
        while isinstance(found, _Link):
            if found in trail:
                _fail("the hard link leads to itself")
            trail.add(found)
            path = b"/" + found.target.strip(b"/")
            head, _, name = path.rpartition(b"/")
            directory = self.directories.get(head)
            target = directory.entries.get(name) if directory is not None else None
            if path == b"/" or isinstance(target, Directory):
                _fail("directories cannot have hard links")
            if not isinstance(target, Leaf):
                _fail(f"no file {path[:300]!r} to link to")
            found = target
        return found  # type: ignore[return-value] # only leaves are assigned above


_Metadata = tuple[int, int, int, int, int, "Xattrs"]


def _malformed_field(line: bytes) -> str:
    for (name, pattern), text in zip(_FIELDS, line.split(b" "), strict=False):
        if not re.fullmatch(pattern, text, re.DOTALL):
            return f"{name} is {text[:80]!r}"
    return "a number is missing or out of range"


def _regular_file(metadata: _Metadata, size: int, payload: bytes, content: bytes, digest: bytes) -> RegularFile:
    file = RegularFile(*metadata)
    file.size = size
    if content != b"-":
        file.data = _content(content, size)
    elif size == 0:
        file.data = b""
    elif size > _SIZE_MAX:
        _fail(f"a file of {size} bytes is too big")
    elif digest == b"-" or not digest:
        file.path = _object_path(payload) or None
    else:
        if digest.translate(None, _HEX_DIGITS) or len(digest) not in _DIGEST_LENGTHS:
            digest = _lower_case(digest)
        file.object = ObjectId(digest.decode())
        if payload != digest[:2] + b"/" + digest[2:]:
            path = _object_path(payload)
            file.path = None if path == digest[:2] + b"/" + digest[2:] else path
    return file


_DIGEST_LENGTHS = (64, 128)


def _content(content: bytes, size: int) -> bytes:
    data = _plain(content)
    if len(data) != size:
        _fail(f"content of {len(data)} bytes, SIZE says {size}")
    if size > INLINE_MAX:
        _fail(f"{size} bytes of inline content; at most {INLINE_MAX} are allowed")
    return data


def _object_path(payload: bytes) -> bytes:
    """Return the path of a file's content, empty if there is none."""
    path = b"" if payload == b"-" else _plain(payload)
    if len(path) > layout.SYMLINK_MAX or b"\0" in path:
        _fail(f"an object path of {len(path)} bytes")
    return path


def _lower_case(digest: bytes) -> bytes:
    lower = digest.lower()
    if lower.translate(None, _HEX_DIGITS) or len(lower) not in _DIGEST_LENGTHS:
        _fail(f"DIGEST is {digest[:140]!r}, not 64 or 128 hex digits")
    return lower


def _symlink_target(payload: bytes) -> bytes:
    target = b"" if payload == b"-" else _plain(payload)
    if not 0 < len(target) <= layout.SYMLINK_MAX or b"\0" in target:
        _fail(
            f"a symbolic link with a target of {len(target)} bytes; 1 to {layout.SYMLINK_MAX} without NUL are allowed"
        )
    return target


def _parse_xattrs(text: bytes) -> Xattrs:
    """Read ``KEY=VALUE KEY=VALUE``; a later value of a key wins."""
    if len(text) > _XATTR_TEXT_MAX:
        _fail(f"more than {_XATTR_TEXT_MAX} bytes of extended attributes")
    found: dict[bytes, bytes] = {}
    for field in text.removesuffix(b" ").split(b" "):
        key, equals, value = field.partition(b"=")
        name = _plain(key)
        if not equals or not 0 < len(name) <= _XATTR_NAME_MAX or b"\0" in name:
            _fail(f"{field[:80]!r} is no extended attribute")
        found[name] = _plain(value)
    if 12 + sum(7 + len(name) + len(value) for name, value in found.items()) > _XATTRS_MAX:
        _fail(f"more than {_XATTRS_MAX} bytes of extended attributes")
    return tuple(sorted(found.items()))


def _plain(field: bytes) -> bytes:
    return _unescape(field) if b"\\" in field else field


def _unescape(field: bytes) -> bytes:
    return _ESCAPE.sub(_replacement, field)


def _replacement(match: re.Match[bytes]) -> bytes:
    named, digits = match.groups()
    if named:
        return _NAMED[named]
    if digits:
        return bytes.fromhex(digits.decode())
    found = match.string[match.start() : match.start() + 4]
    _fail(f"unknown escape {found!r}")
