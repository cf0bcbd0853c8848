"""The verb install: prepare, plan, show, write, read back, publish."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from cfs_core.deploy.authorized_keys import check_authorized_keys
from cfs_core.deploy.first_boot.request import check_first_boot
from cfs_core.deploy.loader import refuse_early
from cfs_core.deploy.preflight import refuse_errors
from cfs_core.deploy.prepare import PreparedImage, prepare
from cfs_core.deploy.request import DeploymentRequest
from cfs_core.deploy.target_reference import refuse_line_breaks, target_reference
from cfs_core.examine.read_back import Makers, read_back
from cfs_core.install.plan import PreparedInstall, make_plan
from cfs_core.model.event import Event
from cfs_core.pluginhost import families
from cfs_core.target.image import ImageTarget
from cfs_core.target.read import open_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cfs_core.deploy.services import Services
    from cfs_core.install.request import InstallRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallResult:
    """What was installed. Times in seconds, sizes in bytes."""

    disk: Path
    disk_bytes: int
    image_id: str
    manifest_digest: str
    bootloader: str
    firmware: tuple[str, ...]
    """What starts the disk, sorted."""

    architecture: str
    kernel_arguments: tuple[str, ...]
    verified: tuple[str, ...]
    """What policies proved about the image, by policy."""

    took_seconds: float


R = TypeVar("R", bound=DeploymentRequest)


def checked(request: R) -> R:
    """Return *request* with the place of updates as origin files have it; what can be is looked at before any work.

    Raises:
        UsageError: keys that are none, or names that an origin file cannot hold.
    """
    if request.root_ssh_authorized_keys is not None:
        check_authorized_keys(request.root_ssh_authorized_keys)
    if request.target_imgref is None:
        refuse_line_breaks(request.source.reference.text, "--source-imgref")
        return request
    return replace(request, target_imgref=target_reference(request.target_imgref))


@contextmanager
def planned(request: InstallRequest, services: Services) -> Iterator[tuple[PreparedImage, PreparedInstall]]:
    """Do everything short of writing, and hand over the plan.

    Raises:
        CfsError: as `install`.
    """
    ImageTarget.check_destination(request.disk, replace=request.replace)
    request = checked(request)
    check_first_boot(services.settings, request.first_boot)
    refuse_early(services.settings, services.host)
    with prepare(request, services) as image:
        services.emit(Event(name="plan.started"))
        yield image, make_plan(request, image, services)


def install(
    request: InstallRequest, services: Services, *, show: Callable[[PreparedImage, PreparedInstall], None]
) -> InstallResult | None:
    """Install, *show* the plan before anything is written, and return what was done; None for a dry run.

    Raises:
        CfsError: nothing is at the final name then, but what was there before. A dry run ends with the same error,
            after *show*.
    """
    started = time.monotonic()
    with planned(request, services) as (image, prepared):
        show(image, prepared)
        refuse_errors(prepared.plan.findings)
        if request.dry_run:
            return None
        _write(request, image, prepared, services)
    took = time.monotonic() - started
    result = InstallResult(
        disk=request.disk,
        disk_bytes=request.disk.stat().st_size,
        image_id=prepared.plan.image_id,
        manifest_digest=str(prepared.plan.image.manifest.digest),
        bootloader=prepared.decisions.bootloader_choice.value,
        firmware=tuple(sorted(prepared.decisions.facts.firmware)),
        architecture=prepared.decisions.facts.architecture.value,
        kernel_arguments=tuple(argument.text for argument in prepared.plan.arguments),
        verified=image.verified,
        took_seconds=round(took, 3),
    )
    services.emit(
        Event(name="install.completed", facts={"image_id": result.image_id, "took_seconds": result.took_seconds})
    )
    return result


def _write(request: InstallRequest, image: PreparedImage, prepared: PreparedInstall, services: Services) -> None:
    """Build the disk of the plan, read it back, and give it its name."""
    disk, decisions = prepared.disk, prepared.decisions
    declared = services.host.collect(families.BOOTLOADERS).get(decisions.bootloader_choice.value)
    makers = Makers(bootloader=decisions.bootloader, declared=declared, storage=image.storage)
    for step in prepared.plan.steps:
        services.emit(Event(name="step.started", facts={"step": step.id, "actions": len(step.actions)}))
    with ImageTarget(
        request.disk,
        prepared.target,
        layout=disk.layout,
        filesystems=disk.filesystems,
        seed=request.seed,
        replace=request.replace,
    ) as target:
        services.progress.start("write disk", total=None)
        partial = target.build()
        services.progress.finish("write disk")
        services.emit(Event(name="disk.written", facts={"path": str(request.disk)}))
        filesystems = {filesystem.name: filesystem for filesystem in disk.filesystems.values()}
        with open_disk(partial, disk.layout, filesystems) as written:
            read_back(written, prepared.plan, makers)
        services.emit(Event(name="disk.verified", facts={"path": str(request.disk)}))
        target.publish()
