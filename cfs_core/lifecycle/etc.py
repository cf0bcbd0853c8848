"""The /etc of a new deployment: planned when it is staged, written when the machine shuts down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfs_core.errors import StateError
from cfs_core.image.etc_mount import CONFIG, etc_mount
from cfs_core.lifecycle.etc_merge.accounts import Renumbered, owning, renumbered, without_orphans
from cfs_core.lifecycle.etc_merge.labels import labelled
from cfs_core.lifecycle.etc_merge.nodes import DIRECTORY, EtcNode
from cfs_core.lifecycle.etc_merge.rules import Merge, Note, OnConflict, merge
from cfs_core.lifecycle.etc_merge.scan import scan_directory
from cfs_core.lifecycle.etc_merge.write import write_tree
from cfs_core.lifecycle.ownership import renumbered_tree
from cfs_core.lifecycle.states import remove_tree, state_of
from cfs_core.model.action import Attributes, ExchangePaths, RemovePath, WriteFile
from cfs_core.model.places import DEPLOYMENTS
from cfs_core.system.syncing import sync_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.interfaces.storage import StorageFormat, TreeReader
    from cfs_core.lifecycle.etc_merge.nodes import EtcTree
    from cfs_core.lifecycle.session import Session
    from cfs_core.lifecycle.stored import StoredDeployment

MERGING, LOST, REPORT = "etc.merging", "etc-lost", "etc-merge.json"
_SHOWN = 3
_PLAIN = EtcNode(kind=DIRECTORY, mode=0o700)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcPlan:
    """What /etc of a deployment will be; ``tree`` None: as the image has it, nothing is carried over.

    ``renumbered`` are users and groups that get another number, and own something in /etc or /var by the one they have.
    """

    tree: EtcTree | None
    merged: Merge
    orphans: tuple[str, ...] = ()
    renumbered: tuple[Renumbered, ...] = ()
    local: EtcTree | None = None
    """/etc as it is now."""

    def report(self) -> dict[str, Any]:
        """Return what somebody may want to know, for JSON."""
        return {
            "carried": self.tree is not None,
            "conflicts": [_told(note) for note in self.merged.conflicts],
            "notes": [_told(note) for note in self.merged.notes],
            "orphans": list(self.orphans),
            "renumbered": [
                {"kind": each.kind, "name": each.name, "old": each.old, "new": each.new} for each in self.renumbered
            ],
        }


def _told(note: Note) -> dict[str, str]:
    return {"path": "/etc/" + note.path.decode("utf-8", "backslashreplace"), "rule": note.rule, "message": note.message}


def plan_etc(
    session: Session,
    old: StoredDeployment,
    new: StoredDeployment,
    storage: StorageFormat,
    on_conflict: OnConflict,
    *,
    fix_ownership: bool = False,
) -> EtcPlan:
    """Merge the /etc of deployment *old*, as it is on the machine now, into that of *new*; write nothing.

    With *fix_ownership*, files of users and groups that get another number there get it, too.

    Raises:
        StateError: the images keep /etc in ways that do not go together.
        ImageError, StorageError: an image has no /etc, or is damaged.
        OSError: /etc cannot be read.
    """
    before, after = etc_mode(old.deployed), etc_mode(new.deployed)
    if after not in {"bind", "overlay"}:
        return EtcPlan(tree=None, merged=Merge())
    if before not in {"bind", "overlay"}:
        return EtcPlan(tree=None, merged=Merge())
    if before != after:
        msg = f"the running image keeps /etc by {before}, and the next one by {after}: it cannot be carried over"
        raise StateError(msg, hint=f"install anew, or make both images agree in {CONFIG}")
    local = scan_directory(state_of(session, old.id) / "etc")
    if before == "overlay":
        return EtcPlan(tree=local, merged=Merge(tree=local))
    image = new.etc()
    merged = merge(old.etc(), local, image, on_conflict)
    tree = labelled(merged.tree, [path for path in merged.local if path not in image], new.deployed, storage)
    tree, orphans = without_orphans(tree, _elsewhere(new.deployed))
    places = (state_of(session, old.id) / "etc", session.places.sysroot / "state/os/default/var")
    changed = owning(renumbered(local, tree), places)
    if fix_ownership and changed:
        tree = renumbered_tree(tree, local, image)
    return EtcPlan(tree=tree, merged=merged, orphans=orphans, renumbered=changed, local=local)


def refuse_conflicts(plan: EtcPlan, on_conflict: OnConflict) -> None:
    """Stop where nobody wins.

    Raises:
        StateError: with all conflicts in ``facts['conflicts']`` (code ``state.etc-conflict``).
    """
    conflicts = plan.report()["conflicts"]
    if not conflicts or on_conflict is not OnConflict.FAIL:
        return
    paths = ", ".join(each["path"] for each in conflicts[:_SHOWN])
    more = f" and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
    msg = f"/etc cannot be merged: {paths}{more}; {conflicts[0]['path']} {conflicts[0]['message']}"
    hint = "settle it there, or pass --etc-conflicts local or --etc-conflicts image"
    raise StateError(msg, hint=hint, code="state.etc-conflict", facts={"conflicts": conflicts})


def write_etc(session: Session, identity: str, plan: EtcPlan) -> Iterator[WriteFile | ExchangePaths | RemovePath]:
    """Write what *plan* says beside the etc of deployment *identity*, and yield what makes it its own.

    Until the exchange is done nothing has changed; done again, it is made again from the start.

    Raises:
        OSError: no space, not writable.
    """
    folder = state_of(session, identity)
    where = DEPLOYMENTS / identity
    for name in (MERGING, LOST):
        remove_tree(folder / name)
    if plan.tree is not None:
        write_tree(plan.tree, folder / MERGING)
        if plan.merged.lost:
            _write_lost(plan.merged.lost, folder / LOST)
        sync_filesystem(folder)
    report = json.dumps(plan.report(), indent=1).encode() + b"\n"
    yield WriteFile(location=where / REPORT, data=report, attributes=Attributes(mode=0o600), why="what became of /etc")
    if plan.tree is not None:
        why = "the merged /etc takes its place"
        yield ExchangePaths(a=where / MERGING, b=where / "etc", why=why)


def etc_mode(image: TreeReader) -> str:
    """Return how early boot mounts /etc of *image*: ``bind``, ``overlay``, ``transient`` or ``none``."""
    mode = etc_mount(image)
    return mode if mode in {"none", "overlay", "transient"} else "bind"


def _write_lost(lost: EtcTree, top: Path) -> None:
    """Write what lost a conflict, with the directories that lead there."""
    tree: EtcTree = {}
    directory = next((node for node in lost.values() if node.is_directory), None)
    for path, node in lost.items():
        parts = path.split(b"/")
        for count in range(len(parts)):
            above = b"/".join(parts[:count])
            tree.setdefault(above, lost.get(above) or directory or _PLAIN)
        tree[path] = node
    write_tree(tree, top)


def _elsewhere(image: TreeReader) -> frozenset[bytes]:
    """Return names of users and groups that the image keeps in /usr/lib (nss-altfiles)."""
    found: set[bytes] = set()
    for path in ("/usr/lib/passwd", "/usr/lib/group"):
        text = image.read(path)
        found |= {line.split(b":", 1)[0] for line in (text or b"").splitlines()}
    return frozenset(found)
