"""Tar streams, member by member, with the raw bytes that make them up (POSIX.1-2017 pax and ustar; GNU tar)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cfs_core.archive.kinds import kind_of
from cfs_core.archive.sparse import as_regular, is_sparse, read_map
from cfs_core.archive.tar_fields import (
    MAX_ID,
    MAX_TIME,
    Extensions,
    bad_sparse,
    check_sum,
    device_number,
    number,
    out_of_range,
    over,
    read_pax,
    refuse_sparse,
    shown,
    truncated,
    unsupported,
)
from cfs_core.errors import ImageError
from cfs_core.model.layer import HardLink, LayerEntry, LayerMember, Opaque, Whiteout
from cfs_core.model.tree import Directory, Node, RegularFile, Special, SpecialKind, Symlink, Xattrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TarLimits", "TarSource", "read_members"]

BLOCK = 512
_REGULAR_KINDS = frozenset(b"\x0007")
_GLOBAL = ord("g")
_PLAIN_KINDS = frozenset(b"01234567")
_EXTENSION_KINDS = {
    ord("x"): ("pax", "pax"),
    ord("L"): ("long_name", "GNU long name"),
    ord("K"): ("long_link", "GNU long link"),
}
_ZERO_BLOCK = bytes(BLOCK)
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \x00"
_MAGICS = frozenset({_USTAR, _GNU})
# Thousands of entries share a few owners, times and sets of xattrs, and looking a field up is much cheaper than reading
# it. Whoever makes all of them different gets no memory out of us.
_CACHE_SIZE = 4096
_KINDS = {
    0x31: "hard link",
    0x32: "symbolic link",
    0x33: "character device",
    0x34: "block device",
    0x35: "directory",
    0x36: "fifo",
}


class TarSource(Protocol):
    """Where the bytes come from."""

    def read(self, count: int) -> bytes:
        """Return exactly *count* bytes, fewer only at the end of the stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TarLimits:
    """What one layer may ask for; sizes in bytes. Paths and extension headers are limited per entry."""

    entries: int = 1_000_000
    """Members of one layer."""

    file_bytes: int = 1 << 40
    """Content of one file."""

    path_bytes: int = 65_535
    """One path."""

    name_bytes: int = 255
    """One name between slashes."""

    path_depth: int = 256
    """Names in one path."""

    link_target_bytes: int = 4095
    """What a link holds."""

    extension_bytes: int = 1 << 20
    """One extension header."""

    xattr_count: int = 256
    """Extended attributes of one entry."""

    xattr_name_bytes: int = 255
    """One name of an attribute."""

    xattr_bytes: int = 64 * 1024
    """Names and values of one entry together."""


def read_members(
    source: TarSource, limits: TarLimits | None = None, *, with_sparse: bool = False
) -> Iterator[LayerMember]:
    """Yield the members of a tar stream; between two of them the caller takes ``member.size`` bytes from *source*.

    The last member has no entry and no content; its ``raw`` holds the end blocks. What follows is the caller's to read.
    Paths are normalised as composefs-rs does it (formats E.1). Accepted are ustar, GNU and pax archives; multi-volume
    archives and vendor types are refused, and sparse files but *with_sparse*: an archive of an image may have them, a
    layer may not.

    Raises:
        ImageError: malformed, truncated, or with paths that leave the tree.
        LimitError: more of something than *limits* allows.
    """
    return _Parser(source, limits or TarLimits(), with_sparse=with_sparse).members()


