"""Deciding: what is deployed and how it will start, each choice with who made it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.deploy import preflight
from cfs_core.deploy.bootable.kernels import examine_artifacts, examine_choice, examine_initrd_presence
from cfs_core.deploy.choose import (
    choose_addons,
    choose_architecture,
    choose_artifacts,
    choose_bootloader,
    choose_filesystem,
    choose_firmware,
)
from cfs_core.deploy.early_boot import EarlyBootQuestion, SettledEarlyBoot, settle_early_boot
from cfs_core.deploy.loader import examine_firmware, wanted_timeout
from cfs_core.interfaces.bootloader import BootFacts
from cfs_core.model.boot import Firmware, KernelArgument
from cfs_core.model.plan import Finding, Severity
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from cfs_core.deploy.choose import Choice
    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.deploy.request import DeploymentRequest
    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.bootloader import Bootloader
    from cfs_core.interfaces.provider import BootloaderProvider
    from cfs_core.model.boot import BootArtifacts
    from cfs_core.pluginhost.registry import PluginId


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What is settled before anything is planned."""

    facts: BootFacts
    artifacts: BootArtifacts
    bootloader: Bootloader
    bootloader_choice: Choice
    bootloader_owner: PluginId
    filesystem_choice: Choice
    verity: bool
    """Whether the root filesystem has fs-verity."""

    arguments: tuple[KernelArgument, ...]
    """Kernel arguments of early boot and of plugins."""

    findings: tuple[Finding, ...]
    timeout_seconds: int | None = None
    """How long the boot menu is shown; None leaves it to the loader."""


def decide(request: DeploymentRequest, image: PreparedImage, services: Services) -> Decisions:
    """Choose architecture, kernel, bootloader, firmware and root filesystem, and look whether they fit the image.

    Raises:
        PluginError, ImageError, UsageError, RefusedError: no plan can be made at all. Faults of a plan that can be
            made are findings in it.
    """
    architecture = choose_architecture(image.resolved.config.platform.architecture)
    artifacts = choose_addons(choose_artifacts(image.artifacts, image.merged), request.uki_addons)
    asked = choose_firmware(image.settings)
    loaders = services.host.collect(families.BOOTLOADERS)
    loader = choose_bootloader(image.settings, loaders, image.merged, artifacts.kind, asked)
    known = services.host.collect(families.FILESYSTEMS)
    filesystem = choose_filesystem(image.settings, known)
    facts = BootFacts(
        architecture=architecture,
        firmware=asked or _default_firmware(loaders.get(loader.value).firmware),
        image=image.merged,
        artifacts=artifacts,
        root_filesystem=filesystem.value,
        volumes=frozenset({request.boot_volume}) if request.boot_volume else frozenset(),
        seed=request.seed or "",
    )
    made: Bootloader = services.make(families.BOOTLOADERS, loader.value, settings=image.settings, seed=request.seed)
    provider = loaders.get(loader.value)
    own = _examine_loader(made, provider, facts, artifacts, is_there=request.loader_is_there)
    timeout, unable = wanted_timeout(image.settings, provider)
    early = _early_boot(own, _question(artifacts, image, filesystem.value, provider), image, services)
    facts, findings = replace(facts, artifacts=early.artifacts), list(early.findings)
    verity = known.get(filesystem.value).verity
    if not verity and services.host.collect(families.STORAGE).get(image.storage_choice.value).needs_verity:
        findings.append(_no_verity(filesystem.value, image))
    contributed = services.host.contribute("cfs_kernel_arguments", KernelArgument, facts=facts)
    findings += unable
    return Decisions(
        facts=facts,
        timeout_seconds=timeout,
        artifacts=early.artifacts,
        bootloader=made,
        bootloader_choice=loader,
        bootloader_owner=loaders.owner(loader.value),
        filesystem_choice=filesystem,
        verity=verity,
        arguments=(*early.arguments, *(argument for _, argument in contributed)),
        findings=tuple(findings),
    )


def _examine_loader(
    loader: Bootloader, provider: BootloaderProvider, facts: BootFacts, artifacts: BootArtifacts, *, is_there: bool
) -> list[Finding]:
    """Ask *loader* what is missing, and look whether it starts these *artifacts*; what it said is not said again."""
    own = list(loader.check(facts))
    if is_there:
        own = preflight.without_loader(own)
    told = {finding.code for finding in own}
    own += [finding for finding in examine_firmware(provider, facts.firmware) if finding.code not in told]
    own += examine_artifacts(artifacts, facts.architecture, provider, facts.firmware)
    return own


def _question(
    artifacts: BootArtifacts, image: PreparedImage, filesystem: str, loader: BootloaderProvider
) -> EarlyBootQuestion:
    return EarlyBootQuestion(
        artifacts=artifacts,
        image=image.merged,
        storage=image.storage_choice.value,
        filesystem=filesystem,
        wanted=str(image.settings.value("install.early-boot")),
        one_initrd=loader.one_initrd,
    )


def _early_boot(
    findings: list[Finding], asked: EarlyBootQuestion, image: PreparedImage, services: Services
) -> SettledEarlyBoot:
    """Settle who mounts the root; the result has the *findings* about loader and kernel too.

    Raises:
        PreflightError: the loader cannot start this image: nothing that it would plan means anything then.
    """
    unplannable = any(finding.severity is Severity.ERROR for finding in findings)
    findings = [*findings, *examine_choice(image.artifacts, image.merged)]
    absent = tuple(examine_initrd_presence(asked.artifacts, image.merged))
    settled = SettledEarlyBoot(artifacts=asked.artifacts, findings=absent)
    if not absent and not any(finding.code == "boot.initrd" for finding in findings):
        settled = settle_early_boot(asked, services)
    settled = replace(settled, findings=(*findings, *settled.findings))
    if unplannable:
        preflight.refuse_errors(settled.findings)
    return settled


def _default_firmware(offered: frozenset[Firmware]) -> frozenset[Firmware]:
    return frozenset({Firmware.UEFI}) if Firmware.UEFI in offered else offered


def _no_verity(filesystem: str, image: PreparedImage) -> Finding:
    message = f"{filesystem} has no fs-verity"
    if image.seal is not None and not image.seal.verity_optional:
        return Finding.error("disk.no-verity", f"{message}, which a sealed image requires", "use --filesystem ext4")
    return Finding.warning("disk.no-verity", f"{message}: the system will start, but its files are not verified")
