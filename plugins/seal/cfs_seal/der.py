"""The part of DER (X.690) that signatures of programs are written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

INTEGER, OCTETS, NULL, OID, SEQUENCE, SET = 0x02, 0x04, 0x05, 0x06, 0x30, 0x31
EXPLICIT_0, EXPLICIT_1, EXPLICIT_2, IMPLICIT_0 = 0xA0, 0xA1, 0xA2, 0x80
_LONG_LENGTH = 0x80
_LENGTH_BYTES = 4
_MULTI_BYTE_TAG = 0x1F


def element(tag: int, *parts: bytes) -> bytes:
    """Return one element with *parts* in it."""
    body = b"".join(parts)
    size = len(body)
    if size < _LONG_LENGTH:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG_LENGTH | len(length)]) + length + body


def integer(value: int) -> bytes:
    """Return a number that is not negative."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def set_of(*parts: bytes) -> bytes:
    """Return a SET OF, in DER's order."""
    return element(SET, *sorted(parts))


def oid(text: str) -> bytes:
    """Return an object identifier, from its numbers with dots."""
    first, second, *rest = map(int, text.split("."))
    out = bytearray([40 * first + second])
    for number in rest:
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(number & 0x7F | 0x80)
        out += bytes(reversed(digits))
    return element(OID, bytes(out))


@dataclass(frozen=True, slots=True)
class Element:
    """One element as it was read: ``raw`` with tag and length, ``body`` without."""

    tag: int
    body: bytes
    raw: bytes

    def children(self) -> list[Element]:
        """Return what is in it, one after the other.

        Raises:
            ImageError: malformed.
        """
        return list(read_all(self.body))


def read(data: bytes) -> Element:
    """Return the first element of *data*; what follows is left.

    Raises:
        ImageError: malformed.
    """
    head = data[:2]
    if len(head) < 2 or head[0] & _MULTI_BYTE_TAG == _MULTI_BYTE_TAG:  # noqa: PLR2004 - tag and length
        raise _malformed()
    start, size = 2, head[1]
    if size & _LONG_LENGTH:
        count = size & ~_LONG_LENGTH
        if not 0 < count <= _LENGTH_BYTES:
            raise _malformed()
        size = int.from_bytes(data[2 : 2 + count], "big")
        start += count
    if len(data) < start + size:
        raise _malformed()
    return Element(head[0], data[start : start + size], data[: start + size])


def read_all(data: bytes) -> Iterator[Element]:
    """Yield the elements that *data* is made of.

    Raises:
        ImageError: malformed.
    """
    while data:
        found = read(data)
        yield found
        data = data[len(found.raw) :]


def _malformed() -> ImageError:
    return ImageError("a signature is not DER", hint="sign the file again")
