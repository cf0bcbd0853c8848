"""The hash by which ext4 orders the names in an indexed directory: half MD4 of signed characters (fs/ext4/hash.c)."""

from __future__ import annotations

import struct

HALF_MD4 = 1
"""As a directory's index names it; whether characters are signed is said once, in the superblock."""

_MASK = 0xFFFFFFFF
_K2, _K3 = 0x5A827999, 0x6ED9EBA1
_ASCII = 0x80
_CHUNK = 32
_END = 0x7FFFFFFF
_WORDS = struct.Struct(">8I")
_SHIFTS_1 = ((0, 3), (1, 7), (2, 11), (3, 19), (4, 3), (5, 7), (6, 11), (7, 19))
_SHIFTS_2 = ((1, 3), (3, 5), (5, 9), (7, 13), (0, 3), (2, 5), (4, 9), (6, 13))
_SHIFTS_3 = ((3, 3), (7, 9), (2, 11), (6, 15), (1, 3), (5, 9), (0, 11), (4, 15))


def name_hash(name: bytes, seed: tuple[int, int, int, int]) -> int:
    """Return the hash of *name*, whose lowest bit is free; *seed* is the superblock's, in four words."""
    state = seed
    for start in range(0, len(name), _CHUNK):
        state = _transformed(state, _words(name[start:]))
    found = state[1] & ~1
    return (_END - 1) << 1 if found == _END << 1 else found


def _words(rest: bytes) -> tuple[int, ...]:
    """Return the next 32 bytes as eight words, filled up with the length of all that is left."""
    length = len(rest)
    chunk = rest[:_CHUNK]
    if length >= _CHUNK and chunk.isascii():
        return _WORDS.unpack(chunk)
    pad = (length | length << 8) & 0xFFFF
    pad |= pad << 16
    pad &= _MASK
    words = []
    for start in range(0, len(chunk), 4):
        value = pad
        for byte in chunk[start : start + 4]:
            value = ((byte - 256 if byte >= _ASCII else byte) + (value << 8)) & _MASK
        words.append(value)
    return (*words, *[pad] * (8 - len(words)))


def _transformed(state: tuple[int, int, int, int], words: tuple[int, ...]) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for index, shift in _SHIFTS_1:
        a = (a + (d ^ (b & (c ^ d))) + words[index]) & _MASK
        a, b, c, d = d, (a << shift | a >> 32 - shift) & _MASK, b, c
    for index, shift in _SHIFTS_2:
        a = (a + (b & c) + ((b ^ c) & d) + words[index] + _K2) & _MASK
        a, b, c, d = d, (a << shift | a >> 32 - shift) & _MASK, b, c
    for index, shift in _SHIFTS_3:
        a = (a + (b ^ c ^ d) + words[index] + _K3) & _MASK
        a, b, c, d = d, (a << shift | a >> 32 - shift) & _MASK, b, c
    one, two, three, four = state
    return (one + a) & _MASK, (two + b) & _MASK, (three + c) & _MASK, (four + d) & _MASK
