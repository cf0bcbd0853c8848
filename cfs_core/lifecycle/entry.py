"""The boot entry of a deployment that comes to a machine that runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.deploy.choose import choose_artifacts, choose_storage
from cfs_core.deploy.deployment import plan_entry
from cfs_core.deploy.early_boot import EarlyBootQuestion, settle_early_boot
from cfs_core.deploy.request import ArgumentRequest
from cfs_core.image.artifacts import find_artifacts
from cfs_core.image.kernel_arguments import image_arguments
from cfs_core.lifecycle.addons import carried
from cfs_core.lifecycle.arguments import next_arguments
from cfs_core.model.boot import BootEntry, EntryKind
from cfs_core.model.disk import Partition, Volume
from cfs_core.model.plan import Finding
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from cfs_core.deploy.decide import Decisions
    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.image.reader import ImageReader
    from cfs_core.lifecycle.session import Session
    from cfs_core.lifecycle.stored import StoredDeployment
    from cfs_core.model.boot import BootArtifacts, KernelArgument

_UNKNOWN_ROOT = Partition(number=0, volume=Volume.ROOT, start=0, size=0, type_guid="", uuid="", name="")


def new_entry(
    session: Session, image: PreparedImage, decisions: Decisions, old: StoredDeployment
) -> tuple[BootEntry, tuple[Finding, ...]]:
    """Return the entry, and what is odd about its arguments.

    Arguments of a unified kernel image are sealed in it, but for addons, which are carried on; others are those of what
    runs, with what both images ask for exchanged.
    """
    artifacts = decisions.artifacts
    if artifacts.kind is EntryKind.UKI:
        root = session.target.partition(Volume.ROOT) or _UNKNOWN_ROOT
        booted = session.machine.require_booted()
        choice = carried(session.target, booted.boot_entry, old)
        planned = plan_entry(ArgumentRequest(), image, replace(decisions, artifacts=choice.of(artifacts)), root)
        return planned.entry, planned.findings
    needed = [*image.repository.kernel_arguments(image.committed, verity=decisions.verity), *decisions.arguments]
    asked = image_arguments(image.merged, image.resolved.config.labels, decisions.facts.architecture)
    arguments = next_arguments(
        running_arguments(session),
        old_image=old.kernel_arguments(decisions.facts.architecture),
        new_image=[argument.text for argument in asked],
        needed=_texts(needed),
    )
    return entry_of(image.committed.id, artifacts, arguments), tuple(_length(arguments))


def entry_of(identity: str, artifacts: BootArtifacts, arguments: tuple[str, ...]) -> BootEntry:
    """Return the entry of deployment *identity*, named as its os-release names it."""
    release = dict(artifacts.os_release)
    return BootEntry(
        deployment_id=identity,
        kind=artifacts.kind,
        title=release.get("PRETTY_NAME") or release.get("NAME") or release.get("ID") or identity,
        version=release.get("VERSION_ID") or release.get("VERSION") or identity,
        os_id=release.get("ID") or "bootc",
        arguments=() if artifacts.kind is EntryKind.UKI else arguments,
        artifacts=artifacts,
    )


def settled_artifacts(session: Session, merged: ImageReader) -> BootArtifacts:
    """Return what an image boots from, with the initrd that `decide` added to it, made again from the image.

    Raises:
        ImageError: it has no kernel.
        PluginError: nothing chooses a storage format.
    """
    artifacts = choose_artifacts(find_artifacts(merged), merged)
    services, there = session.services, session.facts().root_filesystem
    known, loaders = services.host.collect(families.FILESYSTEMS), services.host.collect(families.BOOTLOADERS)
    loader = session.machine.loader or session.machine.require_booted().origin.bootloader or ""
    asked = EarlyBootQuestion(
        artifacts=artifacts,
        image=merged,
        storage=choose_storage(services.settings, services.host.collect(families.STORAGE), {}).value,
        filesystem=there if there in known else str(services.settings.value("install.filesystem")),
        wanted=str(services.settings.value("install.early-boot")),
        one_initrd=loader in loaders and loaders.get(loader).one_initrd,
    )
    return settle_early_boot(asked, services).artifacts


def running_arguments(session: Session) -> tuple[str, ...]:
    """Return the arguments of what runs, as its entry has them: a loader adds some of its own to the command line."""
    booted = session.machine.booted
    entry = booted.boot_entry if booted is not None else None
    if entry is not None and entry.kind is EntryKind.BLS:
        return entry.arguments
    return tuple(word for word in session.machine.running.arguments if not word.startswith("initrd="))


def _texts(arguments: list[KernelArgument]) -> tuple[str, ...]:
    return tuple(argument.text for argument in arguments)


_LIMIT = 2047
"""COMMAND_LINE_SIZE of most kernels less its NUL."""


def _length(arguments: tuple[str, ...]) -> list[Finding]:
    length = len(" ".join(arguments).encode("utf-8", "surrogateescape"))
    if length <= _LIMIT:
        return []
    message = f"the kernel command line has {length} bytes, kernels read {_LIMIT}"
    return [Finding.error("boot.cmdline-too-long", message, "take some away with `cfs kargs delete`")]