class _Parser:
    """One pass over one stream."""

    def __init__(self, source: TarSource, limits: TarLimits, *, with_sparse: bool) -> None:
        self._read: Callable[[int], bytes] = source.read
        self._limits = limits
        self._with_sparse = with_sparse
        self._xattr_sets: dict[Xattrs, Xattrs] = {}
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._times: dict[bytes, int] = {}
        self._name = b""
        """Of the entry that is read just now."""

        self._first = b""
        """The first block of the stream."""

    def members(self) -> Iterator[LayerMember]:  # noqa: C901 - hot path
        read, entry_of = self._read, self._entry
        entry: LayerEntry | None = None
        padding = 0
        try:
            for left in range(self._limits.entries, -1, -1):
                wanted = padding + BLOCK
                raw = read(wanted)
                if len(raw) != wanted:
                    yield LayerMember(_check_end(raw, padding), None, 0)
                    return
                header = raw[padding:]
                self._name = b""
                self._first = self._first or raw
                kind = header[156]
                extensions = None
                # Nearly all headers are plain ones: they take the short way past the tests for end blocks and
                # extensions.
                odd = kind not in _PLAIN_KINDS or not header[0]
                if odd:
                    if header == _ZERO_BLOCK:
                        yield LayerMember(raw + self._second_end_block(), None, 0)
                        return
                    if kind in _EXTENSION_KINDS:
                        raw, header, extensions = self._extensions(raw, header)
                check_sum(header)
                if not left:
                    over("entries in one layer", self._limits.entries, "limits.layer-entries")
                if header[156] == _GLOBAL:
                    raw, padding = raw + self._extension_data(header, 0)[1], 0
                    yield LayerMember(raw, None, 0)
                    continue
                if odd and is_sparse(header, extensions):
                    member = self._sparse(raw, header, extensions or Extensions())
                    entry, size = member.entry, member.size
                else:
                    entry, size = entry_of(header, extensions)
                    member = LayerMember(raw, entry, size)
                padding = -size % BLOCK
                yield member
        except ImageError as error:
            found = kind_of(self._first) if entry is None else None
            if found is not None:
                msg = f"the layer is {found}, not a tar archive"
                raise ImageError(msg, hint="make the layer anew, with tar", facts=error.facts) from error
            raise _located(error, self._name, entry) from error

    def _second_end_block(self) -> bytes:
        second = self._read(BLOCK)
        if second and second != _ZERO_BLOCK:
            msg = "the layer has a single zero block where an entry or two end blocks should be"
            raise ImageError(msg)
        return second

    # --- extension headers --------------------------------------------------------------------

    def _extensions(self, raw: bytes, header: bytes) -> tuple[bytes, bytes, Extensions]:
        parts = [raw]
        found = Extensions()
        while (kind := header[156]) in _EXTENSION_KINDS:
            check_sum(header)
            if header[257:265] not in _MAGICS:
                msg = f"an extension header of type {chr(kind)!r} is neither in ustar nor in GNU form"
                raise ImageError(msg)
            data, padded = self._extension_data(header, found.length)
            found.length += len(data)
            self._take(kind, data, found)
            parts.append(padded)
            header = self._read(BLOCK)
            if len(header) != BLOCK:
                truncated("an entry")
            if header == _ZERO_BLOCK or header[156] == _GLOBAL:
                msg = "an extension header is not followed by the entry it describes"
                raise ImageError(msg)
            parts.append(header)
        if found.pax is not None and (xattrs := read_pax(found.pax, found)):
            found.xattrs = self._intern(xattrs)
        return b"".join(parts), header, found

    def _extension_data(self, header: bytes, before: int) -> tuple[bytes, bytes]:
        """Return the data of an extension header, without and with its padding."""
        size = number(header[124:136], "size")
        if before + size > self._limits.extension_bytes:
            over("bytes of extension headers for one entry", self._limits.extension_bytes, "limits.extension-bytes")
        padded = self._read(size + -size % BLOCK)
        if len(padded) != size + -size % BLOCK:
            truncated("an extension header")
        return padded[:size], padded

    def _take(self, kind: int, data: bytes, found: Extensions) -> None:
        attribute, title = _EXTENSION_KINDS[kind]
        if getattr(found, attribute) is not None:
            msg = f"two {title} headers stand before one entry"
            raise ImageError(msg)
        if attribute != "pax" and not (data := data.rstrip(b"\0")):
            msg = f"a {title} header is empty"
            raise ImageError(msg)
        setattr(found, attribute, data)

    def _intern(self, xattrs: dict[bytes, bytes]) -> Xattrs:
        limits = self._limits
        if len(xattrs) > limits.xattr_count:
            over("extended attributes of one entry", limits.xattr_count, "limits.xattr-count")
        for name in xattrs:
            if not name or b"\0" in name:
                msg = f"an extended attribute has the impossible name {name!r:.100}"
                raise ImageError(msg)
            if len(name) > limits.xattr_name_bytes:
                over("bytes in the name of an extended attribute", limits.xattr_name_bytes)
        if sum(len(name) + len(value) for name, value in xattrs.items()) > limits.xattr_bytes:
            over("bytes of extended attributes of one entry", limits.xattr_bytes, "limits.xattr-bytes")
        ordered = tuple(sorted(xattrs.items()))
        if len(self._xattr_sets) >= _CACHE_SIZE:
            self._xattr_sets.clear()
        return self._xattr_sets.setdefault(ordered, ordered)

    # --- entries ------------------------------------------------------------------------------

    def _sparse(self, raw: bytes, header: bytes, extensions: Extensions) -> LayerMember:
        """Read the header of a sparse file, and the map of where its content belongs."""
        if not self._with_sparse:
            self._name = dict(extensions.sparse).get(b"name") or extensions.path or header[:100].partition(b"\0")[0]
            refuse_sparse()
        found = read_map(header, extensions, self._read, self._limits.extension_bytes)
        entry, size = self._entry(as_regular(header), extensions)
        if entry is None or not isinstance(entry.what, RegularFile):
            bad_sparse()
        found.check(size - found.inside)
        if found.real_size > self._limits.file_bytes:
            over("bytes in one file", self._limits.file_bytes, "limits.file-size")
        entry.what.size = found.real_size
        return LayerMember(raw + found.taken, entry, size - found.inside, found.areas)

    def _entry(self, header: bytes, extensions: Extensions | None) -> tuple[LayerEntry | None, int]:  # noqa: C901 - hot path
        name_end = header.find(b"\0", 0, 100)
        name = header[: name_end if name_end >= 0 else 100]
        if header[345] and header[257:265] == _USTAR:
            name = header[345:500].partition(b"\0")[0] + b"/" + name
        self._name = name
        mode, uid, gid = self._owners.get(header[100:124]) or self._owner(header[100:124])
        size = number(header[124:136], "size")
        mtime_sec = self._times.get(header[136:148]) or self._time(header[136:148])
        mtime_nsec = 0
        xattrs: Xattrs = ()
        link = None
        if extensions is not None:
            name = extensions.path or extensions.long_name or name
            link = extensions.link or extensions.long_link
            self._name = name
            size = size if extensions.size is None else extensions.size
            uid = uid if extensions.uid is None else extensions.uid
            gid = gid if extensions.gid is None else extensions.gid
            mtime_sec = mtime_sec if extensions.mtime_sec is None else extensions.mtime_sec
            mtime_nsec = extensions.mtime_nsec if extensions.mtime_sec is not None else 0
            xattrs = extensions.xattrs
        if not -MAX_TIME <= mtime_sec <= MAX_TIME:
            out_of_range("modification time", mtime_sec)

        path, last = self._path(name)
        kind = header[156]
        what: Node | HardLink
        if kind in _REGULAR_KINDS:
            if size > self._limits.file_bytes:
                over("bytes in one file", self._limits.file_bytes, "limits.file-size")
            if name[-1:] == b"/":
                msg = f"{shown(name)} is a regular file and is named like a directory"
                raise ImageError(msg, hint="readers of tar disagree about such entries; make the layer anew")
            what = RegularFile(mode, uid, gid, mtime_sec, mtime_nsec, xattrs)
            what.size = size
        else:
            if kind not in _KINDS:
                unsupported(kind, path)
            if size:
                msg = f"{shown(path)} is a {_KINDS[kind]} and claims {size} bytes of content"
                raise ImageError(msg)
            if kind == 0x35:  # noqa: PLR2004 - "5"
                what = Directory(mode, uid, gid, mtime_sec, mtime_nsec, xattrs)
            else:
                target = link or header[157:257].partition(b"\0")[0]
                what = self._leaf(header, target, path, (mode, uid, gid, mtime_sec, mtime_nsec, xattrs))
        if b"/.wh." in path and (b"/.wh..wh." in path or last.startswith(b".wh.")):
            return _whiteout(path, last), size
        return LayerEntry(path, what), size

    def _leaf(
        self, header: bytes, target: bytes, path: bytes, metadata: tuple[int, int, int, int, int, Xattrs]
    ) -> Node | HardLink:
        kind = header[156]
        if kind in {0x31, 0x32}:
            if not target or b"\0" in target:
                msg = f"{shown(path)} is a {_KINDS[kind]} to {'nowhere' if not target else 'a name with a NUL in it'}"
                raise ImageError(msg)
            if len(target) > self._limits.link_target_bytes:
                over("bytes in the target of a link", self._limits.link_target_bytes)
            if kind == 0x31:  # noqa: PLR2004 - "1"
                return HardLink(self._path(target)[0])
            return Symlink(*metadata, target)
        if kind == 0x36:  # noqa: PLR2004 - "6"
            return Special(*metadata, SpecialKind.FIFO)
        if header[257:265] not in _MAGICS:
            msg = f"{shown(path)} is a device in a header without device numbers"
            raise ImageError(msg)
        rdev = device_number(number(header[329:337], "device number"), number(header[337:345], "device number"))
        return Special(*metadata, SpecialKind.CHAR if kind == 0x33 else SpecialKind.BLOCK, rdev)  # noqa: PLR2004 - "3"

    def _owner(self, fields: bytes) -> tuple[int, int, int]:
        mode = number(fields[:8], "mode") & 0o7777
        uid, gid = number(fields[8:16], "user id"), number(fields[16:24], "group id")
        if uid > MAX_ID or gid > MAX_ID:
            out_of_range("user or group id", max(uid, gid))
        if len(self._owners) >= _CACHE_SIZE:
            self._owners.clear()
        self._owners[fields] = mode, uid, gid
        return mode, uid, gid

    def _time(self, field: bytes) -> int:
        value = number(field, "modification time", signed=True)
        if len(self._times) >= _CACHE_SIZE:
            self._times.clear()
        self._times[field] = value
        return value

    def _path(self, name: bytes) -> tuple[bytes, bytes]:
        """Return the normalised absolute path and its last component, which is empty for the root."""
        limits = self._limits
        length = len(name)
        if length > limits.path_bytes:
            over("bytes in one path", limits.path_bytes, "limits.path-bytes")
        if not length:
            msg = "an entry has no name"
            raise ImageError(msg)
        if name.startswith(b"./"):
            name = name[2:]
        parts = name.rstrip(b"/").split(b"/")
        if b"" in parts or b"." in parts:
            parts = [part for part in parts if part not in {b"", b"."}]
            if not parts:
                return b"/", b""
        if b".." in parts:
            msg = f"{shown(name)} leaves the tree"
            raise ImageError(msg, hint="paths of a layer must not contain '..'")
        if b"\0" in name:
            msg = f"{shown(name)} has a NUL in it"
            raise ImageError(msg)
        if len(parts) > limits.path_depth:
            over("components in one path", limits.path_depth, "limits.path-depth")
        if length > limits.name_bytes and max(map(len, parts)) > limits.name_bytes:
            over("bytes in one file name", limits.name_bytes)
        return b"/" + b"/".join(parts), parts[-1]


