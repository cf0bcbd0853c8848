"""Kernel arguments of one machine on a sealed system: addons are added to a deployment, or taken away from it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.deploy.preflight import refuse_errors
from cfs_core.errors import StateError
from cfs_core.image.sealed import sealed_arguments
from cfs_core.lifecycle import addons, menus
from cfs_core.lifecycle.boot_check import examine_boot
from cfs_core.lifecycle.changes import ChangeResult, words
from cfs_core.lifecycle.room import check_exact
from cfs_core.lifecycle.staging import read_details, write_details
from cfs_core.lifecycle.stored import stored_status
from cfs_core.model.boot import EntryKind
from cfs_core.model.content import read_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.lifecycle.session import Session
    from cfs_core.lifecycle.status import DeploymentStatus
    from cfs_core.model.boot import BootArtifacts


def change_addons(
    session: Session, *, added: Sequence[str] = (), removed: Sequence[str] = (), dry_run: bool = False
) -> ChangeResult:
    """Change the addons that the next boot has: of what is staged, or of what starts by itself.

    Raises:
        StateError: that is no sealed deployment, or has no such addon.
        UsageError: what is to be added is no addon.
        PreflightError: the machine's firmware would not take it.
    """
    staged = session.machine.running.staged
    details = read_details(session, staged.id) if staged is not None else {}
    goal = session.machine.status.get(
        staged.id if staged is not None and "addons" in details else session.machine.default
    )
    if goal is None:
        msg = "what starts by itself on this machine is no deployment"
        raise StateError(msg, hint="make one the default: cfs rollback")
    with session.repository() as repository:
        image = stored_status(repository, goal).artifacts()
        if image.kind is not EntryKind.UKI:
            msg = f"deployment {goal.id:.16}… starts no unified kernel image, and reads no addons"
            raise StateError(msg, hint="cfs kargs add ARG")
        before = _now(session, goal, image, details.get("addons"))
        after = addons.changed(before, image, added=added, removed=removed)
        new = after.of(image)
        refuse_errors(examine_boot(session, new))
        result = _result(goal, before.of(image), new, dry_run=dry_run)
        if goal.boot_entry is None or "addons" in details:
            if not dry_run and result.result == "changed":
                write_details(session, {**details, "addons": after.as_json()})
            return result
        menu = menus.with_entry(session.machine, replace(goal.boot_entry, artifacts=new, arguments=()))
        actions = session.plan_menu(menu)
        check_exact(actions, session.places.roots)
        if not dry_run:
            session.write_menu(menu)
    return replace(result, actions=words(actions))


def _now(
    session: Session, goal: DeploymentStatus, image: BootArtifacts, staged: dict[str, object] | None
) -> addons.AddonChoice:
    if staged is not None:
        return addons.AddonChoice.from_json(staged)
    return addons.choice_of(addons.present(session.target, goal.boot_entry), image)


def _result(goal: DeploymentStatus, before: BootArtifacts, after: BootArtifacts, *, dry_run: bool) -> ChangeResult:
    old, new = (tuple(each.text for each in sealed_arguments(artifacts)) for artifacts in (before, after))
    same = _contents(before) == _contents(after)
    result = "nothing" if same else "plan" if dry_run else "changed"
    return ChangeResult(result=result, image_id=goal.id, before=old, after=new)


def _contents(artifacts: BootArtifacts) -> list[tuple[str, bytes]]:
    return [(addon.name, read_all(addon.content)) for addon in artifacts.addons]
