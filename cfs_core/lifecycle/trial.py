"""A deployment on trial: that it came up, that it did not, and what to do then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.lifecycle import menus
from cfs_core.lifecycle.records import Failure

if TYPE_CHECKING:
    from cfs_core.lifecycle.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """``good``, ``nothing`` to do, ``recorded`` failures, or ``reboot``: this boot did not come up and is ended."""

    result: str
    image_id: str | None = None
    why: str = ""


def bless(session: Session) -> TrialResult:
    """Take the count of tries off what runs: it came up (`boot-complete.target` was reached).

    Raises:
        StateError: what runs is no deployment of this machine.
        BootError, DiskError: the menu cannot be changed; the count stays.
    """
    machine = session.machine
    booted = machine.require_booted()
    if booted.manifest_digest is not None:
        session.keep(session.machine.records.without(booted.manifest_digest))
    entry = next((each for each in machine.entries if each.deployment_id == booted.id), None)
    if entry is None or entry.tries_left is None:
        return TrialResult(result="nothing", image_id=booted.id, why="it is not on trial")
    session.write_menu(menus.with_entry(machine, replace(entry, tries_left=None)))
    return TrialResult(result="good", image_id=booted.id)


def record_failures(session: Session) -> TrialResult:
    """Note which deployments have used up their tries, so that nobody takes their image again by itself."""
    machine, records = session.machine, session.machine.records
    found: list[str] = []
    for entry in machine.entries:
        if entry.tries_left != 0 or entry.deployment_id == machine.running.booted:
            continue
        deployment = machine.status.get(entry.deployment_id)
        if deployment is None or entry.deployment_id in records.failed:
            continue
        tries = int(session.services.settings.value("boot.tries"))
        reason = f"was started {tries} times and did not come up: boot-complete.target was not reached"
        failure = Failure(manifest_digest=deployment.manifest_digest, tries=tries, reason=reason)
        records = records.with_failure(entry.deployment_id, failure)
        found.append(entry.deployment_id)
    session.keep(records)
    return TrialResult(result="recorded" if found else "nothing", image_id=found[0] if found else None)


def minutes_to_come_up(session: Session) -> int | None:
    """Return how many minutes after its start this boot is to be ended if it has not come up; None: not on trial."""
    booted = session.machine.running.booted
    entry = next((each for each in session.machine.entries if each.deployment_id == booted), None)
    if entry is None or entry.tries_left is None:
        return None
    return int(session.services.settings.value("boot.trial-timeout"))


def give_up(session: Session, why: str) -> TrialResult:
    """Decide whether this boot, which did not come up, is ended: only on trial, and only if there is somewhere to go.

    Returns ``reboot`` at most once a try: the loader counts, and without a count nothing here starts anything again.
    """
    machine = session.machine
    booted = machine.require_booted()
    entry = next((each for each in machine.entries if each.deployment_id == booted.id), None)
    if entry is None or entry.tries_left is None:
        return TrialResult(result="nothing", image_id=booted.id, why="it is not on trial: it stays up")
    others = [each for each in machine.entries if each.deployment_id != booted.id and each.tries_left != 0]
    if not others:
        return TrialResult(result="nothing", image_id=booted.id, why="there is nothing else to start: it stays up")
    if all(each.deployment_id in machine.records.failed for each in others):
        return TrialResult(result="nothing", image_id=booted.id, why="the others failed, too: it is not the image")
    return TrialResult(result="reboot", image_id=booted.id, why=why)
