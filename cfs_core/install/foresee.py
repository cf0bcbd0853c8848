"""What a write would find, found in the plan: the same checks, run on the target in memory.

So a dry run ends as the install would, and an error about a plan never looks like one about the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.deploy.preflight import examine_space
from cfs_core.errors import CfsError
from cfs_core.model.disk import RAW, Volume
from cfs_core.model.plan import Finding
from cfs_core.report.progress import human_bytes
from cfs_core.target.room import host_takes, room_on_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_core.deploy.services import Services
    from cfs_core.install.disk import PlannedDisk
    from cfs_core.install.request import PlanRequest
    from cfs_core.model.disk import Partition
    from cfs_core.target.memory import MemoryTarget

_OPTIONS: Mapping[Volume, str] = {Volume.ROOT: "--root-size", Volume.ESP: "--esp-size"}


def foresee(request: PlanRequest, disk: PlannedDisk, target: MemoryTarget, services: Services) -> Iterator[Finding]:
    """Yield what keeps the filled *target* from being written to *disk*."""
    holds = True
    for partition in disk.partitions:
        filesystem = disk.filesystems.get(partition.volume)
        if filesystem is None or partition.volume in RAW:
            continue
        if filesystem.largest is not None and partition.size > filesystem.largest:
            holds = False
            yield _too_large(request, partition, filesystem.largest)
            continue
        try:
            needed = filesystem.bytes_needed(target.contents(partition.volume))
        except CfsError as cause:
            holds = False
            yield Finding.error(cause.code, f"{partition.volume.value}: {cause.message}", cause.hint)
            continue
        if needed > partition.size:
            option = _option(request, partition)
            has = human_bytes(partition.size)
            message = f"{partition.volume.value} needs {human_bytes(needed)} and its partition has {has}"
            yield Finding.error(f"disk.too-small.{partition.volume.value}", message, f"make it larger ({option})")
    if holds:
        yield from _room(request, disk, target, services)


def _option(request: PlanRequest, partition: Partition) -> str:
    if partition.volume is Volume.ROOT and request.disk_size is not None:
        return "--disk-size"
    return _OPTIONS.get(partition.volume, "--disk-size")


def _too_large(request: PlanRequest, partition: Partition, largest: int) -> Finding:
    has, most = human_bytes(partition.size), human_bytes(largest)
    message = f"{partition.volume.value} has {has}, and {partition.filesystem} ends at {most}"
    return Finding.error(
        f"disk.too-large.{partition.volume.value}", message, f"make it smaller ({_option(request, partition)})"
    )


def _room(request: PlanRequest, disk: PlannedDisk, target: MemoryTarget, services: Services) -> Iterator[Finding]:
    if request.directory is None:
        return
    size = disk.layout.disk_bytes(disk.partitions)
    if not host_takes(request.directory, size):
        message = f"a disk of {human_bytes(size)} is a larger file than {request.directory} can hold"
        yield Finding.error("disk.too-large.disk", message, "make it smaller (--disk-size, --root-size, --esp-size)")
        return
    root = disk.filesystems[Volume.ROOT]
    tools = any(finding.code.startswith("disk.tool-") for finding in disk.findings)
    scratch = 0 if tools else root.scratch_needed(target.contents(Volume.ROOT))
    yield from examine_space(
        [
            (request.directory, room_on_host(target, disk.filesystems), "for the disk image"),
            (services.scratch, scratch, "for temporary files"),
        ]
    )
