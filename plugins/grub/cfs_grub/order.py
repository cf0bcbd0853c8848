"""The order in which GRUBs show Boot Loader Specification entries: by file name, descending."""

from __future__ import annotations

import enum
import re
from functools import cmp_to_key
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SEGMENT = re.compile(r"[0-9]+|[A-Za-z]+")


class Sorting(enum.StrEnum):
    """How a GRUB compares file names: Fedora's ``blscfg`` as packages, ``blsuki`` of 2.14 as gnulib's filevercmp."""

    RPM = "rpm"
    FILEVERCMP = "filevercmp"


def best_first(stems: Iterable[str], sorting: Sorting) -> list[str]:
    """Return names of entries (without ``.conf``) as the menu shows them."""
    compare = rpm_names if sorting is Sorting.RPM else file_versions
    return sorted(stems, key=cmp_to_key(compare), reverse=True)


def rpm_names(a: str, b: str) -> int:
    """Compare names read as NAME-VERSION-RELEASE (Fedora's blscfg.c)."""
    for part_a, part_b in zip(_package(a), _package(b), strict=True):
        result = rpm_versions(part_a, part_b)
        if result:
            return result
    return 0


def _package(stem: str) -> tuple[str, str, str]:
    parts = stem.rsplit("-", 2)
    return (parts[0], parts[1] if len(parts) > 1 else "", parts[2] if len(parts) == 3 else "")  # noqa: PLR2004


def rpm_versions(a: str, b: str) -> int:
    """Compare versions as GRUB's vercmp does: rpmvercmp with ``~`` before and ``+`` after the end."""
    while a or b:
        a, b = (re.sub(r"^[^0-9A-Za-z~+]+", "", text) for text in (a, b))
        for mark in "~+":
            if a[:1] == mark or b[:1] == mark:
                if mark == "+" and not (a and b):
                    return 1 if a else -1
                if a[:1] != b[:1]:
                    return 1 if b[:1] == mark else -1
                a, b = a[1:], b[1:]
                break
        else:
            if not (a and b):
                break
            result, a, b = _segment(a, b)
            if result:
                return result
    return bool(a) - bool(b)


def _segment(a: str, b: str) -> tuple[int, str, str]:
    first = _SEGMENT.match(a)
    second = _SEGMENT.match(b)
    if first is None or second is None or first[0][0].isdigit() != second[0][0].isdigit():
        return (1 if first is not None and first[0][0].isdigit() else -1), a, b
    x, y = first[0], second[0]
    if x[0].isdigit():
        x, y = x.lstrip("0"), y.lstrip("0")
        if len(x) != len(y):
            return (1 if len(x) > len(y) else -1), a, b
    return (x > y) - (x < y), a[first.end() :], b[second.end() :]


def file_versions(a: str, b: str) -> int:
    """Compare as gnulib's filevercmp, which GRUB 2.14 uses on names with ``.conf``."""
    a, b = a + ".conf", b + ".conf"
    for text_a, text_b in ((_prefix(a), _prefix(b)), (a, b)):
        result = _revisions(text_a, text_b)
        if result:
            return result
    return 0


def _prefix(name: str) -> str:
    suffix = re.search(r"(?:\.[A-Za-z~][A-Za-z0-9~]*)*$", name)
    return name[: suffix.start()] if suffix and suffix.start() else name


def _rank(text: str, position: int) -> int:
    if position >= len(text):
        return -1
    char = text[position]
    if char.isdigit():
        return 0
    if char.isascii() and char.isalpha():
        return ord(char)
    return -2 if char == "~" else ord(char) + 256


def _revisions(a: str, b: str) -> int:
    i = j = 0
    while i < len(a) or j < len(b):
        while (i < len(a) and not a[i].isdigit()) or (j < len(b) and not b[j].isdigit()):
            result = _rank(a, i) - _rank(b, j)
            if result:
                return 1 if result > 0 else -1
            i, j = i + 1, j + 1
        numbers = [re.compile("[0-9]*").match(text, start) for text, start in ((a, i), (b, j))]
        x, y = (number[0].lstrip("0") if number else "" for number in numbers)
        if (len(x), x) != (len(y), y):
            return 1 if (len(x), x) > (len(y), y) else -1
        i, j = (number.end() if number else 0 for number in numbers)
    return 0
