"""The verbs upgrade and switch: fetch, judge, plan, stage. What runs stays what starts until the shutdown."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cfs_core.config.settings import options_layer
from cfs_core.deploy.decide import Decisions, decide
from cfs_core.deploy.preflight import refuse_errors
from cfs_core.deploy.prepare import PreparedImage, prepare
from cfs_core.deploy.request import DeploymentRequest
from cfs_core.errors import RefusedError, StateError
from cfs_core.image.resolve import resolve
from cfs_core.lifecycle import addons, menus, room, weaker
from cfs_core.lifecycle.boot_check import examine_boot
from cfs_core.lifecycle.document import verity_optional
from cfs_core.lifecycle.entry import new_entry
from cfs_core.lifecycle.etc import EtcPlan, plan_etc, refuse_conflicts
from cfs_core.lifecycle.etc_merge.rules import OnConflict
from cfs_core.lifecycle.ownership import UNIT
from cfs_core.lifecycle.running import Staged
from cfs_core.lifecycle.staging import stage, tries_of
from cfs_core.lifecycle.stored import StoredDeployment, stored, stored_status
from cfs_core.model.event import Event
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.fetcher import ImageLocation
    from cfs_core.lifecycle.session import Session
    from cfs_core.lifecycle.status import DeploymentStatus
    from cfs_core.model.action import Action
    from cfs_core.model.boot import BootEntry, BootMenu
    from cfs_core.model.manifest import ResolvedImage
    from cfs_core.model.plan import Finding

_VERSION = "org.opencontainers.image.version"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """One ``cfs upgrade`` or ``cfs switch``.

    ``target`` is the image to switch to, as origin files have it (`target_reference`), None to follow the one that is
    followed; ``content_from`` another place where the same content is (a USB stick, an archive, a mirror).
    """

    target: str | None = None
    content_from: ImageLocation | None = None
    download_only: bool = False
    dry_run: bool = False
    allow_weaker: bool = False
    retry: bool = False
    etc_conflicts: OnConflict | None = None
    fix_ownership: bool = False
    """Give files of users and groups whose number changes the number that they get."""

    retain: bool = False
    """Pin what runs."""

    judged: bool = False
    """Refuse if no policy is asked about the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What ``--check`` found: the image that is followed, and whether it is another than the one that is here."""

    image: str
    manifest_digest: str
    version: str | None
    update: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Everything an upgrade will do, nothing done."""

    request: UpgradeRequest
    image: PreparedImage
    decisions: Decisions
    reference: str
    entry: BootEntry
    menu: BootMenu
    menu_actions: tuple[Action, ...]
    etc: EtcPlan
    arguments_before: tuple[str, ...]
    findings: tuple[Finding, ...]
    rooms: tuple[room.Room, ...]
    weaker: tuple[str, ...]
    dropped: tuple[str, ...] = ()

    @property
    def fix_ownership(self) -> bool:
        """Whether owners follow users and groups whose number changes."""
        return self.request.fix_ownership


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeResult:
    """What came of it: ``nothing`` to do, a ``plan``, or what was ``staged`` or ``downloaded``."""

    result: str
    image: str
    manifest_digest: str
    why: str = ""
    image_id: str | None = None
    version: str | None = None
    plan: dict[str, Any] = field(default_factory=dict)


def check(session: Session, services: Services, request: UpgradeRequest) -> Checked:
    """Compare manifests without fetching anything else: one manifest and one configuration.

    Raises:
        TransportError, ImageError, VerificationError: the image cannot be told.
        StateError: the machine follows none.
    """
    reference = followed_reference(session, request)
    image = resolve(*(request.content_from or services.locate(reference)))
    why = _why_nothing(session, image, request)
    return Checked(
        image=reference,
        manifest_digest=str(image.manifest.digest),
        version=image.config.labels.get(_VERSION),
        update=why is None,
        why=why or "",
    )


