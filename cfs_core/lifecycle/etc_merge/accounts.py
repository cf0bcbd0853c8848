"""Users and groups in a merged /etc: lines of shadow files that belong to nobody, and numbers that change."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.lifecycle.etc_merge.nodes import REGULAR, EtcNode, EtcTree
from cfs_core.model.content import BytesContent, read_all
from cfs_core.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_PAIRS = ((b"passwd", b"shadow"), (b"group", b"gshadow"))
_SHORT = 1 << 20
"""Bytes; longer account files are left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renumbered:
    """A user or group whose number is another in the merged files than now."""

    kind: str
    name: str
    old: int
    new: int


def without_orphans(tree: EtcTree, known: frozenset[bytes] = frozenset()) -> tuple[EtcTree, tuple[str, ...]]:
    """Take lines of users and groups that are not there out of the shadow files; return the tree and their names.

    systemd-sysusers stops at such a line when an image adds that user. *known* are names that are kept elsewhere
    (``/usr/lib/passwd`` of nss-altfiles).
    """
    changed = dict(tree)
    removed: list[str] = []
    for names, shadows in _PAIRS:
        there, shadow = _text(tree.get(names)), tree.get(shadows)
        text = _text(shadow)
        if there is None or text is None or shadow is None:
            continue
        present = known | {_name(line) for line in there.splitlines()}
        lines = text.splitlines(keepends=True)
        kept = [line for line in lines if _name(line) in present or not _name(line).strip() or line[:1] in b"+-#"]
        if len(kept) == len(lines):
            continue
        removed += [f"{shadows.decode()}: {_name(line).decode(errors='replace')}" for line in lines if line not in kept]
        data = b"".join(kept)
        changed[shadows] = replace(shadow, digest=Digest.of(data).hex, content=BytesContent(data), identity=None)
    return changed, tuple(removed)


def renumbered(local: EtcTree, merged: EtcTree) -> tuple[Renumbered, ...]:
    """Return users and groups whose numbers differ between *local* and *merged*."""
    found = []
    for kind, path in (("user", b"passwd"), ("group", b"group")):
        before, after = dict(_numbers(local.get(path))), dict(_numbers(merged.get(path)))
        found += [
            Renumbered(kind=kind, name=name, old=before[name], new=after[name])
            for name in sorted(before.keys() & after.keys())
            if before[name] != after[name]
        ]
    return tuple(found)


def numbers_of(tree: EtcTree) -> dict[str, dict[str, int]]:
    """Return the numbers of ``user`` and ``group`` by name."""
    return {kind: dict(_numbers(tree.get(path))) for kind, path in (("user", b"passwd"), ("group", b"group"))}


def owning(changed: tuple[Renumbered, ...], trees: Iterable[Path]) -> tuple[Renumbered, ...]:
    """Return those of *changed* to whose old number something below *trees* belongs. No link is followed."""
    left = {(each.kind, each.old): each for each in changed}
    found: list[Renumbered] = []
    pending = [str(tree) for tree in trees]
    while pending and left:
        place = pending.pop()
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                owners = (("user", status.st_uid), ("group", status.st_gid))
                found += [left.pop(key) for key in owners if key in left]
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return tuple(sorted(found, key=lambda each: (each.kind, each.name)))


def _numbers(node: EtcNode | None) -> Iterator[tuple[str, int]]:
    for line in (_text(node) or b"").splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit():  # noqa: PLR2004 - name, password, number
            yield fields[0].decode(errors="replace"), int(fields[2])


def _text(node: EtcNode | None) -> bytes | None:
    if node is None or node.kind != REGULAR or node.content is None or node.content.size > _SHORT:
        return None
    return read_all(node.content)


def _name(line: bytes) -> bytes:
    return line.split(b":", 1)[0].strip(b"\r\n")
