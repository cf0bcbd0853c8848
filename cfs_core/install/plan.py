"""The plan: partitions, actions, menu, findings. Made without writing anything; dry runs show it, `run` applies it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.image.kernel_arguments import collect_arguments
from cfs_core.install import preflight
from cfs_core.install.choose import (
    Choice,
    choose_architecture,
    choose_artifacts,
    choose_bootloader,
    choose_firmware,
)
from cfs_core.install.state import REPOSITORY, ROOT, DeploymentState, label_of, plan_state
from cfs_core.interfaces.bootloader import BootFacts
from cfs_core.interfaces.layout import LayoutRequest
from cfs_core.model.action import Attributes, CopyObject, MakeDirectory, MakeSymlink, WriteFile
from cfs_core.model.boot import BootEntry, BootMenu, EntryKind, Firmware, KernelArgument
from cfs_core.model.digest import Digest
from cfs_core.model.disk import Location, Volume, VolumeNeed
from cfs_core.model.plan import Finding, InstallPlan, Severity, Step
from cfs_core.pluginhost import families
from cfs_core.target.memory import RAW, MemoryTarget

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cfs_core.install.prepare import PreparedImage
    from cfs_core.install.request import InstallRequest
    from cfs_core.install.services import Services
    from cfs_core.interfaces.bootloader import Bootloader
    from cfs_core.interfaces.filesystem import Filesystem
    from cfs_core.interfaces.layout import DiskLayout
    from cfs_core.model.action import Action, PlacingAction
    from cfs_core.model.boot import BootArtifacts
    from cfs_core.model.disk import Partition
    from cfs_core.model.tree import Xattrs

MIB = 1 << 20
ROOT_ROOM = 512 * MIB
"""Bytes beyond half the image that a root partition of unspecified size leaves free for logs, /var and an update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInstall:
    """A plan with the providers that will carry it out."""

    plan: InstallPlan
    facts: BootFacts
    bootloader: Bootloader
    bootloader_choice: Choice
    layout: DiskLayout
    filesystems: dict[Volume, Filesystem]
    verity: bool


def make_plan(request: InstallRequest, image: PreparedImage, services: Services) -> PreparedInstall:
    """Decide everything.

    Raises:
        PluginError, ImageError, UsageError, RefusedError: no plan can be made at all. Faults of a plan that can be
            made are findings in it.
    """
    settings = image.settings
    architecture = choose_architecture(image.resolved.config.platform.architecture)
    artifacts = choose_artifacts(image.artifacts)
    asked = choose_firmware(request, settings)
    registry = services.host.collect(families.BOOTLOADERS)
    choice = choose_bootloader(request, settings, registry, image.merged, artifacts.kind, asked)
    provider = registry.get(choice.value)
    section = settings.section("bootloader", choice.value)
    bootloader: Bootloader = services.make(families.BOOTLOADERS, choice.value, section, seed=request.seed)
    filesystem_name = request.filesystem or str(settings.value("install.filesystem"))
    root_filesystem = services.host.collect(families.FILESYSTEMS).get(filesystem_name)
    verity = root_filesystem.verity
    facts = BootFacts(
        architecture=architecture,
        firmware=asked or _default_firmware(provider.firmware),
        image=image.merged,
        artifacts=artifacts,
        root_filesystem=filesystem_name,
        volumes=frozenset({request.boot_volume}) if request.boot_volume else frozenset(),
        seed=request.seed or "",
    )
    findings: list[Finding] = list(bootloader.check(facts))
    unplannable = any(finding.severity is Severity.ERROR for finding in findings)
    findings += preflight.check_architecture(artifacts, architecture)
    verdict, problems = preflight.examine_initramfs(services, artifacts, image.merged, image.storage_name)
    findings += problems
    if unplannable:
        preflight.refuse_errors(findings)
    if not verity and services.host.collect(families.STORAGE).get(image.storage_name).needs_verity:
        findings.append(_no_verity(filesystem_name, sealed=image.sealed))
    own = list(image.repository.kernel_arguments(image.committed, verity=verity))
    if verdict is not None:
        own += [KernelArgument(text=text, origin=f"initramfs ({verdict.handler})") for text in verdict.arguments]
    contributed = services.host.contribute("cfs_kernel_arguments", KernelArgument, facts=facts)
    own += [argument for _, argument in contributed]
    return _planned(request, image, services, facts, bootloader, choice, verity, findings, own)


