"""Comparison of versions as the UAPI version format specification has it."""

from __future__ import annotations

from functools import cmp_to_key
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_VALID = _LETTERS | _DIGITS | frozenset("~-^.")


def _order(a: Any, b: Any) -> int:  # noqa: ANN401 - anything that can be compared
    return int(a > b) - int(a < b)


def _span(text: str, start: int, allowed: frozenset[str]) -> int:
    end = start
    while end < len(text) and text[end] in allowed:
        end += 1
    return end


def _segment(a: str, i: int, b: str, j: int) -> tuple[int, int, int]:
    """Compare the numbers or words at ``a[i]`` and ``b[j]``; return the order and where they end."""
    if a[i : i + 1] in _DIGITS or b[j : j + 1] in _DIGITS:
        end_a, end_b = _span(a, i, _DIGITS), _span(b, j, _DIGITS)
        if (end_a == i) != (end_b == j):
            return _order(end_a > i, end_b > j), end_a, end_b
        number_a, number_b = a[i:end_a].lstrip("0"), b[j:end_b].lstrip("0")
        return _order((len(number_a), number_a), (len(number_b), number_b)), end_a, end_b
    end_a, end_b = _span(a, i, _LETTERS), _span(b, j, _LETTERS)
    return _order(a[i:end_a], b[j:end_b]), end_a, end_b


def compare_versions(a: str, b: str) -> int:
    """Return -1, 0 or 1: is *a* older, as old, or newer than *b* (UAPI.10, systemd's strverscmp_improved)."""
    i = j = 0
    while True:
        while i < len(a) and a[i] not in _VALID:
            i += 1
        while j < len(b) and b[j] not in _VALID:
            j += 1
        for mark in "~-^.":
            # A pre-release (~) is older than the end of the string, so the end is looked at only after it.
            if mark == "-" and (i == len(a) or j == len(b)):
                return _order(i < len(a), j < len(b))
            here_a, here_b = a[i : i + 1] == mark, b[j : j + 1] == mark
            if here_a != here_b:
                return -1 if here_a else 1
            if here_a:
                i, j = i + 1, j + 1
        result, i, j = _segment(a, i, b, j)
        if result:
            return result


version_key: Callable[[str], Any] = cmp_to_key(compare_versions)
"""Sort key: oldest version first."""
