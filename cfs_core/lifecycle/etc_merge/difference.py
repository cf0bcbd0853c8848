"""What differs in /etc from the image, as `cfs config-diff` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.lifecycle.etc_merge.nodes import parent, same
from cfs_core.lifecycle.etc_merge.rules import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.lifecycle.etc_merge.nodes import EtcNode, EtcTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One path below /etc. ``what`` are the parts that differ: content, kind, mode, owner, attributes."""

    path: str
    change: str
    """``added``, ``removed`` or ``modified``."""

    what: tuple[str, ...] = ()


def differences(image: EtcTree, local: EtcTree) -> Iterator[Difference]:
    """Yield what differs; of directories that were added or removed as a whole, the uppermost."""
    told: set[bytes] = set()
    for path in sorted(image.keys() | local.keys()):
        before, after = image.get(path), local.get(path)
        if path in NEVER or same(before, after) or parent(path) in told:
            if parent(path) in told and path:
                told.add(path)
            continue
        name = path.decode("utf-8", "surrogateescape") or "."
        if before is None or after is None:
            told.add(path)
            yield Difference(path=name, change="added" if before is None else "removed")
        else:
            yield Difference(path=name, change="modified", what=tuple(_parts(before, after)))


def _parts(before: EtcNode, after: EtcNode) -> Iterator[str]:
    if before.kind != after.kind:
        yield "kind"
    elif before.data != after.data:
        yield "content"
    if before.permissions != after.permissions:
        yield "mode"
    if before.owner != after.owner:
        yield "owner"
    if before.attributes != after.attributes:
        yield "attributes"