def _whiteout(path: bytes, last: bytes) -> LayerEntry | None:
    """Return what a marker says; None for what AUFS kept for itself in a layer (aufs(5): ``.wh..wh.plnk``, …)."""
    directory = path[: -len(last) - 1]
    if last == b".wh..wh..opq" and b"/.wh..wh." not in directory:
        return LayerEntry(directory or b"/", Opaque())
    if b"/.wh..wh." in path:
        return None
    name = last[4:]
    if name in {b"", b".", b".."}:
        msg = f"{shown(path)} is a whiteout of nothing"
        raise ImageError(msg)
    return LayerEntry(directory + b"/" + name, Whiteout())


def _located(error: ImageError, name: bytes, before: LayerEntry | None) -> ImageError:
    """Return *error* with the entry it is about: its name where that was read, else that of the one before."""
    where = f" (in the entry {shown(name)})" if name else f" (after the entry {shown(before.path)})" if before else ""
    known = shown(name.strip(b"/")).strip("'\"") if name else ""
    message = error.message if known and known in error.message else error.message + where
    facts = {"after_entry": shown(before.path) if before else None, **error.facts}
    return type(error)(message, hint=error.hint, facts=facts)


def _check_end(raw: bytes, padding: int) -> bytes:
    """Accept an end without end blocks at a place where an entry could start."""
    if len(raw) != padding:
        truncated("an entry" if len(raw) > padding else "the padding after a file")
    return raw
