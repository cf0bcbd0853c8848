"""Planning a deployment: repository objects, state and boot entry. Knows nothing of partition tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.config.settings import Rank
from cfs_core.deploy.bootable.init import examine_init
from cfs_core.deploy.bootable.leftovers import examine_leftovers
from cfs_core.deploy.bootable.tree import examine_tree
from cfs_core.deploy.first_boot.plan import FirstBootPlan, plan_first_boot
from cfs_core.deploy.kernel_line import examine_root, examine_seal, examine_sealed_arguments
from cfs_core.deploy.state import DeploymentState, label_of, plan_state
from cfs_core.image.kernel_arguments import collect_arguments, image_arguments
from cfs_core.image.reader import ImageReader
from cfs_core.image.sealed import parse_words, sealed_arguments
from cfs_core.model.action import Attributes, CopyObject, MakeDirectory, MakeSymlink, WriteFile
from cfs_core.model.boot import BootEntry, EntryKind, KernelArgument
from cfs_core.model.places import DEPLOYMENTS, REPOSITORY, ROOT
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.deploy.decide import Decisions
    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.deploy.request import ArgumentRequest, DeploymentRequest
    from cfs_core.model.action import Action
    from cfs_core.model.disk import Partition
    from cfs_core.model.tree import Xattrs


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedContents:
    """What a deployment puts on the root volume, whichever that is."""

    repository: tuple[Action, ...]
    state: DeploymentState
    state_actions: tuple[Action, ...]
    """Everything but the origin file, which names boot files and so comes after them."""

    first_boot: FirstBootPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEntry:
    """The boot entry of a deployment, its kernel arguments with their origins, and what is odd about them."""

    entry: BootEntry
    arguments: tuple[KernelArgument, ...]
    findings: tuple[Finding, ...]


def plan_contents(request: DeploymentRequest, image: PreparedImage, decisions: Decisions) -> PlannedContents:
    """Plan repository and state.

    Raises:
        ImageError: the image has no /etc.
    """
    label = label_of(image.deployed, b"/usr")
    exported = image.repository.plan_export([image.committed], REPOSITORY, verity=decisions.verity)
    top = MakeDirectory(
        location=ROOT,
        why="root of the volume",
        attributes=Attributes(mode=0o755, xattrs=label_of(image.deployed, b"/")),
    )
    etc = f"{DEPLOYMENTS.path}/{image.committed.id}/etc"
    deployed = ImageReader(image.deployed, image.repository.content)
    first_boot = plan_first_boot(image.settings, request.first_boot, deployed, etc)
    state = DeploymentState(
        image_id=image.committed.id,
        tree=image.deployed,
        content=image.repository.content,
        target_imgref=request.target_imgref or str(image.resolved.reference),
        boot_type=decisions.artifacts.kind,
        boot_digest=decisions.artifacts.boot_digest,
        manifest_digest=image.resolved.manifest.digest,
        verified=image.verified,
        config=image.resolved.config,
        root_ssh_authorized_keys=request.root_ssh_authorized_keys,
        first_boot=first_boot.files,
    )
    return PlannedContents(
        repository=(top, *(_labelled(action, label) for action in exported)),
        state=state,
        state_actions=tuple(plan_state(state)),
        first_boot=first_boot,
    )


def plan_entry(request: ArgumentRequest, image: PreparedImage, decisions: Decisions, root: Partition) -> PlannedEntry:
    """Bring the kernel arguments of all origins together, and make the menu entry that finds *root*."""
    sealed = decisions.artifacts.kind is EntryKind.UKI
    build = _sealed_arguments if sealed else _collected_arguments
    arguments, findings = build(request, image, decisions, root)
    findings += examine_root(arguments, root, sealed=sealed)
    deployed = ImageReader(image.deployed, image.repository.content)
    findings += (
        *examine_tree(deployed),
        *examine_leftovers(deployed),
        *examine_init(deployed, arguments, decisions.facts.architecture),
    )
    release = dict(decisions.artifacts.os_release)
    entry = BootEntry(
        deployment_id=image.committed.id,
        kind=decisions.artifacts.kind,
        title=release.get("PRETTY_NAME") or release.get("NAME") or release.get("ID") or image.committed.id,
        version=release.get("VERSION_ID") or release.get("VERSION") or image.committed.id,
        # What bootc calls an image without an ID of its own.
        os_id=release.get("ID") or "bootc",
        arguments=() if sealed else tuple(argument.text for argument in arguments),
        artifacts=decisions.artifacts,
    )
    findings += _ignored_advice(image)
    return PlannedEntry(entry=entry, arguments=tuple(arguments), findings=tuple(findings))


def _ignored_advice(image: PreparedImage) -> list[Finding]:
    """Say what of the image's settings has no effect: whoever wrote them relies on it."""
    advised = [layer for layer in image.settings.layers if layer.rank is Rank.IMAGE]
    hint = "leave it out of the image, or see `cfs config show` for the settings there are"
    return [Finding.warning("image.setting-ignored", text, hint) for layer in advised for text in layer.warnings]


