"""Staging: the new deployment is on disk, whole, and nothing starts it before the shutdown says so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from cfs_core.deploy.state import DeploymentState, plan_next_state, plan_origin
from cfs_core.lifecycle import running
from cfs_core.lifecycle.addons import choice_of
from cfs_core.lifecycle.running import DETAILS
from cfs_core.lifecycle.states import NEW, adopt, sweep
from cfs_core.model.action import CopyObject
from cfs_core.model.boot import EntryKind
from cfs_core.model.digest import Digest
from cfs_core.system.atomic import atomic_file

if TYPE_CHECKING:
    from cfs_core.config.settings import Settings
    from cfs_core.deploy.decide import Decisions
    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.lifecycle.running import Staged
    from cfs_core.lifecycle.session import Session
    from cfs_core.model.action import Action, WriteFile
    from cfs_core.model.boot import BootEntry
    from cfs_core.model.origin import BootFile

GOOD_UNIT = "/usr/lib/systemd/system/cfs-boot-good.service"
"""What takes the count off a deployment that came up. Without it in the image nothing may count."""


class Plan(Protocol):
    """What is staged."""

    @property
    def image(self) -> PreparedImage:
        """The image, in the machine's repository."""

    @property
    def decisions(self) -> Decisions:
        """What it boots from."""

    @property
    def reference(self) -> str:
        """Where its updates come from."""

    @property
    def entry(self) -> BootEntry:
        """Its boot entry."""

    @property
    def fix_ownership(self) -> bool:
        """Whether owners follow users and groups whose number changes."""

    @property
    def menu_actions(self) -> tuple[Action, ...]:
        """What would make it the default, boot files included."""


def stage(session: Session, plan: Plan, staged: Staged) -> None:
    """Write state and boot files of the deployment of *plan*, and then say that it waits.

    Raises:
        DiskError: no room; nothing leads to what was written by then, and staging again starts anew.
    """
    session.stage(None)
    state = _state(plan)
    origin = plan_origin(
        state,
        _boot_files(plan.menu_actions),
        (plan.decisions.bootloader_choice.value, plan.decisions.bootloader_owner.distribution),
    )
    kept = session.machine.status.get(staged.id)
    if kept is None or not kept.entries:
        sweep(session)
        with session.target.together():
            session.apply([*plan_next_state(state, NEW), replace(origin, location=NEW / staged.id / _name(origin))])
        adopt(session, staged.id)
    else:  # what one goes back to is staged again: its /etc is exchanged when this is finalized
        session.apply([origin])
    session.place_boot_files(plan.menu_actions)
    details: dict[str, Any] = {"id": staged.id, "arguments": list(plan.entry.arguments), "tries": plan.entry.tries_left}
    details["fix_ownership"] = plan.fix_ownership
    if plan.entry.kind is EntryKind.UKI and plan.entry.artifacts is not None:
        details["addons"] = choice_of(plan.entry.artifacts.addons, plan.decisions.artifacts).as_json()
    write_details(session, details)
    session.stage(staged)
    session.refresh()


def tries_of(image: TreeReader, settings: Settings) -> int | None:
    """Return how many boots a deployment of *image* gets to come up; None where nothing would ever take that off."""
    tries = int(settings.value("boot.tries"))
    return tries if tries and image.exists(GOOD_UNIT) else None


def write_details(session: Session, details: dict[str, Any]) -> None:
    """Keep what the finalizing has to know."""
    path = session.places.run / DETAILS
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps(details).encode())


def read_details(session: Session, identity: str) -> dict[str, Any]:
    """Return what was kept about deployment *identity*; empty where somebody else staged it."""
    return running.read_details(session.places.run, identity)


def _state(plan: Plan) -> DeploymentState:
    image = plan.image
    return DeploymentState(
        image_id=image.committed.id,
        tree=image.deployed,
        content=image.repository.content,
        target_imgref=plan.reference,
        boot_type=plan.decisions.artifacts.kind,
        boot_digest=plan.decisions.artifacts.boot_digest,
        manifest_digest=image.resolved.manifest.digest,
        verified=image.verified,
        config=image.resolved.config,
    )


def _name(action: WriteFile) -> str:
    return action.location.path.rpartition("/")[2]


def _boot_files(actions: tuple[Action, ...]) -> tuple[BootFile, ...]:
    found: list[BootFile] = []
    for action in actions:
        if not isinstance(action, CopyObject):
            continue
        with action.source.open() as source:
            found.append((action.location, Digest.of_stream(source).hex))
    return tuple(found)
