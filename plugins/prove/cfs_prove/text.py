"""Console output as text: without what terminals obey, in lines as somebody at the terminal would see them."""

from __future__ import annotations

import re

TAIL_LINES = 25
LINE_LIMIT = 300
TAIL_BYTES = 64 * 1024

_MOVES = re.compile(r"\x1b\[[0-9;]*[HfJ]")
"""Moves of the cursor and cleared screens (ECMA-48: CUP, HVP, ED): what follows stands in another line."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def clean(data: bytes) -> str:
    """Return console output as text: line feeds, no escape sequences, ``?`` for what is not to be seen."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    text = _ESCAPES.sub("", _MOVES.sub("\n", text))
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def visible(text: str) -> str:
    """Return one line of what a guest said, shortened to 300 characters, ``?`` for what is not to be seen."""
    return "".join(char if char.isprintable() else "?" for char in text[:LINE_LIMIT])


def last_lines(data: bytes, count: int = TAIL_LINES) -> tuple[str, ...]:
    """Return the last *count* lines that say something, shortened to 300 characters."""
    lines = [line.rstrip()[:LINE_LIMIT] for line in clean(data[-TAIL_BYTES:]).splitlines()]
    return tuple([line for line in lines if line][-count:])
