"""What differs in /etc of the machine that runs from the image it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.lifecycle.etc_merge.difference import differences
from cfs_core.lifecycle.etc_merge.scan import scan_directory
from cfs_core.lifecycle.states import state_of
from cfs_core.lifecycle.stored import stored_status

if TYPE_CHECKING:
    from cfs_core.lifecycle.etc_merge.difference import Difference
    from cfs_core.lifecycle.session import Session


def config_diff(session: Session) -> tuple[Difference, ...]:
    """Return what was added, removed and changed.

    Raises:
        StateError: what runs is no deployment of this machine.
        StorageError: its image is not in the repository.
    """
    booted = session.machine.require_booted()
    with session.repository() as repository:
        image = stored_status(repository, booted).etc()
        return tuple(differences(image, scan_directory(state_of(session, booted.id) / "etc")))
