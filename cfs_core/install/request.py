"""What somebody asked to have installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.deploy.request import DeploymentRequest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest(DeploymentRequest):
    """One ``cfs install to-disk``. Sizes are bytes."""

    disk: Path
    disk_size: int | None = None
    replace: bool = False
    """Whether an existing file at ``disk`` may be replaced."""

    dry_run: bool = False
    """Whether this is only about the plan: no tool of the host makes contents for it."""
