"""Owners in /var follow the deployment that runs: users and groups may have other numbers in the next one.

/var is one for all deployments, so its files can be right for one of them only. Which one that is stands in a journal
beside it; early boot brings them to what started, forth after an upgrade and back after a rollback.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cfs_core.lifecycle.etc_merge.accounts import numbers_of
from cfs_core.model.action import Attributes, WriteFile
from cfs_core.model.disk import Location, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.lifecycle.etc_merge.nodes import EtcTree
    from cfs_core.lifecycle.session import Session

JOURNAL = Location(Volume.ROOT, "/state/cfs/ownership.json")
VAR = "state/os/default/var"
UNIT = "/usr/lib/systemd/system/cfs-boot-ownership.service"
"""What changes owners when the next deployment starts; an image without it cannot be given other numbers."""

_VERSION = 1
_CAPABILITIES = "security.capability"

Numbers = Mapping[str, Mapping[str, int]]
"""``user`` and ``group``, each with numbers by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """Whose numbers /var has (``of``), those of each deployment, and changes that were begun: path, user, group."""

    of: str
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    to: str | None = None
    pending: tuple[tuple[str, int, int], ...] = ()

    def action(self) -> WriteFile:
        """Return what writes it. Paths need not be UTF-8."""
        document = {
            "version": _VERSION,
            "of": self.of,
            "numbers": self.numbers,
            "to": self.to,
            "pending": [list(each) for each in self.pending],
        }
        data = json.dumps(document, sort_keys=True).encode() + b"\n"
        return WriteFile(location=JOURNAL, data=data, attributes=Attributes(mode=0o600), why="whose numbers /var has")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipResult:
    """``nothing`` to do, or ``changed``, and how many files."""

    result: str
    image_id: str | None = None
    files: int = 0


def read_journal(session: Session) -> Journal | None:
    """Return the journal; None where there is none, or a malformed one, which says nothing about any file."""
    try:
        found: Any = json.loads(session.target.read(JOURNAL))
        if found["version"] != _VERSION:
            return None
        pending = tuple((str(path), int(uid), int(gid)) for path, uid, gid in found["pending"])
        return Journal(of=str(found["of"]), numbers=dict(found["numbers"]), to=found["to"], pending=pending)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def record(session: Session, old: tuple[str, EtcTree], new: tuple[str, EtcTree]) -> None:
    """Note which numbers two deployments (id and /etc) have. Files are changed when the new one starts.

    Raises:
        DiskError: it cannot be written.
    """
    journal = read_journal(session) or Journal(of=old[0])
    numbers = {**journal.numbers, **{identity: numbers_of(tree) for identity, tree in (old, new)}}
    session.apply([replace(journal, numbers=numbers).action()])


def follow_ownership(session: Session) -> OwnershipResult:
    """Bring owners in /var to the numbers of what runs. Cut off anywhere, it goes on where it was.

    Raises:
        StateError: what runs is no deployment of this machine.
        DiskError, OSError: something cannot be written; the next boot goes on.
    """
    booted, journal = session.machine.require_booted().id, read_journal(session)
    if journal is None:
        return OwnershipResult(result="nothing", image_id=booted)
    top, count = session.places.sysroot / VAR, 0
    if journal.to is not None:
        count += _change(session, top, journal)
        journal = Journal(of=journal.to, numbers=journal.numbers)
    moves = _moves(journal.numbers.get(journal.of, {}), journal.numbers.get(booted, {}))
    if journal.of != booted and booted in journal.numbers:
        journal = replace(journal, to=booted, pending=tuple(_wanted(top, moves)))
        count += _change(session, top, journal)
        journal = Journal(of=booted, numbers=journal.numbers)
    there = {each.id for each in session.machine.status.deployments} | {journal.of}
    kept = {identity: each for identity, each in journal.numbers.items() if identity in there}
    session.apply([replace(journal, numbers=kept).action()])
    return OwnershipResult(result="changed" if count else "nothing", image_id=booted, files=count)


def _change(session: Session, top: Path, journal: Journal) -> int:
    """Write down what will be done, do it, sync. Numbers are absolute: done again it is the same."""
    session.apply([journal.action()])
    for path, uid, gid in journal.pending:
        with suppress(FileNotFoundError):
            change_owner(os.path.join(top, path), uid, gid)  # noqa: PTH118 - surrogates of undecodable names
    os.sync()
    return len(journal.pending)


def change_owner(path: str, uid: int, gid: int) -> None:
    """Give *path*, which is not followed, an owner; set-user-ID bits and capabilities stay, which chown takes away.

    Raises:
        OSError: not allowed, or it is not there.
    """
    before = os.lstat(path)
    capabilities = None
    if stat.S_ISREG(before.st_mode):
        with suppress(OSError):
            capabilities = os.getxattr(path, _CAPABILITIES, follow_symlinks=False)
    os.lchown(path, uid, gid)
    if stat.S_ISREG(before.st_mode) and before.st_mode & (stat.S_ISUID | stat.S_ISGID):
        os.chmod(path, stat.S_IMODE(before.st_mode), follow_symlinks=True)  # noqa: PTH101 - a regular file
    if capabilities is not None:
        os.setxattr(path, _CAPABILITIES, capabilities, follow_symlinks=False)


def _moves(before: Numbers, after: Numbers) -> dict[tuple[str, int], int]:
    """Return the new number by kind and old number, of names that both have."""
    return {
        (kind, number): after[kind][name]
        for kind in ("user", "group")
        for name, number in before.get(kind, {}).items()
        if after.get(kind, {}).get(name, number) != number
    }


def _wanted(top: Path, moves: Mapping[tuple[str, int], int]) -> Iterator[tuple[str, int, int]]:
    """Yield (path below *top*, user, group) of everything that *moves* change. No link is followed."""
    pending = [""] if moves else []
    while pending:
        place = pending.pop()
        with suppress(OSError), os.scandir(os.path.join(top, place)) as entries:  # noqa: PTH118 - see `_change`
            for entry in entries:
                status, path = entry.stat(follow_symlinks=False), os.path.join(place, entry.name)  # noqa: PTH118
                uid = moves.get(("user", status.st_uid), status.st_uid)
                gid = moves.get(("group", status.st_gid), status.st_gid)
                if (uid, gid) != (status.st_uid, status.st_gid):
                    yield path, uid, gid
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)


def renumbered_tree(merged: EtcTree, local: EtcTree, image: EtcTree) -> EtcTree:
    """Return *merged* in which files that got their owner on this machine have that owner's next number."""
    moves = _moves(numbers_of(local), numbers_of(merged))
    changed = dict(merged)
    for path, node in merged.items():
        mine, theirs = local.get(path), image.get(path)
        if mine is None or not moves:
            continue
        uid, gid = node.owner
        if uid == mine.uid and (theirs is None or theirs.uid != uid):
            uid = moves.get(("user", uid), uid)
        if gid == mine.gid and (theirs is None or theirs.gid != gid):
            gid = moves.get(("group", gid), gid)
        if (uid, gid) != node.owner:
            changed[path] = replace(node, uid=uid, gid=gid)
    return changed