def upgrade(session: Session, services: Services, request: UpgradeRequest) -> UpgradeResult:
    """Stage the image that is followed, or *request*'s, or say why there is nothing to do.

    Raises:
        CfsError: the machine starts what it started before; nothing is staged that was not.
    """
    session.machine.require_booted()
    session.machine.require_loader()
    reference = followed_reference(session, request)
    source = request.content_from or services.locate(reference)
    image = resolve(*source)
    digest = str(image.manifest.digest)
    why = _why_nothing(session, image, request)
    if why is not None:
        return UpgradeResult(result="nothing", image=reference, manifest_digest=digest, why=why)
    _check_before(session, services, request, reference, image)
    with planned(session, services, request, Followed(reference=reference, source=source)) as plan:
        if plan is None:
            why = "it has the very files of what runs"
            return UpgradeResult(result="nothing", image=reference, manifest_digest=digest, why=why)
        described = describe(plan)
        identity, version = plan.entry.deployment_id, plan.image.resolved.config.labels.get(_VERSION)
        done = UpgradeResult(
            result="plan", image=reference, manifest_digest=digest, image_id=identity, version=version, plan=described
        )
        if request.dry_run:
            return done
        refuse_errors(plan.findings)
        refuse_conflicts(plan.etc, _on_conflict(request, services))
        stage(session, plan, Staged(id=identity, locked=request.download_only))
        if request.retain:
            running = session.machine.require_booted()
            session.keep(session.machine.records.with_pin(running.id, pinned=True))
    services.emit(Event(name="deployment.staged", facts={"image_id": identity, "locked": request.download_only}))
    return replace(done, result="downloaded" if request.download_only else "staged")


def unlock(session: Session) -> UpgradeResult:
    """Let what was downloaded only be finalized at shutdown (``--from-downloaded``).

    Raises:
        StateError: nothing was downloaded.
    """
    staged, deployment = session.machine.running.staged, session.machine.staged
    if staged is None or deployment is None:
        msg = "nothing is downloaded on this machine"
        raise StateError(msg, hint="cfs upgrade --download-only fetches what --from-downloaded then uses")
    session.stage(replace(staged, locked=False))
    return UpgradeResult(
        result="staged",
        image=deployment.image or "",
        manifest_digest=deployment.manifest_digest or "",
        image_id=staged.id,
        version=deployment.origin.version,
    )


def followed_reference(session: Session, request: UpgradeRequest) -> str:
    """Return where updates come from.

    Raises:
        StateError: the origin file does not say.
    """
    if request.target is not None:
        return request.target
    followed = session.machine.followed
    if followed is None or followed.image is None:
        msg = "the origin file of this machine does not say where updates come from"
        raise StateError(msg, hint="name an image: cfs switch docker://HOST/NAME:TAG")
    return followed.image


def _why_nothing(session: Session, image: ResolvedImage, request: UpgradeRequest) -> str | None:
    """Return why *image* need not be staged; None if it is to be."""
    machine, digest = session.machine, str(image.manifest.digest)
    staged, booted = machine.staged, machine.booted
    if staged is not None and staged.manifest_digest == digest:
        locked = machine.running.staged is not None and machine.running.staged.locked
        return None if locked and not request.download_only else "it is staged already"
    same = booted is not None and booted.manifest_digest == digest
    if same and (request.target is None or request.target == (booted.image if booted else None)) and staged is None:
        return "it is running already"
    if request.target is None and not request.retry and digest in machine.records.left:
        return "the machine went back from this image; --retry takes it all the same"
    return None


