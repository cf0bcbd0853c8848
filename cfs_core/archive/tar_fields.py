"""Parts of tar headers: numbers, checksums, pax records, and how bad ones are refused."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NoReturn
from zlib import adler32

from cfs_core.errors import ImageError, LimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cfs_core.model.tree import Xattrs

MAX_ID = 0xFFFF_FFFF
MAX_TIME = (1 << 63) - 1
_MAX_MAJOR, _MAX_MINOR = 1 << 12, 1 << 20
_FIELD_ENDS = b"\0 "
_WHITESPACE = b" \t\n\r\x0b\x0c"


class Extensions:
    """What extension headers say about the next entry; class attributes are the defaults, None says nothing."""

    long_name: bytes | None = None
    long_link: bytes | None = None
    pax: bytes | None = None
    path: bytes | None = None
    link: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_sec: int | None = None
    mtime_nsec: int = 0
    xattrs: Xattrs = ()
    length: int = 0
    sparse: Sequence[tuple[bytes, bytes]] = ()
    """Records of a sparse file: what follows ``GNU.sparse.`` in the key, and the value."""


def device_number(major: int, minor: int) -> int:
    """Combine both into the kernel's 32-bit form (new_encode_dev in include/linux/kdev_t.h).

    Raises:
        ImageError: does not fit.
    """
    if not (0 <= major < _MAX_MAJOR and 0 <= minor < _MAX_MINOR):
        msg = f"device number {major}:{minor} is out of range"
        raise ImageError(msg, hint="major numbers end at 4095 and minor numbers at 1048575")
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def check_sum(header: bytes) -> None:
    """Check a header's checksum; sums of signed bytes are accepted too, as old BSD tars made them."""
    # the low half of Adler-32 is 1 + the sum of the bytes modulo 65521, which fewer than 257 bytes cannot reach
    total = (adler32(header[:148]) & 0xFFFF) + (adler32(header[156:334]) & 0xFFFF) + (adler32(header[334:]) & 0xFFFF)
    total += 8 * 0x20 - 3
    stated = number(header[148:155] if header[155] == 0x20 else header[148:156], "checksum")  # noqa: PLR2004 - space
    if stated != total:
        signed = sum(struct.unpack("148b", header[:148])) + 8 * 0x20 + sum(struct.unpack("356b", header[156:]))
        if stated != signed:
            msg = "an entry's checksum is wrong"
            raise ImageError(
                msg, hint="this is not a tar stream, or it is damaged", facts={"expected": stated, "found": total}
            )


def number(field: bytes, what: str, *, signed: bool = False) -> int:
    """Read an octal or base-256 field; only times may be *signed*."""
    digits = field[:-1]
    if field[-1] in _FIELD_ENDS and digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            pass
    if field[0] & 0x80:
        if field[0] & 0x40:
            # GNU tar: two's complement, whose highest bit is the mark of the form itself
            value = int.from_bytes(field, "big", signed=True)
            if not signed:
                out_of_range(what, value)
            return value
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip(_WHITESPACE)
    if not digits:
        return 0
    if not _is_octal(digits):
        msg = f"an entry has the malformed {what} {field!r}"
        raise ImageError(msg)
    return int(digits, 8)


_is_octal = re.compile(rb"[0-7]+").fullmatch


# --- pax records ------------------------------------------------------------------------------


def read_pax(data: bytes, found: Extensions) -> dict[bytes, bytes]:
    """Read the records of a pax header into *found*; return extended attributes. Later records win.

    Raises:
        ImageError: malformed.
    """
    position, end = 0, len(data)
    xattrs: dict[bytes, bytes] = {}
    sparse: list[tuple[bytes, bytes]] = []
    while position < end:
        space = data.find(b" ", position, position + 9)
        digits = data[position:space]
        if space < 0 or not digits.isdigit():
            bad_pax()
        after = position + int(digits)
        equals = data.find(b"=", space, after)
        if equals <= space + 1 or after > end or data[after - 1] != 0x0A:  # noqa: PLR2004 - newline
            bad_pax()
        key, value = data[space + 1 : equals], data[equals + 1 : after - 1]
        position = after
        if key.startswith(b"SCHILY.xattr."):
            xattrs[key[13:]] = value
        elif (known := _PAX_KEYS.get(key)) is not None:
            reader, attribute = known
            if value:
                reader(value, found)
            else:
                # POSIX.1-2017 pax: an empty value takes back what an earlier record said
                setattr(found, attribute, None)
        elif key.startswith(b"GNU.sparse."):
            sparse.append((key[11:], value))
    found.sparse = sparse
    return xattrs