def _sealed_arguments(
    request: ArgumentRequest, image: PreparedImage, decisions: Decisions, _root: Partition
) -> tuple[list[KernelArgument], list[Finding]]:
    """Take the command line of the UKI; say what cannot be added to it."""
    artifacts = decisions.artifacts
    arguments = list(sealed_arguments(artifacts))
    from_image = image_arguments(image.merged, image.resolved.config.labels, decisions.facts.architecture)
    advised = [*from_image, *_configured(image, advice=True), *decisions.arguments]
    demanded = [*_asked(request), *_configured(image, advice=False)]
    findings = list(
        examine_sealed_arguments(arguments, demanded=demanded, advised=advised, deleted=request.karg_deletes)
    )
    needed = image.repository.kernel_arguments(image.committed, verity=decisions.verity)
    if any(parse_words(argument.text for argument in needed)):
        words = [argument.text for argument in arguments]
        findings += examine_seal(words, image.committed.id, artifacts.uki_name or "the UKI")
    return arguments, findings


def _collected_arguments(
    request: ArgumentRequest, image: PreparedImage, decisions: Decisions, root: Partition
) -> tuple[list[KernelArgument], list[Finding]]:
    root_argument = KernelArgument(text=f"root=UUID={root.fs_uuid}", origin="disk layout")
    needed = image.repository.kernel_arguments(image.committed, verity=decisions.verity)
    collected = collect_arguments(
        image.merged,
        image.resolved.config.labels,
        decisions.facts.architecture,
        own=[root_argument, *needed, *decisions.arguments],
        settings=[*_configured(image, advice=True), *_configured(image, advice=False)],
        added=_asked(request),
        deleted=request.karg_deletes,
        configured_deletes=[
            KernelArgument(text=text, origin=setting.origin)
            for setting in image.settings.every("install.karg-deletes")
            if isinstance(setting.value, tuple)
            for text in setting.value
        ],
    )
    return list(collected.arguments), list(collected.findings)


def _asked(request: ArgumentRequest) -> list[KernelArgument]:
    return [KernelArgument(text=text, origin="--karg") for text in request.kargs]


def _configured(image: PreparedImage, *, advice: bool) -> Iterable[KernelArgument]:
    """Yield the arguments of settings: those that the image advises, or those of everybody else."""
    for setting in image.settings.every("install.kargs"):
        if (setting.rank is Rank.IMAGE) is advice and isinstance(setting.value, tuple):
            yield from (KernelArgument(text=text, origin=setting.origin) for text in setting.value)


def _labelled(action: Action, label: Xattrs) -> Action:
    """Label a file of the repository as /usr is: with SELinux on, early boot could not read it otherwise."""
    if (
        label
        and isinstance(action, CopyObject | WriteFile | MakeDirectory | MakeSymlink)
        and not action.attributes.xattrs
    ):
        return replace(action, attributes=replace(action.attributes, xattrs=label))
    return action
