"""Writes tar members with PAX headers, names and link targets as raw bytes, sparse files as GNU.sparse 1.0."""

from __future__ import annotations

from dataclasses import dataclass

RECORD = 512
_MAX_OCTAL = {7: 0o7777777, 11: 0o77777777777}


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """What a header says. ``kind`` is the type flag: ``0`` file, ``1`` hard link, ``2`` symlink, ``3``-``6`` others."""

    path: bytes
    kind: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    other_times: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)


def header(member: TarMember, *, sparse: tuple[tuple[int, int], ...] = ()) -> bytes:
    """Return PAX and ustar headers of *member*, and for a sparse one the map of its data areas (offset, length).

    The bytes of the areas follow, then zeros up to a multiple of 512.
    """
    # Without it libarchive takes names for UTF-8 and converts them, and what is none is lost on the way.
    records = [(b"hdrcharset", b"BINARY")]
    size = member.size
    data_map = b""
    if sparse:
        numbers = [len(sparse), *(number for area in sparse for number in area)]
        data_map = "".join(f"{number}\n" for number in numbers).encode()
        data_map = data_map.ljust(-(-len(data_map) // RECORD) * RECORD, b"\0")
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", member.path),
            (b"GNU.sparse.realsize", b"%d" % size),
        ]
        size = len(data_map) + sum(length for _, length in sparse)
    records.append((b"path", member.path))
    if member.link:
        records.append((b"linkpath", member.link))
    numeric = {b"uid": (member.uid, 7), b"gid": (member.gid, 7), b"size": (size, 11), b"mtime": (member.mtime, 11)}
    records += [
        (key, b"%d" % value) for key, (value, digits) in numeric.items() if not 0 <= value <= _MAX_OCTAL[digits]
    ]
    records += [(b"atime", b"%d" % member.other_times), (b"ctime", b"%d" % member.other_times)]
    body = b"".join(_record(key, value) for key, value in records)
    padded = body.ljust(-(-len(body) // RECORD) * RECORD, b"\0")
    extension = _ustar(TarMember(path=b"", kind=b"x"), len(body))
    return extension + padded + _ustar(member, size) + data_map


def padding(size: int) -> bytes:
    """Return the zeros behind *size* bytes of content."""
    return bytes(-size % RECORD)


def end() -> bytes:
    """Return the two zero records that end an archive."""
    return bytes(2 * RECORD)


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    total = length + len(str(length))
    total = length + len(str(total))
    return b"%d %s=%s\n" % (total, key, value)


def _octal(value: int, digits: int) -> bytes:
    return b"%0*o\0" % (digits, value if 0 <= value <= _MAX_OCTAL[digits] else 0)


def _ustar(member: TarMember, size: int) -> bytes:
    head = b"".join(
        (
            # Never used: the pax record has the path, whatever its length and bytes. One way for all is enough.
            b"m".ljust(100, b"\0"),
            _octal(member.mode, 7),
            _octal(member.uid, 7),
            _octal(member.gid, 7),
            _octal(size, 11),
            _octal(member.mtime, 11),
            b"        ",
            member.kind,
            (b"m" if member.link else b"").ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(member.device[0], 7),
            _octal(member.device[1], 7),
            bytes(167),
        )
    )
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]
