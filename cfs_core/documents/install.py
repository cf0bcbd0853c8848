"""``cfs install to-disk --format json``: the plan, and what was installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.documents.values import found
from cfs_core.report.actions import described

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.install.plan import PreparedInstall
    from cfs_core.install.run import InstallResult
    from cfs_core.model.disk import Partition

REPOSITORY_STEP = "repository"
"""The step whose actions are only counted: thousands of objects, each named by its digest."""


def planned(image: PreparedImage, prepared: PreparedInstall, disk: Path) -> dict[str, object]:
    """Return the plan of an install to *disk*."""
    plan, decisions = prepared.plan, prepared.decisions
    return {
        "result": "planned",
        "disk": disk,
        "image": {
            "reference": str(image.resolved.reference),
            "manifest_digest": image.resolved.manifest.digest,
            "image_id": plan.image_id,
            "sealed": image.seal is not None,
            "verified": image.verified,
        },
        "storage": {"name": image.storage_choice.value, "origin": image.storage_choice.origin},
        "bootloader": {"name": decisions.bootloader_choice.value, "origin": decisions.bootloader_choice.origin},
        "kernel_version": decisions.artifacts.kernel_version,
        "kernel": decisions.artifacts.path,
        "partitions": [_partition(each) for each in plan.partitions],
        "kernel_arguments": [{"text": each.text, "origin": each.origin} for each in plan.arguments],
        "first_boot": [
            {"setting": each.setting, "value": each.value, "origin": each.origin} for each in prepared.first_boot
        ],
        "steps": [
            {
                "id": step.id,
                "provider": step.provider,
                "actions": len(step.actions)
                if step.id == REPOSITORY_STEP
                else [{"effect": item.effect.name.lower(), "what": described(item)} for item in step.actions],
            }
            for step in plan.steps
        ],
        "findings": found(plan.findings),
    }


def _partition(partition: Partition) -> dict[str, object]:
    """Return a partition; offset and size in bytes."""
    return {
        "number": partition.number,
        "volume": partition.volume,
        "start": partition.start,
        "size": partition.size,
        "type_guid": partition.type_guid,
        "uuid": partition.uuid,
        "name": partition.name,
        "filesystem": partition.filesystem,
        "fs_uuid": partition.fs_uuid,
        "label": partition.label,
    }


def installed(result: InstallResult) -> dict[str, object]:
    """Return what was installed. Sizes in bytes, times in seconds."""
    return {
        "result": "installed",
        "disk": result.disk,
        "disk_bytes": result.disk_bytes,
        "image_id": result.image_id,
        "manifest_digest": result.manifest_digest,
        "bootloader": result.bootloader,
        "firmware": result.firmware,
        "architecture": result.architecture,
        "kernel_arguments": result.kernel_arguments,
        "verified": result.verified,
        "took_seconds": result.took_seconds,
    }
