"""The order in which systemd-boot shows entries, and which one it takes by itself."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from functools import cmp_to_key
from typing import TYPE_CHECKING

from cfs_core.bls import EntryName, compare_versions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.bls import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the loader compares: the entry's id (file name, small letters, no counter) and three of its fields."""

    key: str
    id: str
    sort_key: str | None
    machine_id: str
    version: str
    tries_left: int | None
    tries_done: int = 0

    @classmethod
    def of(cls, key: str, name: EntryName, fields: Fields) -> Shown:
        """Take it from an entry file; *key* is what the caller knows it by."""
        return cls(
            key=key,
            id=f"{name.stem}.conf".lower(),
            sort_key=fields.first("sort-key"),
            machine_id=fields.first("machine-id") or "",
            version=fields.first("version") or "",
            tries_left=name.tries_left,
            tries_done=name.tries_done,
        )


def _order(a: Shown, b: Shown) -> int:
    """Compare as boot_entry_compare() of systemd's src/boot/boot.c (257) does."""
    steps: list[int] = [
        (a.tries_left == 0) - (b.tries_left == 0),
        (a.sort_key is None) - (b.sort_key is None),
    ]
    if a.sort_key is not None and b.sort_key is not None:
        steps += [
            (a.sort_key > b.sort_key) - (a.sort_key < b.sort_key),
            (a.machine_id > b.machine_id) - (a.machine_id < b.machine_id),
            -compare_versions(a.version, b.version),
        ]
    steps.append(-compare_versions(a.id, b.id))
    if a.tries_left is not None and b.tries_left is not None:
        steps += [b.tries_left - a.tries_left, a.tries_done - b.tries_done]
    return next((step for step in steps if step), 0)


def in_order(entries: Iterable[Shown]) -> list[Shown]:
    """Return *entries* as the menu shows them."""
    return sorted(entries, key=cmp_to_key(_order))


def matches(pattern: str, entry: Shown) -> bool:
    """Return whether ``default PATTERN`` of loader.conf means *entry*."""
    return fnmatch.fnmatchcase(entry.id, pattern.lower())


def chosen(ordered: list[Shown], pattern: str | None) -> Shown | None:
    """Return what is started when nobody chooses: the first that *pattern* means, else the first."""
    if pattern is not None:
        for entry in ordered:
            if matches(pattern, entry):
                return entry
    return ordered[0] if ordered else None
