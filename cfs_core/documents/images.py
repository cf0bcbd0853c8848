"""What ``cfs image`` and ``cfs repo`` say as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cfs_core.documents.values import found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.model.deployment import CommittedImage, GcReport, StoredImage
    from cfs_core.model.plan import Finding


def pulled(image: CommittedImage, layers_fetched: int, verified: Sequence[str]) -> dict[str, object]:
    """Return what ``image pull`` did. Sizes in bytes."""
    return {
        "image": {
            "id": image.id,
            "plain_id": image.plain_id,
            "version": image.version,
            "algorithm": image.algorithm,
            "manifest_digest": image.manifest_digest,
            "config_digest": image.config_digest,
            "object_count": image.object_count,
            "stored_bytes": image.stored_bytes,
        },
        "layers_fetched": layers_fetched,
        "verified": verified,
    }


def listed(image: StoredImage) -> dict[str, object]:
    """Return one image of ``image list``."""
    return {
        "name": image.name,
        "manifest_digest": image.manifest_digest,
        "config_digest": image.config_digest,
        "id": image.id,
        "architecture": image.architecture,
        "size": image.size,
        "labels": image.labels,
    }


def inspected(image: StoredImage, manifest: bytes, config: bytes) -> dict[str, object]:
    """Return what ``image inspect`` shows: manifest and configuration as they are."""
    return {"image": listed(image), "manifest": json.loads(manifest), "config": json.loads(config)}


def examined(problems: Sequence[Finding]) -> dict[str, object]:
    """Return what ``repo fsck`` found."""
    return {"clean": not problems, "problems": found(problems)}


def collected(report: GcReport) -> dict[str, object]:
    """Return what ``repo gc`` removed, or would remove. Sizes in bytes."""
    return {
        "objects_removed": report.objects_removed,
        "bytes_freed": report.bytes_freed,
        "objects_kept": report.objects_kept,
        "removed": report.removed,
    }
