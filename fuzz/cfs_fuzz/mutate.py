"""Seeded mutations of bytes: the same seed gives the same inputs, on every machine and without a fuzzer."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

_BYTES = (0, 1, 0x0A, 0x20, 0x22, 0x2E, 0x2F, 0x3D, 0x5B, 0x5C, 0x7B, 0x7F, 0x80, 0xFF)
_NUMBERS = (
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    4095,
    4096,
    65535,
    65536,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
_TEXTS = (
    b"-1",
    b"0",
    b"00",
    b"1e999",
    b"NaN",
    b"18446744073709551616",
    b"9" * 5000,
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    "٣".encode(),
    b"\xff\xfe",
    b"../",
    b"%00",
    b"\0",
    b"\r\n",
)
_LONGEST_PART = 1 << 15
_DIGITS = re.compile(rb"\d+")


def mutations(seed: int, corpus: Sequence[bytes], words: Sequence[bytes] = ()) -> Iterator[bytes]:
    """Yield mutations of the corpus, without end."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    while True:
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            chance.choice(_STEPS)(chance, data, words, corpus)
        yield bytes(data)


def _at(chance: random.Random, data: bytearray) -> int:
    """Return a place; every other time near the start, where the headers are."""
    end = min(len(data), 512) if chance.random() < 0.5 else len(data)
    return chance.randrange(end) if end else 0


def _flip(chance, data, _words, _corpus):
    if data:
        data[_at(chance, data)] ^= 1 << chance.randrange(8)


def _set(chance, data, _words, _corpus):
    if data:
        data[_at(chance, data)] = chance.choice((*_BYTES, chance.randrange(256)))


def _number(chance, data, _words, _corpus):
    width = chance.choice((2, 4, 8))
    if len(data) >= width:
        at = min(_at(chance, data), len(data) - width)
        value = chance.choice(_NUMBERS) % (1 << 8 * width)
        data[at : at + width] = value.to_bytes(width, chance.choice(("little", "big")))


def _digits(chance, data, _words, _corpus):
    found = list(_DIGITS.finditer(data[:65536]))
    if found:
        match = chance.choice(found)
        data[match.start() : match.end()] = chance.choice((*_TEXTS, str(chance.choice(_NUMBERS)).encode()))


def _word(chance, data, words, _corpus):
    at = _at(chance, data)
    text = chance.choice((*words, *_TEXTS))
    data[at : at + (len(text) if chance.random() < 0.5 else 0)] = text


def _repeat(chance, data, words, _corpus):
    at = _at(chance, data)
    part = chance.choice((*words, *(bytes([byte]) for byte in _BYTES))) * chance.choice((2, 30, 300, 3000))
    data[at:at] = part[:_LONGEST_PART]


def _remove(chance, data, _words, _corpus):
    at = _at(chance, data)
    del data[at : at + chance.choice((1, 4, 16, 512))]


def _cut(chance, data, _words, _corpus):
    del data[_at(chance, data) :]


def _double(chance, data, _words, _corpus):
    at = _at(chance, data)
    part = data[at : at + chance.choice((1, 8, 64, 512, 4096))]
    other = _at(chance, data)
    data[other:other] = part


def _splice(chance, data, _words, corpus):
    other = chance.choice(corpus)
    at = _at(chance, data)
    data[at:] = other[_at(chance, bytearray(other)) :]


_STEPS = (_flip, _flip, _set, _set, _number, _number, _digits, _word, _repeat, _remove, _cut, _double, _splice)