def _decimal(value: bytes, what: str, limit: int) -> int:
    if not value.isdigit() or len(value) > 20:  # noqa: PLR2004 - digits of 2**64
        msg = f"a pax record has the malformed {what} {value!r:.100}"
        raise ImageError(msg)
    number = int(value)
    if number > limit:
        out_of_range(what, number)
    return number


def _pax_path(value: bytes, found: Extensions) -> None:
    if b"\0" in value:
        msg = f"a pax record has the impossible path {value!r:.100}"
        raise ImageError(msg)
    found.path = value


def _pax_link(value: bytes, found: Extensions) -> None:
    if b"\0" in value:
        msg = f"a pax record has the impossible link target {value!r:.100}"
        raise ImageError(msg)
    found.link = value


def _pax_size(value: bytes, found: Extensions) -> None:
    found.size = _decimal(value, "size", MAX_TIME)


def _pax_uid(value: bytes, found: Extensions) -> None:
    found.uid = _decimal(value, "user id", MAX_ID)


def _pax_gid(value: bytes, found: Extensions) -> None:
    found.gid = _decimal(value, "group id", MAX_ID)


def _pax_mtime(value: bytes, found: Extensions) -> None:
    before_1970 = value.startswith(b"-")
    whole, _, fraction = value[before_1970:].partition(b".")
    if fraction and not fraction.isdigit():
        msg = f"a pax record has the malformed modification time {value!r:.100}"
        raise ImageError(msg)
    seconds = _decimal(whole, "modification time", MAX_TIME)
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    if before_1970:
        # -1.5 is half a second after -2: nanoseconds count upwards (struct timespec)
        seconds, nanoseconds = (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)
    found.mtime_sec, found.mtime_nsec = seconds, nanoseconds


_PAX_KEYS: dict[bytes, tuple[Callable[[bytes, Extensions], None], str]] = {
    b"path": (_pax_path, "path"),
    b"linkpath": (_pax_link, "link"),
    b"size": (_pax_size, "size"),
    b"uid": (_pax_uid, "uid"),
    b"gid": (_pax_gid, "gid"),
    b"mtime": (_pax_mtime, "mtime_sec"),
}


# --- refusals ---------------------------------------------------------------------------------


def shown(name: bytes) -> str:
    """Return a name for messages."""
    text = name.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 200 else text[:200] + "...")  # noqa: PLR2004 - enough to find it


def over(what: str, limit: int, setting: str | None = None) -> NoReturn:
    """Refuse more than *limit* of *what*; without a *setting* to change it is Linux that can hold no more."""
    msg = f"the layer has more than {limit} {what}"
    hint = raising(setting) if setting else "Linux holds no more: make the image again without it"
    raise LimitError(msg, hint=hint, facts={"limit": limit} | ({"setting": setting} if setting else {}))


def raising(setting: str) -> str:
    """Return the hint of a limit that whoever runs cfs may raise."""
    return f"if the image is meant to be like this, set {setting} to more (see `cfs config show`)"


def truncated(where: str) -> NoReturn:
    """Refuse a stream that ends there."""
    msg = f"the layer ends in the middle of {where}"
    raise ImageError(msg, hint="the image was not written completely; make or copy it again")


def out_of_range(what: str, value: int) -> NoReturn:
    """Refuse a number."""
    msg = f"an entry has the impossible {what} {value}"
    raise ImageError(msg)


def bad_pax() -> NoReturn:
    """Refuse a pax header."""
    msg = "a pax header is malformed"
    raise ImageError(msg, hint="the tool that made this layer writes broken pax headers")


def refuse_sparse() -> NoReturn:
    """Refuse a sparse file."""
    msg = "the layer has a sparse file in it"
    raise ImageError(msg, hint="make the layer without sparse files (GNU tar: without --sparse)")


def bad_sparse() -> NoReturn:
    """Refuse a sparse file whose map is none."""
    msg = "the map of a sparse file is malformed"
    raise ImageError(
        msg, hint="make the archive again; without sparse files (GNU tar: without --sparse) it has no maps"
    )


def unsupported(kind: int, path: bytes) -> NoReturn:
    """Refuse an entry type."""
    msg = f"{shown(path)} has the unsupported tar entry type {chr(kind)!r}"
    raise ImageError(msg)
