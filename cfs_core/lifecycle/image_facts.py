"""What an origin file of bootc does not say of its image, from the manifest and configuration in the repository."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.deploy.state import VERSION_LABEL
from cfs_core.deploy.storage import storage_at
from cfs_core.errors import CfsError
from cfs_core.image.manifest import parse_config

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.storage import Repository
    from cfs_core.lifecycle.status import DeploymentStatus, Status


def completed(status: Status, repository: Path, services: Services) -> Status:
    """Return *status* with version, date and architecture of every image, where the repository at *repository* tells.

    Who may not read the repository gets the status as it is.
    """
    try:
        with (storage_at(services, repository) or services.storage()).open(repository) as opened:
            found = tuple(_filled(each, opened) for each in status.deployments)
    except (CfsError, OSError):
        return status
    return replace(status, deployments=found)


def _filled(deployment: DeploymentStatus, repository: Repository) -> DeploymentStatus:
    origin = deployment.origin
    if origin.architecture or not origin.manifest_digest:
        return deployment
    try:
        _, _, raw = repository.resolved(origin.manifest_digest)
        config = parse_config(raw)
    except CfsError:
        return deployment
    origin = replace(
        origin,
        version=config.labels.get(VERSION_LABEL),
        created=config.created,
        architecture=config.platform.architecture,
    )
    return replace(deployment, origin=origin)
