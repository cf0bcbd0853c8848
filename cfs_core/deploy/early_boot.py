"""Who mounts the root: the image's initramfs as it is, or with a second initrd that plugins make for it (ADR 0023)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.deploy.preflight import examine_initramfs, stamped
from cfs_core.image.artifacts import with_initrd, with_one_initrd
from cfs_core.interfaces.initramfs import InitramfsAddition
from cfs_core.model.boot import KernelArgument
from cfs_core.model.plan import Finding
from cfs_core.pluginhost import families
from cfs_core.report.progress import human_bytes

if TYPE_CHECKING:
    from cfs_core.deploy.services import Services
    from cfs_core.image.reader import ImageReader
    from cfs_core.interfaces.initramfs import InitramfsVerdict
    from cfs_core.model.boot import BootArtifacts
    from cfs_core.pluginhost.registry import PluginId

SUPPLEMENT = "supplement"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyBootQuestion:
    """What must be mounted by which initramfs, and what may be done for it.

    ``storage`` and ``filesystem`` are names (``composefs``, ``ext4``), ``wanted`` is the value of install.early-boot,
    ``one_initrd`` what the bootloader declares.
    """

    artifacts: BootArtifacts
    image: ImageReader
    storage: str
    filesystem: str
    wanted: str
    one_initrd: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledEarlyBoot:
    """The artifacts to boot, an initrd added where it is needed, and the kernel arguments that early boot wants."""

    artifacts: BootArtifacts
    arguments: tuple[KernelArgument, ...] = ()
    findings: tuple[Finding, ...] = ()


def settle_early_boot(asked: EarlyBootQuestion, services: Services) -> SettledEarlyBoot:
    """Ask the initramfs plugins whether the root will be mounted, and for what makes it so where it would not be."""
    verdict, findings = examine_initramfs(services, asked.artifacts, asked.image, asked.storage)
    as_it_is = _settled(asked.artifacts, verdict, findings)
    # A plugin that failed, or none at all, is no initramfs that lacks something.
    lacking = [finding for finding in findings if finding.code == "boot.initramfs"]
    if verdict is None and not lacking:
        return as_it_is
    if asked.wanted == "never":
        return replace(as_it_is, findings=tuple(_may_be_added(finding) for finding in findings))
    if verdict is not None and asked.wanted != "always":
        return as_it_is
    offer = _offer(asked, services)
    if offer is None:
        return as_it_is
    owner, answer = offer
    if isinstance(answer, InitramfsAddition):
        reason = lacking[0].message if lacking else "--early-boot always asks for it"
        return _added(asked, answer, reason, services)
    if not lacking:
        refusal = Finding.error("boot.early-boot", f"early boot cannot be added: {answer.reason}", answer.hint)
        return replace(as_it_is, findings=tuple(stamped([refusal], owner)))
    first = lacking[0]
    message = f"{first.message}, and early boot cannot be added: {answer.reason}"
    return replace(as_it_is, findings=(replace(first, message=message, hint=answer.hint or first.hint),))


def _settled(artifacts: BootArtifacts, verdict: InitramfsVerdict | None, findings: list[Finding]) -> SettledEarlyBoot:
    words = () if verdict is None else verdict.arguments
    origin = f"initramfs ({verdict.handler})" if verdict is not None else ""
    arguments = tuple(KernelArgument(text=text, origin=origin) for text in words)
    return SettledEarlyBoot(artifacts=artifacts, arguments=arguments, findings=tuple(findings))


def _may_be_added(finding: Finding) -> Finding:
    hint = f"{finding.hint}; or leave out --early-boot never (install.early-boot), so that cfs adds what is missing"
    return replace(finding, hint=hint) if finding.hint and finding.code == "boot.initramfs" else finding


def _offer(
    asked: EarlyBootQuestion, services: Services
) -> tuple[PluginId, InitramfsAddition | InitramfsVerdict] | None:
    """Return the first addition that a plugin offers, else the first reason why there is none."""

    def supplement(name: str) -> InitramfsAddition | InitramfsVerdict | None:
        made = services.make(families.INITRAMFS, name)
        answer: InitramfsAddition | InitramfsVerdict | None = made.supplement(
            asked.artifacts, asked.image, asked.storage, asked.filesystem
        )
        return answer

    refused = None
    registry = services.host.collect(families.INITRAMFS)
    for provider in registry:
        owner = registry.owner(provider.name)
        answer = services.host.attempt(owner, SUPPLEMENT, supplement, provider.name)
        if isinstance(answer, InitramfsAddition):
            return owner, answer
        if answer is not None and refused is None:
            refused = owner, answer
    return refused


def _added(asked: EarlyBootQuestion, addition: InitramfsAddition, reason: str, services: Services) -> SettledEarlyBoot:
    """Take *addition*, if the two initrds together mount the root."""
    artifacts = with_initrd(asked.artifacts, addition.content)
    verdict, findings = examine_initramfs(services, artifacts, asked.image, asked.storage)
    if verdict is None:
        return _settled(asked.artifacts, None, findings)
    size = human_bytes(addition.content.size)
    where = f"{size} in one file with the image's initrd" if asked.one_initrd else f"a second initrd of {size}"
    message = f"early boot is added, {where} with {', '.join(addition.contains)}: {reason}"
    told = Finding.note("boot.early-boot", message, "--early-boot never leaves the image's initramfs as it is")
    artifacts = with_one_initrd(artifacts) if asked.one_initrd else artifacts
    return _settled(artifacts, verdict, [*findings, told])
