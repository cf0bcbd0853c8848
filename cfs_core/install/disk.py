"""Planning the disk: how large which volumes are, who makes their filesystems, whether there is room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.errors import DiskError
from cfs_core.interfaces.layout import LayoutRequest
from cfs_core.model.action import CopyObject
from cfs_core.model.disk import Volume, VolumeNeed
from cfs_core.model.plan import Finding
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.config.settings import Settings
    from cfs_core.deploy.decide import Decisions
    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.deploy.services import Services
    from cfs_core.install.request import PlanRequest
    from cfs_core.interfaces.filesystem import Filesystem
    from cfs_core.interfaces.layout import DiskLayout
    from cfs_core.model.action import PlacingAction
    from cfs_core.model.disk import Partition
    from cfs_core.target.memory import MemoryTarget

ROOT_ROOM = 512 << 20
"""Bytes beyond half the image that a root partition of unspecified size leaves free for logs, /var and an update: an
update that changes half of what there is fits beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDisk:
    """The partitions of a disk to be made, and who makes what is in them."""

    partitions: tuple[Partition, ...]
    layout: DiskLayout
    filesystems: dict[Volume, Filesystem]
    findings: tuple[Finding, ...]

    def room_on(self, partition: Partition, contents: MemoryTarget) -> tuple[int, int] | None:
        """Return (bytes that files take, bytes left beside them and the filesystem); None where no files go."""
        filesystem = self.filesystems.get(partition.volume)
        if filesystem is None or partition.filesystem is None:
            return None
        placed = contents.contents(partition.volume)
        used = sum(_size(action) for action in placed.values())
        try:
            return used, max(0, partition.size - filesystem.bytes_needed(placed))
        except DiskError:  # a finding of the plan says what it cannot hold
            return None

    @property
    def root(self) -> Partition:
        """The root partition; every layout plans one."""
        return next(partition for partition in self.partitions if partition.volume is Volume.ROOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Bytes: what the root volume will hold, what the loader adds to it."""

    contents: int
    extra: int


def _size(action: PlacingAction) -> int:
    return action.source.size if isinstance(action, CopyObject) else len(getattr(action, "data", b""))


def plan_disk(
    request: PlanRequest, image: PreparedImage, services: Services, decisions: Decisions, contents: MemoryTarget
) -> PlannedDisk:
    """Lay out a disk for *contents*, which hold the root volume as far as it is known.

    Raises:
        DiskError: no layout can have these volumes.
        PluginError: a layout or filesystem is missing.
    """
    settings = image.settings
    facts = decisions.facts
    layout: DiskLayout = services.make(
        families.LAYOUTS, str(settings.value("install.layout")), settings=settings, seed=request.seed
    )
    root: Filesystem = services.make(families.FILESYSTEMS, facts.root_filesystem, settings=settings, seed=request.seed)
    planned = contents.contents(Volume.ROOT)
    declared = [_at_least(need, services) for need in decisions.bootloader.needs(facts)]
    sizes = _Sizes(
        contents=root.bytes_needed(planned),
        extra=sum(need.bytes_needed for need in declared if need.volume is Volume.ROOT),
    )
    partitions = layout.plan(_layout_request(request, settings, decisions, declared, sizes))
    filesystems = _filesystems(partitions, services, root, request.seed)
    findings = list(_missing_volume(request, decisions, partitions))
    for name in dict.fromkeys(partition.filesystem for partition in partitions if partition.filesystem):
        volume = next(partition.volume for partition in partitions if partition.filesystem == name)
        findings += filesystems[volume].check_host()
    return PlannedDisk(partitions=partitions, layout=layout, filesystems=filesystems, findings=tuple(findings))


def _layout_request(
    request: PlanRequest, settings: Settings, decisions: Decisions, declared: Sequence[VolumeNeed], sizes: _Sizes
) -> LayoutRequest:
    root_size = settings.value("install.root-size")
    esp_size = settings.value("install.esp-size")
    room = 0 if root_size else sizes.contents // 2 + ROOT_ROOM
    root = VolumeNeed(
        volume=Volume.ROOT,
        bytes_needed=sizes.contents + sizes.extra + room,
        filesystems=(decisions.facts.root_filesystem,),
        why="the system",
    )
    return LayoutRequest(
        needs=[*(need for need in declared if need.volume is not Volume.ROOT), root],
        architecture=decisions.facts.architecture,
        root_filesystem=decisions.facts.root_filesystem,
        root_size=root_size,
        disk_size=request.disk_size,
        volume_sizes={Volume.ESP: esp_size} if esp_size else {},
        seed=request.seed,
    )


def _at_least(need: VolumeNeed, services: Services) -> VolumeNeed:
    """Return *need* with the least size that its filesystem can have: the one minimum that anybody is told."""
    if need.volume is Volume.ROOT or not need.filesystems:
        return need
    filesystem: Filesystem = services.make(families.FILESYSTEMS, need.filesystems[0])
    return replace(need, bytes_needed=max(need.bytes_needed, filesystem.bytes_needed({})))


def _filesystems(
    partitions: Sequence[Partition], services: Services, root: Filesystem, seed: str | None
) -> dict[Volume, Filesystem]:
    made: dict[Volume, Filesystem] = {Volume.ROOT: root}
    for partition in partitions:
        if partition.filesystem is not None and partition.volume not in made:
            made[partition.volume] = services.make(families.FILESYSTEMS, partition.filesystem, seed=seed)
    return made


def _missing_volume(request: PlanRequest, decisions: Decisions, partitions: Sequence[Partition]) -> list[Finding]:
    wanted = request.boot_volume
    if wanted is None or any(partition.volume is wanted for partition in partitions):
        return []
    option = "--xbootldr" if wanted is Volume.XBOOTLDR else "--separate-boot"
    message = f"{decisions.bootloader_choice.value} would put nothing on the partition that {option} asks for"
    return [Finding.error("disk.no-boot-volume", message, f"leave {option} out, or choose another --bootloader")]
