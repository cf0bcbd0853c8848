"""The plan of an install: decide, plan the deployment, plan the disk, fill it in memory, check. Nothing is written.

What the plan filled in memory is what `run` writes and reads back: nothing is planned, run or merged twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.deploy.bootable.fstab import examine_fstab
from cfs_core.deploy.bootable.programs import examine_programs
from cfs_core.deploy.bounds import Bounds
from cfs_core.deploy.decide import Decisions, decide
from cfs_core.deploy.deployment import PlannedContents, PlannedEntry, plan_contents, plan_entry
from cfs_core.deploy.kernel_line import is_root
from cfs_core.deploy.loader import check_filled
from cfs_core.deploy.state import plan_origin
from cfs_core.install.disk import PlannedDisk, plan_disk
from cfs_core.install.foresee import foresee
from cfs_core.model.action import CopyObject, PlacingAction, WriteFile
from cfs_core.model.boot import BootMenu
from cfs_core.model.digest import Digest
from cfs_core.model.disk import RAW, Volume
from cfs_core.model.places import REPOSITORY
from cfs_core.model.plan import Finding, InstallPlan, Step
from cfs_core.pluginhost import families
from cfs_core.target.execute import apply
from cfs_core.target.memory import MemoryTarget

if TYPE_CHECKING:
    from cfs_core.deploy.first_boot.plan import FirstBootLine
    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.deploy.services import Services
    from cfs_core.install.request import PlanRequest
    from cfs_core.model.origin import BootFile


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInstall:
    """A plan, the target in memory that it filled, and the providers that carry it out."""

    plan: InstallPlan
    decisions: Decisions
    disk: PlannedDisk
    target: MemoryTarget
    first_boot: tuple[FirstBootLine, ...] = ()


def make_plan(request: PlanRequest, image: PreparedImage, services: Services) -> PreparedInstall:
    """Decide and plan everything.

    Raises:
        PluginError, ImageError, UsageError, RefusedError: no plan can be made at all. Faults of a plan that can be
            made are findings in it.
    """
    decisions = decide(request, image, services)
    contents = plan_contents(request, image, decisions)
    target = MemoryTarget(
        # A dry run shows the commands; what they would make is not there to be looked at.
        commands=None if request.dry_run else services.commands,
        scratch=services.scratch,
        host_tools=bool(image.settings.value("install.host-tools")),
    )
    _fill_root(target, contents, image, services)
    disk = plan_disk(request, image, services, decisions, target)
    target.lay_out(disk.partitions)
    entry = plan_entry(request, image, decisions, disk.root)
    menu = BootMenu(entries=(entry.entry,), timeout_seconds=decisions.timeout_seconds)
    plan = InstallPlan(
        image=image.resolved,
        image_id=image.committed.id,
        partitions=disk.partitions,
        steps=_completed(target, contents, decisions, menu, image),
        menu=menu,
        arguments=entry.arguments,
    )
    foreseen = (
        *contents.first_boot.findings,
        *foresee(request, disk, target, services),
        *examine_fstab(image.merged, disk.partitions, is_root),
        *examine_programs(_made(target), decisions.facts.architecture),
    )
    found = (*_findings(plan, decisions, disk, entry, services), *(_stamped(each, "cfs-core") for each in foreseen))
    return PreparedInstall(
        plan=replace(plan, findings=found),
        decisions=decisions,
        disk=disk,
        target=target,
        first_boot=contents.first_boot.lines,
    )


def _made(target: MemoryTarget) -> list[PlacingAction]:
    """Return what is on the ESP, without what a command that does not run would have made."""
    actions = target.contents(Volume.ESP).values()
    return [each for each in actions if not (target.runs_nothing and isinstance(each, WriteFile) and each.data == b"")]


def _fill_root(target: MemoryTarget, contents: PlannedContents, image: PreparedImage, services: Services) -> None:
    """Put repository and state on the root volume; only then its size can be known.

    The origin file is made again when boot files are known, which it records.
    """
    name = image.storage_choice.value
    bounds = Bounds.of_storage(name, services.host.collect(families.STORAGE).owner(name), REPOSITORY)
    apply(contents.repository[:1], target)
    bounds.apply(contents.repository[1:], target)
    apply((*contents.state_actions, *contents.first_boot.files.values(), plan_origin(contents.state, ())), target)


def _completed(
    target: MemoryTarget, contents: PlannedContents, decisions: Decisions, menu: BootMenu, image: PreparedImage
) -> tuple[Step, ...]:
    """Add loader, menu and origin file to *target*, and return all the steps that filled it."""
    loader, facts = decisions.bootloader_choice.value, decisions.facts
    bounds = Bounds.of_bootloader(loader, decisions.bootloader_owner, decisions.bootloader.needs(facts), facts)
    loader_actions = bounds.apply(tuple(decisions.bootloader.plan_install(target, facts)), target)
    planned_menu = tuple(decisions.bootloader.plan_menu(target, BootMenu(entries=()), menu, facts))
    menu_actions = bounds.apply(planned_menu, target)
    check_filled(target, menu, facts, decisions.bootloader, (loader, decisions.bootloader_owner))
    origin = plan_origin(contents.state, _boot_files(target), (loader, decisions.bootloader_owner.distribution))
    target.apply(origin)
    storage = image.storage_choice.value
    return (
        Step(id="repository", provider=storage, title="repository", actions=contents.repository),
        Step(
            id="state", provider="cfs-core", title="state of the deployment", actions=(*contents.state_actions, origin)
        ),
        *_first_boot(contents),
        Step(id="bootloader", provider=loader, title="bootloader", actions=loader_actions),
        Step(id="menu", provider=loader, title="boot menu", actions=menu_actions),
    )


def _first_boot(contents: PlannedContents) -> list[Step]:
    actions = tuple(contents.first_boot.files.values())
    return [Step(id="first-boot", provider="cfs-core", title="files of first boot", actions=actions)] if actions else []


def _boot_files(target: MemoryTarget) -> tuple[BootFile, ...]:
    """Return every file that loader and menu have put anywhere, with its SHA-256."""
    found: list[BootFile] = []
    for volume in sorted(target.volumes()):
        for action in target.contents(volume).values() if volume not in RAW else ():
            # The repository's names are digests, so it proves itself; what is below /state is the machine's to change.
            if action.location.path.startswith((f"{REPOSITORY.path}/", "/state/")):
                continue
            if isinstance(action, WriteFile) and not action.volatile:
                found.append((action.location, Digest.of(action.data).hex))
            elif isinstance(action, CopyObject):
                with action.source.open() as file:
                    found.append((action.location, Digest.of_stream(file).hex))
    return tuple(found)


def _findings(
    plan: InstallPlan, decisions: Decisions, disk: PlannedDisk, entry: PlannedEntry, services: Services
) -> tuple[Finding, ...]:
    """Bring all findings together, each with who found it."""
    facts = decisions.facts
    contributed = services.host.contribute("cfs_check_plan", Finding, plan=plan, facts=facts)
    return (
        *(_stamped(finding, "cfs-core") for finding in (*decisions.findings, *disk.findings, *entry.findings)),
        *(replace(finding, origin=owner.distribution) for owner, finding in contributed),
        *(_stamped(finding, "cfs-core") for finding in _plugin_faults(services)),
    )


def _stamped(finding: Finding, origin: str) -> Finding:
    return finding if finding.origin else replace(finding, origin=origin)


def _plugin_faults(services: Services) -> list[Finding]:
    """A check or a kernel argument that was lost to a fault is not harmless."""
    return [
        Finding.error("plugin.fault", str(trouble), "fix the plugin, or switch it off with --disable-plugin")
        for trouble in services.host.trouble
        if trouble.fatal and trouble.hook in {"cfs_check_plan", "cfs_kernel_arguments"}
    ]