def _planned(
    request: InstallRequest,
    image: PreparedImage,
    services: Services,
    facts: BootFacts,
    bootloader: Bootloader,
    choice: Choice,
    verity: bool,  # noqa: FBT001
    findings: list[Finding],
    own: list[KernelArgument],
) -> PreparedInstall:
    settings = image.settings
    artifacts = facts.artifacts
    assert artifacts is not None  # noqa: S101 - set by make_plan
    layout: DiskLayout = services.make(families.LAYOUTS, str(settings.value("install.layout")), seed=request.seed)
    root = services.make(families.FILESYSTEMS, facts.root_filesystem, seed=request.seed)
    storage_actions = _repository_actions(image, verity=verity)
    state = _state(request, image, artifacts)
    state_actions = list(plan_state(state))
    needs = list(bootloader.needs(facts))
    contents = _contents([*storage_actions, *state_actions])
    root_bytes = root.bytes_needed(contents)
    extra = sum(need.bytes_needed for need in needs if need.volume is Volume.ROOT)
    root_size = request.root_size or settings.value("install.root-size")
    room = 0 if root_size else root_bytes // 2 + ROOT_ROOM
    needs = [need for need in needs if need.volume is not Volume.ROOT]
    needs.append(
        VolumeNeed(
            volume=Volume.ROOT,
            bytes_needed=root_bytes + extra + room,
            filesystems=(facts.root_filesystem,),
            why="the system",
        )
    )
    esp_size = request.esp_size or settings.value("install.esp-size")
    partitions = layout.plan(
        LayoutRequest(
            needs=needs,
            architecture=facts.architecture,
            root_filesystem=facts.root_filesystem,
            root_size=root_size,
            disk_size=request.disk_size,
            volume_sizes={Volume.ESP: esp_size} if esp_size else {},
            seed=request.seed,
        )
    )
    filesystems = _filesystems(partitions, services, root, request.seed)
    findings += preflight.check_hosts(filesystems)
    findings += preflight.check_fits({Volume.ROOT: root_bytes + extra}, partitions)
    boot_bytes = sum(need.bytes_needed for need in needs[:-1])
    findings += preflight.check_space(request.disk.absolute().parent, root_bytes + extra + boot_bytes)
    arguments, entry, argument_findings = _entry(request, image, facts, partitions, own)
    findings += argument_findings
    target = MemoryTarget(
        partitions,
        commands=services.commands,
        scratch=services.scratch,
        host_tools=bool(settings.value("install.host-tools")),
    )
    loader_actions = tuple(bootloader.plan_install(target, facts))
    for action in loader_actions:
        target.apply(action)
    menu = BootMenu(entries=(entry,), timeout_seconds=settings.value("install.timeout"))
    menu_actions = tuple(bootloader.plan_menu(target, BootMenu(entries=()), menu, facts))
    for action in menu_actions:
        target.apply(action)
    state_actions = list(plan_state(replace(state, boot_files=_boot_files(target))))
    steps = (
        Step(id="repository", provider=image.storage_name, title="repository", actions=tuple(storage_actions)),
        Step(id="state", provider="cfs-core", title="state of the deployment", actions=tuple(state_actions)),
        Step(id="bootloader", provider=choice.value, title="bootloader", actions=loader_actions),
        Step(id="menu", provider=choice.value, title="boot menu", actions=menu_actions),
    )
    plan = InstallPlan(
        image=image.resolved,
        image_id=image.committed.id,
        partitions=partitions,
        steps=steps,
        menu=menu,
        arguments=tuple(arguments),
    )
    findings += [finding for _, finding in services.host.contribute("cfs_check_plan", Finding, plan=plan, facts=facts)]
    findings += _plugin_faults(services)
    return PreparedInstall(
        plan=replace(plan, findings=tuple(findings)),
        facts=facts,
        bootloader=bootloader,
        bootloader_choice=choice,
        layout=layout,
        filesystems=filesystems,
        verity=verity,
    )


def _entry(
    request: InstallRequest,
    image: PreparedImage,
    facts: BootFacts,
    partitions: Sequence[Partition],
    own: list[KernelArgument],
) -> tuple[list[KernelArgument], BootEntry, list[Finding]]:
    """Bring the kernel arguments of all origins together, and make the menu entry."""
    artifacts = facts.artifacts
    assert artifacts is not None  # noqa: S101 - set by make_plan
    root = next(partition for partition in partitions if partition.volume is Volume.ROOT)
    settings_arguments = [
        KernelArgument(text=text, origin=setting.origin)
        for setting in image.settings.every("install.kargs")
        for text in setting.value  # type: ignore[attr-defined]  # a list of strings, checked when it was read
    ]
    asked = [KernelArgument(text=text, origin="--karg") for text in request.kargs]
    findings: list[Finding] = []
    if artifacts.kind is EntryKind.UKI:
        findings += preflight.check_uki_arguments(artifacts, [*asked, *settings_arguments])
        arguments = [KernelArgument(text=text, origin="the UKI") for text in artifacts.sealed_arguments]
    else:
        root_argument = KernelArgument(text=f"root=UUID={root.fs_uuid}", origin="disk layout")
        collected = collect_arguments(
            image.merged,
            image.resolved.config.labels,
            facts.architecture,
            own=[root_argument, *own],
            settings=settings_arguments,
            added=asked,
            deleted=request.karg_deletes,
        )
        arguments = list(collected.arguments)
        findings += collected.findings
    release = dict(artifacts.os_release)
    entry = BootEntry(
        deployment_id=image.committed.id,
        kind=artifacts.kind,
        title=release.get("PRETTY_NAME") or release.get("NAME") or release.get("ID") or image.committed.id,
        version=release.get("VERSION_ID") or release.get("VERSION") or image.committed.id,
        os_id=release.get("ID") or "bootc",
        arguments=() if artifacts.kind is EntryKind.UKI else tuple(argument.text for argument in arguments),
        artifacts=artifacts,
    )
    return arguments, entry, findings


