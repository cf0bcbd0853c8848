"""What nothing needs any more: state of deployments that nothing starts, tags, objects. Unknown means needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.lifecycle import menus
from cfs_core.lifecycle.etc import MERGING
from cfs_core.lifecycle.states import discard, remove_tree, state_of, sweep
from cfs_core.model.deployment import ImageId
from cfs_core.model.places import DEPLOYMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.interfaces.storage import Repository
    from cfs_core.lifecycle.session import Session
    from cfs_core.model.action import Action

BOOTC_TAG = "localhost/bootc-"
"""Starts the tags that bootc and cfs give to images of deployments; what is called otherwise is not theirs to drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A deployment that stays, and why."""

    id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageResult:
    """What was removed, or would be. Sizes in bytes."""

    kept: tuple[Kept, ...]
    states: tuple[str, ...]
    """Deployments whose state directory goes."""

    tags: tuple[str, ...]
    boot_files: tuple[str, ...]
    objects_removed: int
    """In a dry run those that nothing needs already; what the tags above still hold comes in addition."""

    bytes_freed: int
    dry_run: bool


def collect(session: Session, *, dry_run: bool = False) -> GarbageResult:
    """Free what nothing needs, in the order in which nothing is ever half there: boot files, states, tags, objects.

    Raises:
        StorageError: the repository is damaged, or in use (code ``storage.locked``).
        DiskError: something cannot be removed.
    """
    kept = tuple(_kept(session))
    live = {each.id for each in kept}
    states = tuple(name for name in session.target.names(DEPLOYMENTS) if name not in live and _is_state(session, name))
    boot_files = _stray_boot_files(session)
    with session.repository() as repository:
        tags = tuple(_stray_tags(session, repository, live))
    if not dry_run:
        session.apply(boot_files)
        for name in states:
            discard(session, name)
        sweep(session)
        for name in live:
            remove_tree(state_of(session, name) / MERGING)
        session.refresh()
        session.keep(session.machine.records.only(frozenset(live)))
    with session.repository() as repository:
        if not dry_run:
            for tag in tags:
                repository.remove(tag)
        report = repository.collect_garbage([ImageId(each) for each in live], dry_run=dry_run)
    return GarbageResult(
        kept=kept,
        states=states,
        tags=tags,
        boot_files=tuple(str(getattr(action, "location", "")) for action in boot_files),
        objects_removed=report.objects_removed,
        bytes_freed=report.bytes_freed,
        dry_run=dry_run,
    )


def _kept(session: Session) -> Iterator[Kept]:
    """Yield what is live: whatever any loader offers, what runs, what waits, what somebody pinned."""
    machine = session.machine
    reasons: dict[str, str] = {}
    for each in machine.status.deployments:
        if each.entries:
            reasons[each.id] = "in the boot menu"
    if machine.running.staged is not None:
        reasons[machine.running.staged.id] = "staged"
    for name in machine.records.pinned:
        reasons[name] = "pinned"
    if machine.running.booted is not None:
        reasons[machine.running.booted] = "running"
    yield from (Kept(id=name, why=why) for name, why in reasons.items())


def _is_state(session: Session, name: str) -> bool:
    """Return whether *name* is a deployment's state, and not something that somebody put there."""
    return (
        len(name) in {64, 128}
        and all(sign in "0123456789abcdef" for sign in name)
        and session.target.exists(DEPLOYMENTS / name)
    )


def _stray_boot_files(session: Session) -> tuple[Action, ...]:
    """Return what the loader would remove if its menu were written again as it is."""
    machine = session.machine
    if machine.loader is None or not machine.entries or machine.running.staged is not None:
        return ()
    return session.plan_menu(menus.unchanged(machine))


def _stray_tags(session: Session, repository: Repository, live: set[str]) -> Iterator[str]:
    """Yield tags of images that no live deployment is made from; a live one that does not say which keeps them all."""
    needed: set[str] = set()
    for name in live:
        deployment = session.machine.status.get(name)
        if deployment is None or deployment.manifest_digest is None:
            return
        needed.add(deployment.manifest_digest)
    for image in repository.images():
        if image.name.startswith(BOOTC_TAG) and str(image.manifest_digest) not in needed:
            yield image.name