def _check_before(
    session: Session, services: Services, request: UpgradeRequest, reference: str, image: ResolvedImage
) -> None:
    """Refuse what can be refused before anything is fetched."""
    booted = session.machine.require_booted()
    if request.judged and not services.settings.value("policy.require"):
        msg = "no policy would judge the image, and --enforce-container-sigpolicy asks for one"
        raise RefusedError(msg, hint="name one in the setting policy.require; `cfs plugins list` shows them")
    found = list(weaker.before_fetching(booted, reference, services.settings))
    weaker.refuse(found, allowed=request.allow_weaker)

    def kernel_layer() -> str | None:
        with session.repository() as repository:
            return stored_status(repository, booted).kernel_layer()

    if not request.download_only:  # who asked for the download gets it, and learns whether the kernel is another one
        room.check_before(session.machine, session.places.roots, image, kernel_layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Where updates come from, as the origin file has it, and where the content is fetched this time."""

    reference: str
    source: ImageLocation


@contextmanager
def planned(
    session: Session, services: Services, request: UpgradeRequest, followed: Followed
) -> Iterator[Planned | None]:
    """Fetch and plan; the repository stays open while the block runs. None where the files are those of what runs.

    A dry run fetches into a repository that goes away with the run: nothing on the machine changes.

    Raises:
        CfsError: of the class of whatever failed.
    """
    dry = services.scratch / "repository"
    wanted = DeploymentRequest(
        source=followed.source,
        target_imgref=followed.reference,
        repo=dry if request.dry_run else session.places.repository,
        by_digest=True,
        loader_is_there=True,
    )
    booted = session.machine.require_booted()
    with prepare(wanted, services) as prepared:
        image = replace(prepared, settings=prepared.settings.with_layer(_fixed(session, services)))
        if _same_files(image, booted, request):
            yield None
            return
        found = list(weaker.before_fetching(booted, followed.reference, services.settings))
        found += weaker.after_fetching(booted, sealed=_is_as_sealed(image, session))
        weaker.refuse(found, allowed=request.allow_weaker)
        decisions = decide(wanted, image, services)
        decisions = replace(decisions, verity=not verity_optional(booted))
        with session.repository() as machine_repository:
            old = stored_status(machine_repository, booted)
            parts = _Parts(image=image, decisions=decisions, old=old, reference=followed.reference)
            yield _plan(session, request, parts, found)


def _is_as_sealed(image: PreparedImage, session: Session) -> bool:
    """Return whether *image* is sealed, and leaves fs-verity open only where what runs does, too."""
    optional = any(word.startswith("composefs") and "=?" in word for word in session.machine.running.arguments)
    return image.seal is not None and (optional or not image.seal.verity_optional)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    image: PreparedImage
    decisions: Decisions
    old: StoredDeployment
    reference: str


def _same_files(image: PreparedImage, booted: DeploymentStatus, request: UpgradeRequest) -> bool:
    if image.committed.id != booted.id:
        return False
    if request.target is not None:
        msg = f"{request.target} has the very files of what runs ({booted.id:.16}…)"
        raise RefusedError(msg, hint="change where updates come from with `cfs edit`", code="state.same")
    return True


def _plan(session: Session, request: UpgradeRequest, parts: _Parts, weak: list[str]) -> Planned:
    image, decisions, machine = parts.image, parts.decisions, session.machine
    booted = machine.require_booted()
    entry, findings = new_entry(session, image, decisions, parts.old)
    tries = tries_of(image.merged, image.settings)
    entry = replace(entry, tries_left=tries)
    menu = menus.with_new(machine, entry, keep=int(image.settings.value("deployments.keep")))
    actions = session.plan_menu(menu)
    new = stored(image.repository, image.committed.id, str(image.resolved.manifest.digest))
    conflicts, fix = _on_conflict(request, session.services), request.fix_ownership
    if fix and not image.merged.exists(UNIT):
        msg = f"the image has no {UNIT}, which changes owners in /var when it starts"
        raise RefusedError(msg, hint="put it there with `cfs host install`, or leave out --fix-ownership")
    etc = plan_etc(session, parts.old, new, image.storage, conflicts, fix_ownership=fix)
    return Planned(
        request=request,
        image=image,
        decisions=decisions,
        reference=parts.reference,
        entry=entry,
        menu=menu,
        menu_actions=actions,
        etc=etc,
        arguments_before=tuple(each.text for each in addons.words_on(session.target, booted.boot_entry)),
        findings=(*decisions.findings, *findings, *examine_boot(session, entry.artifacts or decisions.artifacts)),
        rooms=room.check_exact(actions, session.places.roots),
        weaker=tuple(weak),
        dropped=menus.dropped(machine, menu),
    )


def describe(plan: Planned) -> dict[str, Any]:
    """Return the plan for people and programs: what is weaker, what comes and goes, arguments, /etc."""
    return {
        "deployment": plan.entry.deployment_id,
        "kernel_arguments": {"before": plan.arguments_before, "after": addons.words_of(plan.entry)},
        "boot": [{"action": type(each).__name__, "where": _where(each), "why": each.why} for each in plan.menu_actions],
        "room": plan.rooms,
        "dropped": plan.dropped,
        "etc": plan.etc.report(),
        "findings": plan.findings,
        "weaker": plan.weaker,
        "verified": plan.image.verified,
        "tries": plan.entry.tries_left,
    }


def _where(action: Action) -> str:
    return str(getattr(action, "location", ""))


def _on_conflict(request: UpgradeRequest, services: Services) -> OnConflict:
    return request.etc_conflicts or OnConflict(services.settings.value("upgrade.etc-conflicts"))


def _fixed(session: Session, services: Services) -> Any:  # noqa: ANN401 - a layer of settings
    """Return what the machine decides, whatever an image advises: its loader, root filesystem, firmware."""
    facts = session.facts()
    known = services.host.collect(families.FILESYSTEMS)
    return options_layer(
        {
            "install.bootloader": session.machine.require_loader(),
            "install.firmware": next(iter(facts.firmware)).value,
            "install.filesystem": facts.root_filesystem if facts.root_filesystem in known else None,
        }
    )
