"""Finalizing: when services have ended, /etc is merged and the new deployment becomes what starts.

Each step can be run again. Until the menu changes the machine starts what it started before, with its own /etc.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cfs_core.deploy.choose import choose_architecture
from cfs_core.errors import StateError
from cfs_core.image.resolve import host_platform
from cfs_core.lifecycle import menus
from cfs_core.lifecycle.addons import AddonChoice, carried
from cfs_core.lifecycle.arguments import next_arguments
from cfs_core.lifecycle.document import verity_optional
from cfs_core.lifecycle.entry import entry_of, running_arguments, settled_artifacts
from cfs_core.lifecycle.etc import MERGING, EtcPlan, plan_etc, refuse_conflicts, write_etc
from cfs_core.lifecycle.etc_merge.rules import OnConflict
from cfs_core.lifecycle.loader_update import LoaderUpdate, update_loader
from cfs_core.lifecycle.ownership import record
from cfs_core.lifecycle.records import Failure
from cfs_core.lifecycle.staging import read_details, tries_of
from cfs_core.lifecycle.states import remove_tree, state_of
from cfs_core.lifecycle.stored import StoredDeployment, stored_status
from cfs_core.model.boot import EntryKind
from cfs_core.model.event import Event

if TYPE_CHECKING:
    from cfs_core.image.reader import ImageReader
    from cfs_core.interfaces.storage import Repository
    from cfs_core.lifecycle.session import Session
    from cfs_core.model.boot import BootEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeResult:
    """What the shutdown did: ``nothing``, or what will start now."""

    result: str
    why: str = ""
    image_id: str | None = None
    conflicts: int = 0
    dropped: tuple[str, ...] = ()
    loader: LoaderUpdate | None = None


def finalize(session: Session, on_conflict: OnConflict | None = None) -> FinalizeResult:
    """Make what is staged the default.

    Raises:
        CfsError: the machine starts what it started before; the reason is kept, and `cfs status` tells it.
    """
    staged, deployment = session.machine.running.staged, session.machine.staged
    if staged is None:
        return FinalizeResult(result="nothing", why="nothing is staged")
    if staged.locked:
        return FinalizeResult(result="nothing", why="what is staged was downloaded only", image_id=staged.id)
    if deployment is None:
        msg = f"{staged.id:.16}… is staged, and its state is not there"
        raise StateError(msg, hint="run `cfs upgrade` again")
    try:
        return _finalize(session, staged.id, on_conflict)
    except Exception as cause:
        failure = Failure(manifest_digest=None, tries=0, reason=f"finalizing failed: {cause}")
        session.keep(session.machine.records.with_failure(staged.id, failure))
        raise


def _finalize(session: Session, identity: str, on_conflict: OnConflict | None) -> FinalizeResult:
    choice = on_conflict or OnConflict(session.services.settings.value("upgrade.etc-conflicts"))
    with session.repository() as repository:
        merged, entry, etc = _planned(session, repository, identity, choice)
        refuse_conflicts(etc, choice)
        session.apply(write_etc(session, identity, etc))
        remove_tree(state_of(session, identity) / MERGING)
        keep = int(session.services.settings.value("deployments.keep"))
        menu = menus.with_new(session.machine, entry, keep=keep)
        gone = menus.dropped(session.machine, menu)
        session.write_menu(menu)
        loader = update_loader(session, merged)
    session.stage(None)
    records = session.machine.records
    failed = {name: each for name, each in records.failed.items() if name != identity}
    session.keep(replace(records, failed=failed))
    session.services.emit(Event(name="deployment.finalized", facts={"image_id": identity}))
    return FinalizeResult(
        result="finalized", image_id=identity, conflicts=len(etc.merged.conflicts), dropped=gone, loader=loader
    )


def _planned(
    session: Session, repository: Repository, identity: str, on_conflict: OnConflict
) -> tuple[ImageReader, BootEntry, EtcPlan]:
    booted = session.machine.require_booted()
    staged = session.machine.status.get(identity)
    if staged is None:
        msg = f"deployment {identity:.16}… is not there"
        raise StateError(msg, hint="run `cfs upgrade` again")
    old, new = stored_status(repository, booted), stored_status(repository, staged)
    details = read_details(session, identity)
    fix = bool(details.get("fix_ownership"))
    etc = plan_etc(session, old, new, session.storage(), on_conflict, fix_ownership=fix)
    if fix and etc.tree is not None and etc.local is not None:
        record(session, (booted.id, etc.local), (identity, etc.tree))
    merged = new.merged()
    artifacts = settled_artifacts(session, merged)
    arguments = tuple(details["arguments"]) if "arguments" in details else _arguments(session, old, new)
    if artifacts.kind is EntryKind.UKI:
        artifacts = _addons(session, old, details).of(artifacts)
    entry = entry_of(identity, artifacts, arguments)
    tries = details["tries"] if "tries" in details else tries_of(new.deployed, session.services.settings)
    return merged, replace(entry, tries_left=tries), etc


def _addons(session: Session, old: StoredDeployment, details: dict[str, Any]) -> AddonChoice:
    """Return the addons of what is staged; where another program staged it, those that `cfs upgrade` would take."""
    if "addons" in details:
        return AddonChoice.from_json(details["addons"])
    return carried(session.target, session.machine.require_booted().boot_entry, old)


def _arguments(session: Session, old: StoredDeployment, new: StoredDeployment) -> tuple[str, ...]:
    """Return the command line of what another program staged: as `cfs upgrade` would have made it."""
    architecture = choose_architecture(host_platform().architecture)
    return next_arguments(
        running_arguments(session),
        old_image=old.kernel_arguments(architecture),
        new_image=new.kernel_arguments(architecture),
        needed=new.identity_arguments(verity=not verity_optional(session.machine.require_booted())),
    )
