"""An image judged without a disk: everything that an install would plan, by loader, firmware and root filesystem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.config.settings import options_layer
from cfs_core.deploy.preflight import PreflightError, refuse_errors
from cfs_core.deploy.prepare import prepare
from cfs_core.errors import BootError, CfsError, DiskError, ImageError, PluginError, VerificationError
from cfs_core.install.plan import make_plan
from cfs_core.install.run import checked
from cfs_core.model.event import Event
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.deploy.services import Services
    from cfs_core.install.plan import PreparedInstall
    from cfs_core.install.request import PlanRequest

_OF_THE_IMAGE = (BootError, DiskError, ImageError, PluginError, VerificationError)
"""What an image, or its image with these choices, may be refused for; other errors say that it was not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an install with these choices would do; a choice is None where it came to none."""

    bootloader: str | None = None
    firmware: tuple[str, ...] = ()
    filesystem: str | None = None
    kernel: str | None = None
    """Where in the image the chosen kernel or UKI is."""

    kernel_version: str | None = None
    kernel_arguments: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    error: CfsError | None = None
    """What an install would end with; None where it would install."""

    @property
    def name(self) -> str:
        """What was asked about, in words."""
        return ", ".join(filter(None, (self.bootloader, "+".join(self.firmware), self.filesystem))) or "as it is"


def check(request: PlanRequest, choices: Sequence[Mapping[str, object]], services: Services) -> tuple[Judgement, ...]:
    """Judge the image of *request* once for each of *choices*: settings by name, None where the image decides.

    Raises:
        CfsError: it could not be judged: it was not found, not fetched, or a policy refuses it.
    """
    request = checked(request)
    try:
        with prepare(request, services) as image:
            services.emit(Event(name="plan.started"))
            return tuple(_judge(request, image, choice, services) for choice in choices)
    except ImageError as cause:
        return tuple(_refused(choice, cause) for choice in choices)


def _judge(request: PlanRequest, image: PreparedImage, choice: Mapping[str, object], services: Services) -> Judgement:
    settings = image.settings.with_layer(options_layer(choice))
    try:
        made = _judgement(make_plan(request, replace(image, settings=settings), services))
    except _OF_THE_IMAGE as cause:
        return _refused(choice, cause)
    try:
        refuse_errors(made.findings)
    except PreflightError as cause:
        return replace(made, error=cause)
    return made


def _judgement(prepared: PreparedInstall) -> Judgement:
    decisions = prepared.decisions
    return Judgement(
        bootloader=decisions.bootloader_choice.value,
        firmware=tuple(sorted(decisions.facts.firmware)),
        filesystem=decisions.filesystem_choice.value,
        kernel=decisions.artifacts.path,
        kernel_version=decisions.artifacts.kernel_version,
        kernel_arguments=tuple(argument.text for argument in prepared.plan.arguments),
        findings=prepared.plan.findings,
    )


def _refused(choice: Mapping[str, object], cause: CfsError) -> Judgement:
    """Return the judgement where no plan can be made at all; what was asked for stands for what was chosen."""
    found = cause.facts.get("findings")
    itself = replace(Finding.error(cause.code, cause.message, cause.hint), origin="cfs-core")
    asked = {name: str(value) for name, value in choice.items() if value is not None}
    return Judgement(
        bootloader=asked.get("install.bootloader"),
        firmware=tuple(filter(None, [asked.get("install.firmware")])),
        filesystem=asked.get("install.filesystem"),
        findings=tuple(found) if isinstance(found, list) else (itself,),
        error=cause,
    )