def _repository_actions(image: PreparedImage, *, verity: bool) -> list[Action]:
    """Return what makes the repository on the root volume, its files labelled as /usr is."""
    label = label_of(image.deployed, b"/usr")
    storage = [
        _labelled(action, label)
        for action in image.repository.plan_export([image.committed], REPOSITORY, verity=verity)
    ]
    storage.insert(0, MakeDirectory(location=ROOT, why="root of the volume", attributes=_root_attributes(image)))
    return storage


def _state(request: InstallRequest, image: PreparedImage, artifacts: BootArtifacts) -> DeploymentState:
    return DeploymentState(
        image_id=image.committed.id,
        tree=image.deployed,
        content=image.repository.content,
        target_imgref=request.target_imgref or str(image.resolved.reference),
        boot_type=artifacts.kind,
        boot_digest=artifacts.boot_digest,
        manifest_digest=image.resolved.manifest.digest,
        verified=image.verified,
        root_ssh_authorized_keys=request.root_ssh_authorized_keys,
    )


def _boot_files(target: MemoryTarget) -> tuple[tuple[Location, str], ...]:
    """Return every file that loader and menu will have put anywhere, with its SHA-256."""
    found: list[tuple[Location, str]] = []
    for volume in sorted(target.volumes()):
        for action in target.contents(volume).values() if volume not in RAW else ():
            if isinstance(action, WriteFile) and not action.volatile:
                found.append((action.location, Digest.of(action.data).hex))
            elif isinstance(action, CopyObject):
                with action.source.open() as file:
                    found.append((action.location, Digest.of_stream(file).hex))
    return tuple(found)


def _root_attributes(image: PreparedImage) -> Attributes:
    return Attributes(mode=0o755, xattrs=label_of(image.deployed, b"/"))


def _labelled(action: Action, label: Xattrs) -> Action:
    if (
        label
        and isinstance(action, CopyObject | WriteFile | MakeDirectory | MakeSymlink)
        and not action.attributes.xattrs
    ):
        return replace(action, attributes=replace(action.attributes, xattrs=label))
    return action


def _contents(actions: Iterable[Action]) -> dict[str, PlacingAction]:
    """Collect what a volume will hold, by path, as filesystems measure it."""
    target = MemoryTarget.planned(())
    for action in actions:
        target.apply(action)
    return target.contents(Volume.ROOT)


def _filesystems(
    partitions: Sequence[Partition], services: Services, root: Filesystem, seed: str | None
) -> dict[Volume, Filesystem]:
    made: dict[Volume, Filesystem] = {Volume.ROOT: root}
    for partition in partitions:
        if partition.filesystem is not None and partition.volume not in made:
            made[partition.volume] = services.make(families.FILESYSTEMS, partition.filesystem, seed=seed)
    return made


def _default_firmware(offered: frozenset[Firmware]) -> frozenset[Firmware]:
    return frozenset({Firmware.UEFI}) if Firmware.UEFI in offered else offered


def _no_verity(filesystem: str, *, sealed: bool) -> Finding:
    message = f"{filesystem} has no fs-verity"
    if sealed:
        return preflight.error("disk.no-verity", f"{message}, which a sealed image requires", "use --filesystem ext4")
    return preflight.warning("disk.no-verity", f"{message}: the system will start, but its files are not verified")


def _plugin_faults(services: Services) -> list[Finding]:
    """A check or a kernel argument that was lost to a fault is not harmless."""
    return [
        preflight.error("plugin.fault", str(trouble), "fix the plugin, or switch it off with --disable-plugin")
        for trouble in services.host.trouble
        if trouble.fatal and trouble.hook in {"cfs_check_plan", "cfs_kernel_arguments"}
    ]
