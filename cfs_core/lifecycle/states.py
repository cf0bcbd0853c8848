"""Directories of deployments' state: they appear whole, and go away whole."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cfs_core.lifecycle.etc_merge.write import clear_flags
from cfs_core.model.action import MakeDirectory, RenamePath
from cfs_core.model.disk import Location, Volume
from cfs_core.model.places import DEPLOYMENTS

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.lifecycle.session import Session

OURS = Location(Volume.ROOT, "/state/cfs")
NEW, GONE = OURS / "new", OURS / "gone"
"""Where state is made before it has its name, and where it goes when it loses it. Nobody else looks here."""


def state_of(session: Session, identity: str) -> Path:
    """Return the directory of a deployment's state."""
    return session.places.sysroot / "state/deploy" / identity


def path_of(session: Session, location: Location) -> Path:
    """Return where a location of the root volume is."""
    return session.places.sysroot / location.path.lstrip("/")


def adopt(session: Session, identity: str) -> None:
    """Give state that was made at `NEW` its name, in one step.

    Raises:
        DiskError: it cannot be done; nothing has changed then.
    """
    discard(session, identity)
    why = "the state of the deployment is whole"
    session.apply([RenamePath(source=NEW / identity, location=DEPLOYMENTS / identity, why=why)])


def discard(session: Session, identity: str) -> None:
    """Take a deployment's state away, in one step for everybody who looks at the machine; missing is fine.

    Raises:
        DiskError: it cannot be done.
        OSError: what has lost its name already cannot be removed; `sweep` tries again.
    """
    if not session.target.exists(DEPLOYMENTS / identity):
        return
    remove_tree(path_of(session, GONE / identity))
    why = "nothing needs this state"
    session.apply(
        [
            MakeDirectory(location=GONE, why=why),
            RenamePath(source=DEPLOYMENTS / identity, location=GONE / identity, why=why),
        ]
    )
    remove_tree(path_of(session, GONE / identity))


def sweep(session: Session) -> None:
    """Remove what a crash left of state that had no name yet, or no more."""
    for place in (NEW, GONE):
        remove_tree(path_of(session, place))


def remove_tree(path: Path) -> None:
    """Remove a directory with everything in it, immutable files too; missing is fine.

    Raises:
        OSError: not allowed.
    """
    if not path.exists():
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        clear_flags(path)
        shutil.rmtree(path)
