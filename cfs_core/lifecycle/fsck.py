"""Checking a machine that runs, and mending what can be proven: objects from their image, boot files from objects."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.deploy.prepare import prepare
from cfs_core.deploy.request import DeploymentRequest
from cfs_core.errors import CfsError, StateError
from cfs_core.lifecycle import menus
from cfs_core.lifecycle.entry import entry_of, running_arguments, settled_artifacts
from cfs_core.lifecycle.states import GONE, path_of, remove_tree
from cfs_core.lifecycle.stored import stored_status
from cfs_core.model.action import CopyObject, MakeDirectory, RemovePath, RenamePath
from cfs_core.model.boot import EntryKind
from cfs_core.model.digest import Digest
from cfs_core.model.places import REPOSITORY
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.interfaces.storage import Repository
    from cfs_core.lifecycle.session import Session
    from cfs_core.lifecycle.status import DeploymentStatus
    from cfs_core.model.boot import BootArtifacts, BootEntry
    from cfs_core.model.content import Content
    from cfs_core.model.disk import Location

_TAG = re.compile(r":[^/:@]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What was done about a problem, or why nothing was."""

    problem: Finding
    done: bool
    what: str


def examine_machine(session: Session) -> Iterator[Finding]:
    """Yield what is wrong with repository, boot files, menu and state of the machine; nothing is changed.

    Raises:
        StateError: it has no repository that can be read.
    """
    with session.repository() as repository:
        yield from repository.fsck()
        yield from session.machine.status.problems
        for deployment in session.machine.status.deployments:
            yield from _examine_boot_files(session, repository, deployment)
    yield from _examine_menu(session)


def repair_machine(session: Session, problems: Iterable[Finding]) -> tuple[Repaired, ...]:
    """Mend what can be: first what is fetched, then what is made from that. Nothing that is right is touched.

    Raises:
        DiskError: a boot volume cannot be written.
    """
    found = tuple(problems)
    stored = [problem for problem in found if problem.code.split(".")[0] in {"object", "image", "stream", "link"}]
    done = list(_repair_objects(session, stored)) if stored else []
    boot = [problem for problem in found if problem.code in {"boot.differs", "boot.entry", "boot.untidy", "boot.menu"}]
    done += _repair_boot(session, boot) if boot else []
    for problem in found:
        if problem in stored or problem in boot:
            continue
        if problem.code == "state.staged":
            session.stage(None)
            done.append(Repaired(problem=problem, done=True, what="nothing is staged any more"))
        else:
            done.append(Repaired(problem=problem, done=False, what="what is right cannot be told"))
    session.refresh()
    return tuple(done)


# --- boot files and menu --------------------------------------------------------------------------


def _files(entry: BootEntry, artifacts: BootArtifacts) -> Iterator[tuple[Location, Content]]:
    contents = [artifacts.uki] if entry.kind is EntryKind.UKI else [artifacts.kernel, *artifacts.initrds]
    present = [content for content in contents if content is not None]
    yield from zip(entry.files, present, strict=False)


def _examine_boot_files(session: Session, repository: Repository, deployment: DeploymentStatus) -> Iterator[Finding]:
    try:
        wrong = _wrong_boot_files(session, repository, deployment)
    except CfsError:
        return  # the repository's problems are told already
    for location in wrong:
        message = f"is not the boot file of deployment {deployment.id:.16}…"
        yield Finding.error("boot.differs", message, where=str(location), repairable=True)


def _wrong_boot_files(
    session: Session, repository: Repository, deployment: DeploymentStatus
) -> dict[Location, Content]:
    """Return the boot files that are not what was installed, each with what the image makes of it now.

    That may be something else than what was installed: a newer cfs adds a newer early boot.
    """
    entry, target = deployment.boot_entry, session.target
    if entry is None:
        return {}
    installed = {file for each in session.machine.status.deployments for file in each.origin.files}
    present = [location for location in entry.files if location.volume in target.volumes()]
    there = {location: Digest.of(target.read(location)) for location in present if target.exists(location)}
    other = {each for each in present if each not in there or (each, there[each].hex) not in installed}
    if not other:
        return {}
    artifacts = settled_artifacts(session, stored_status(repository, deployment).merged())
    return {
        location: content
        for location, content in _files(entry, artifacts)
        if location in other and there.get(location) != _digest(content)
    }


def _digest(content: Content) -> Digest:
    with content.open() as source:
        return Digest.of_stream(source)


