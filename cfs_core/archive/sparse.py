"""Sparse members of GNU tar: where their content belongs (GNU tar manual, "Storing Sparse Files").

Four forms: the old one with type ``S``, and PAX 0.0, 0.1 and 1.0 with records ``GNU.sparse.…``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cfs_core.archive.tar_fields import bad_sparse, number, over, truncated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfs_core.archive.tar_fields import Extensions

BLOCK = 512
_OLD_KIND = ord("S")
_PAIR = 24
_DIGITS = 20
"""Of 2**64 in decimal."""


class SparseMember(NamedTuple):
    """What a sparse member holds. Sizes in bytes."""

    real_size: int
    """Of the file."""

    areas: tuple[tuple[int, int], ...]
    """Offset in the file and length of each stretch of content, in their order; the rest is zeros."""

    taken: bytes
    """What was read of the stream after the header to know this."""

    inside: int = 0
    """How much of that the header counts as content."""

    def check(self, stored: int) -> None:
        """Compare the map with the *stored* bytes of content.

        Raises:
            ImageError: areas overlap, go beyond the file, or are of another size.
        """
        end = 0
        for offset, length in self.areas:
            if offset < end:
                bad_sparse()
            end = offset + length
        if end > self.real_size or sum(length for _, length in self.areas) != stored:
            bad_sparse()


def is_sparse(header: bytes, extensions: Extensions | None) -> bool:
    """Return whether a member is one."""
    return header[156] == _OLD_KIND or (extensions is not None and bool(extensions.sparse))


def read_map(header: bytes, extensions: Extensions, read: Callable[[int], bytes], limit: int) -> SparseMember:
    """Read the map of a sparse member, and put its real name into *extensions*.

    Up to *limit* bytes of the map are in the stream after the header.

    Raises:
        ImageError: malformed, or truncated.
        LimitError: longer than *limit*.
    """
    if header[156] == _OLD_KIND:
        return _old_member(header, read, limit)
    found = dict(extensions.sparse)
    if found.get(b"name"):
        extensions.path = found[b"name"]
    if found.get(b"major", b"0") == b"1":
        areas, taken = _leading_map(read, limit)
        return SparseMember(_decimal(found.get(b"realsize", b"")), areas, taken, len(taken))
    if found.get(b"major", b"0") != b"0":
        bad_sparse()
    if b"map" in found:
        numbers = [_decimal(each) for each in found[b"map"].split(b",")] if found[b"map"] else []
    else:
        pairs = [each for each in extensions.sparse if each[0] in {b"offset", b"numbytes"}]
        if [key for key, _ in pairs] != [b"offset", b"numbytes"] * (len(pairs) // 2):
            bad_sparse()
        numbers = [_decimal(value) for _, value in pairs]
    return SparseMember(_decimal(found.get(b"size", b"")), _paired(numbers), b"")


def as_regular(header: bytes) -> bytes:
    """Return the *header* of a sparse member as that of a regular file."""
    return header[:156] + b"0" + header[157:] if header[156] == _OLD_KIND else header


def _old_member(header: bytes, read: Callable[[int], bytes], limit: int) -> SparseMember:
    areas = list(_pairs(header[386:482]))
    blocks: list[bytes] = []
    more = header[482]
    while more:
        if len(blocks) * BLOCK >= limit:
            over("bytes in the map of one sparse file", limit, "limits.extension-bytes")
        block = _block(read)
        blocks.append(block)
        areas += _pairs(block[:504])
        more = block[504]
    return SparseMember(number(header[483:495], "size of a sparse file"), tuple(areas), b"".join(blocks))


def _pairs(data: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, len(data), _PAIR):
        if not data[at + 12]:  # an unused one; one for a hole at the end has the length "0"
            return
        yield number(data[at : at + 12], "offset"), number(data[at + 12 : at + _PAIR], "length")


def _leading_map(read: Callable[[int], bytes], limit: int) -> tuple[tuple[tuple[int, int], ...], bytes]:
    """Read numbers in lines: how many pairs, then these; padded to blocks (PAX 1.0)."""
    blocks: list[bytes] = []
    numbers: list[int] = []
    rest = b""
    while not numbers or len(numbers) < 1 + 2 * numbers[0]:
        if len(blocks) * BLOCK >= limit:
            over("bytes in the map of one sparse file", limit, "limits.extension-bytes")
        blocks.append(_block(read))
        *lines, rest = (rest + blocks[-1]).split(b"\n")
        numbers += map(_decimal, lines)
    return _paired(numbers[1 : 1 + 2 * numbers[0]]), b"".join(blocks)


def _paired(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    if len(numbers) % 2:
        bad_sparse()
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > _DIGITS:
        bad_sparse()
    return int(value)


def _block(read: Callable[[int], bytes]) -> bytes:
    block = read(BLOCK)
    if len(block) != BLOCK:
        truncated("the map of a sparse file")
    return block
