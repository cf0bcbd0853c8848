"""The verb install: prepare, plan, show, write, read back, publish."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.install.plan import PreparedInstall, make_plan
from cfs_core.install.preflight import refuse_errors
from cfs_core.install.prepare import PreparedImage, prepare
from cfs_core.install.target_reference import one_line, target_reference
from cfs_core.install.verify import verify
from cfs_core.model.event import Event
from cfs_core.target.image import ImageTarget
from cfs_core.target.read import open_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cfs_core.install.request import InstallRequest
    from cfs_core.install.services import Services
    from cfs_core.interfaces.filesystem import Filesystem


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallResult:
    """What was installed. Times in seconds, sizes in bytes."""

    disk: Path
    disk_bytes: int
    image_id: str
    manifest_digest: str
    kernel_arguments: tuple[str, ...]
    verified: tuple[str, ...]
    """What policies proved about the image, by policy."""

    took_seconds: float


@contextmanager
def planned(request: InstallRequest, services: Services) -> Iterator[tuple[PreparedImage, PreparedInstall]]:
    """Do everything short of writing, and hand over the plan.

    Raises:
        CfsError: as `install`.
    """
    ImageTarget.check_destination(request.disk, replace=request.replace)
    if request.target_imgref is None:
        one_line(request.source, "--source-imgref")
    else:
        request = replace(request, target_imgref=target_reference(request.target_imgref))
    with prepare(request, services) as image:
        services.emit(Event(name="plan.started"))
        yield image, make_plan(request, image, services)


def install(
    request: InstallRequest, services: Services, *, confirm: Callable[[PreparedImage, PreparedInstall], bool]
) -> InstallResult | None:
    """Install, and return what was done; None if *confirm* said no (a dry run does).

    Raises:
        CfsError: nothing is at the final name then, but what was there before.
    """
    started = time.monotonic()
    with planned(request, services) as (image, prepared):
        if not confirm(image, prepared):
            return None
        refuse_errors(prepared.plan.findings)
        storage = services.storage(image.storage_name)
        with ImageTarget(
            request.disk,
            partitions=prepared.plan.partitions,
            layout=prepared.layout,
            filesystems=prepared.filesystems,
            commands=services.commands,
            scratch=services.scratch,
            seed=request.seed,
            replace=request.replace,
            host_tools=bool(services.settings.value("install.host-tools")),
        ) as target:
            for step in prepared.plan.steps:
                services.emit(Event(name="step.started", facts={"step": step.id, "actions": len(step.actions)}))
                for action in step.actions:
                    target.apply(action)
            services.progress.start("write disk", total=None)
            partial = target.build()
            services.progress.finish("write disk")
            services.emit(Event(name="disk.written", facts={"path": str(request.disk)}))
            with open_disk(partial, prepared.layout, _by_name(prepared)) as disk:
                verify(disk, prepared, storage)
            services.emit(Event(name="disk.verified", facts={"path": str(request.disk)}))
            target.publish()
    took = time.monotonic() - started
    result = InstallResult(
        disk=request.disk,
        disk_bytes=request.disk.stat().st_size,
        image_id=prepared.plan.image_id,
        manifest_digest=str(prepared.plan.image.manifest.digest),
        kernel_arguments=tuple(argument.text for argument in prepared.plan.arguments),
        verified=image.verified,
        took_seconds=round(took, 3),
    )
    services.emit(
        Event(name="install.completed", facts={"image_id": result.image_id, "took_seconds": result.took_seconds})
    )
    return result


def _by_name(prepared: PreparedInstall) -> dict[str, Filesystem]:
    return {filesystem.name: filesystem for filesystem in prepared.filesystems.values()}
