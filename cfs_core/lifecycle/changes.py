"""Changes of what is there: going back, pins, removals, kernel arguments, where updates come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.deploy.target_reference import target_reference
from cfs_core.errors import RefusedError, StateError
from cfs_core.lifecycle import menus
from cfs_core.lifecycle.arguments import edited
from cfs_core.lifecycle.staging import read_details, write_details
from cfs_core.model.action import Attributes, WriteFile
from cfs_core.model.places import DEPLOYMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.lifecycle.session import Session
    from cfs_core.lifecycle.status import DeploymentStatus
    from cfs_core.model.action import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeResult:
    """What a change did, or would do: the deployment it is about, and what was written to boot volumes."""

    result: str
    image_id: str | None = None
    why: str = ""
    actions: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def rollback(session: Session, *, drop_staged: bool = False, dry_run: bool = False) -> ChangeResult:
    """Make the previous deployment start next; where it already would, take that back.

    Raises:
        RefusedError: an upgrade is staged, which would be dropped, and *drop_staged* does not say so.
        StateError: there is nothing to go back to.
    """
    machine = session.machine
    booted, target = machine.require_booted(), machine.rollback
    machine.require_loader()
    if target is None:
        msg = "there is no other deployment to go back to"
        raise StateError(msg, hint="`cfs status` shows what is there")
    if machine.running.staged is not None and not drop_staged:
        msg = f"the upgrade to {machine.running.staged.id:.16}… is staged, and going back drops it"
        raise RefusedError(msg, hint="pass --yes to go on", code="state.staged")
    goal = booted if machine.rollback_queued else target
    menu = menus.with_first(machine, goal.id)
    actions = session.plan_menu(menu)
    if dry_run:
        return ChangeResult(result="plan", image_id=goal.id, actions=words(actions))
    session.stage(None)
    session.write_menu(menu)
    records = session.machine.records
    if goal is target:
        records = records.with_left(booted.manifest_digest)
    elif booted.manifest_digest is not None:
        records = records.without(booted.manifest_digest)
    session.keep(records)
    return ChangeResult(result="queued", image_id=goal.id, actions=words(actions))


def pin(session: Session, name: str, *, pinned: bool) -> ChangeResult:
    """Pin a deployment, which then stays, or let it go.

    Raises:
        StateError: there is no such deployment.
    """
    deployment = find(session, name)
    session.keep(session.machine.records.with_pin(deployment.id, pinned=pinned))
    return ChangeResult(result="pinned" if pinned else "unpinned", image_id=deployment.id)


def remove(session: Session, name: str, *, dry_run: bool = False) -> ChangeResult:
    """Take a deployment out of the menu; `cfs gc` then frees what only it needed.

    Raises:
        RefusedError: it runs, or is pinned.
        StateError: there is no such deployment, or nothing would be left.
    """
    deployment, machine = find(session, name), session.machine
    if deployment.id == machine.running.booted:
        msg = f"{deployment.id:.16}… runs"
        raise RefusedError(msg, hint="start another deployment first: cfs rollback", code="state.booted")
    if deployment.id in machine.records.pinned:
        msg = f"{deployment.id:.16}… is pinned"
        raise RefusedError(msg, hint=f"cfs deployments unpin {deployment.id:.12}", code="state.pinned")
    staged = machine.running.staged
    if staged is not None and staged.id == deployment.id:
        if not dry_run:
            session.stage(None)
        if not deployment.entries:
            return ChangeResult(result="plan" if dry_run else "removed", image_id=deployment.id)
    if not deployment.entries:
        return ChangeResult(result="nothing", image_id=deployment.id, why="it is in no menu; `cfs gc` frees it")
    menu = menus.without(machine, [deployment.id])
    actions = session.plan_menu(menu) if dry_run else session.write_menu(menu)
    return ChangeResult(result="plan" if dry_run else "removed", image_id=deployment.id, actions=words(actions))


def change_arguments(
    session: Session, *, appended: Sequence[str] = (), deleted: Sequence[str] = (), dry_run: bool = False
) -> ChangeResult:
    """Change the kernel arguments that the next boot has: of what is staged, or of what starts by itself.

    Raises:
        StateError: an argument to be deleted is not there, or the command line is sealed.
    """
    machine = session.machine
    goal = machine.status.get(machine.default)
    if goal is None or goal.boot_entry is None:
        msg = "what starts by itself on this machine is no deployment"
        raise StateError(msg, hint="make one the default: cfs rollback")
    staged = machine.running.staged
    details = read_details(session, staged.id) if staged is not None else {}
    before = tuple(details.get("arguments") or goal.boot_entry.arguments)
    after, missing = edited(before, appended=appended, deleted=deleted)
    if missing:
        msg = f"there is no kernel argument {missing[0]}"
        raise StateError(msg, hint="`cfs kargs list` shows those there are", code="boot.karg-not-found")
    identity = staged.id if details and staged is not None else goal.id
    if details:
        if not dry_run:
            write_details(session, {**details, "arguments": list(after)})
        return _arguments_result(identity, before, after, dry_run=dry_run)
    menu = menus.with_arguments(machine, goal.id, after)
    actions = session.plan_menu(menu) if dry_run else session.write_menu(menu)
    return replace(_arguments_result(identity, before, after, dry_run=dry_run), actions=words(actions))


def _arguments_result(identity: str, before: tuple[str, ...], after: tuple[str, ...], *, dry_run: bool) -> ChangeResult:
    result = "nothing" if before == after else "plan" if dry_run else "changed"
    return ChangeResult(result=result, image_id=identity, before=before, after=after)


def follow(session: Session, image: str) -> ChangeResult:
    """Change where updates come from, and nothing else (``cfs edit``).

    Raises:
        UsageError: it is no image reference.
        StateError: the machine has no origin file that could say it.
    """
    reference, followed = target_reference(image), session.machine.followed
    if followed is None:
        msg = "there is no deployment whose origin could say where updates come from"
        raise StateError(msg, hint="`cfs status` shows what is there")
    origin = replace(followed.origin, image=reference)
    session.target.apply(
        WriteFile(
            location=DEPLOYMENTS / followed.id / f"{followed.id}.origin",
            data=origin.format().encode(),
            attributes=Attributes(mode=0o644),
            why="where updates come from",
        )
    )
    return ChangeResult(result="changed", image_id=followed.id, before=(followed.image or "",), after=(reference,))


def find(session: Session, name: str) -> DeploymentStatus:
    """Return the deployment that *name* means: its id, the start of it, or ``booted``, ``rollback``, ``staged``.

    Raises:
        StateError: none or several.
    """
    machine = session.machine
    words_ = {"booted": machine.booted, "rollback": machine.rollback, "staged": machine.staged}
    named = words_.get(name)
    if named is not None:
        return named
    found = [each for each in machine.status.deployments if name and each.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    msg = f"{name!r:.80} means {'several deployments' if found else 'no deployment'}"
    raise StateError(msg, hint="`cfs deployments list` shows their ids", code="state.not-found")


def words(actions: Sequence[Action]) -> tuple[str, ...]:
    """Return *actions* for people, one line each."""
    return tuple(f"{type(each).__name__} {getattr(each, 'location', '')}: {each.why}" for each in actions)