def _examine_menu(session: Session) -> Iterator[Finding]:
    machine = session.machine
    booted = machine.booted
    if booted is not None and booted.boot_entry is None:
        message = "runs, and is started by no boot entry"
        yield Finding.error("boot.entry", message, where=f"{booted.id:.16}", repairable=True)
        return
    if machine.loader is None or machine.running.staged is not None:
        return
    for action in session.plan_menu(menus.unchanged(machine)):
        if isinstance(action, RemovePath):
            message = f"is left over: {action.why}"
            yield Finding.error("boot.untidy", message, where=str(action.location), repairable=True)


def _repair_boot(session: Session, problems: list[Finding]) -> list[Repaired]:
    booted = session.machine.booted
    with session.repository() as repository:
        if booted is not None and booted.boot_entry is None:
            artifacts = settled_artifacts(session, stored_status(repository, booted).merged())
            entry = entry_of(booted.id, artifacts, running_arguments(session))
            others = session.machine.entries
            session.machine = replace(session.machine, loader=session.machine.loader or booted.origin.bootloader)
            menu = replace(session.machine.menu, entries=(entry, *others), default=None)
            session.write_menu(menu)
        for deployment in session.machine.status.deployments:
            for location, content in _wrong_boot_files(session, repository, deployment).items():
                copy = CopyObject(location=location, source=content, why="boot file as its image has it")
                session.place_boot_files([copy])
    if any(problem.code == "boot.untidy" for problem in problems):
        session.write_menu(menus.unchanged(session.machine))
    session.refresh()
    left = {(problem.code, problem.where) for problem in _still_wrong(session)}
    return [
        Repaired(problem=each, done=True, what="written again")
        if (each.code, each.where) not in left
        else Repaired(problem=each, done=False, what="it is still so")
        for each in problems
    ]


def _still_wrong(session: Session) -> Iterator[Finding]:
    yield from session.machine.status.problems
    with session.repository() as repository:
        for deployment in session.machine.status.deployments:
            yield from _examine_boot_files(session, repository, deployment)
    yield from _examine_menu(session)


# --- the repository -------------------------------------------------------------------------------


def _repair_objects(session: Session, problems: list[Finding]) -> Iterator[Repaired]:
    """Put what is damaged aside, fetch the images of live deployments again as far as they lack something, and look.

    What could not be fetched goes back to where it was: damaged it may still be of use to somebody.
    """
    aside = [problem.where for problem in problems if problem.repairable and problem.code.startswith("object.")]
    moved = [where for where in dict.fromkeys(aside) if _put_aside(session, where)]
    reasons = [reason for each in _live(session) if (reason := _fetch(session, each)) is not None]
    for where in moved:
        _bring_back(session, where)
    remove_tree(path_of(session, GONE))
    with session.repository() as repository:
        left = {(problem.code, problem.where) for problem in repository.fsck()}
    for problem in problems:
        if (problem.code, problem.where) not in left:
            yield Repaired(problem=problem, done=True, what="fetched or made again")
        else:
            yield Repaired(problem=problem, done=False, what=reasons[0] if reasons else "no live deployment has it")


def _live(session: Session) -> list[DeploymentStatus]:
    return [each for each in session.machine.status.deployments if each.id in session.machine.live]


def _put_aside(session: Session, where: str) -> bool:
    location = REPOSITORY / where
    if not session.target.exists(location):
        return False
    why = "damaged; it is fetched again"
    session.apply(
        [
            MakeDirectory(location=GONE, why=why),
            RenamePath(source=location, location=GONE / where.replace("/", "-"), why=why),
        ]
    )
    return True


def _bring_back(session: Session, where: str) -> None:
    if not session.target.exists(REPOSITORY / where):
        why = "it could not be fetched again"
        session.apply([RenamePath(source=GONE / where.replace("/", "-"), location=REPOSITORY / where, why=why)])


def _fetch(session: Session, deployment: DeploymentStatus) -> str | None:
    """Fetch what the repository lacks of a deployment's image; return why that did not work."""
    if deployment.image is None or deployment.manifest_digest is None:
        return f"the origin file of {deployment.id:.16}… does not say where it came from"
    try:
        source = session.services.locate(pinned(deployment.image, deployment.manifest_digest))
        request = DeploymentRequest(source=source, repo=session.places.repository, by_digest=True)
        with prepare(request, session.services) as image:
            if image.committed.id != deployment.id:
                msg = f"{source.reference} makes another deployment"
                raise StateError(msg, hint="run `cfs upgrade`")
    except CfsError as error:
        return error.message
    return None


def pinned(reference: str, manifest_digest: str) -> str:
    """Return *reference* with a digest in place of its tag."""
    scheme, _, name = reference.partition(":")
    name = name.partition("@")[0]
    prefix = "//" if name.startswith("//") else ""
    return f"{scheme}:{prefix}{_TAG.sub('', name.removeprefix('//'))}@{manifest_digest}"
