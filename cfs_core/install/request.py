"""What somebody asked to have installed, or planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.deploy.request import DeploymentRequest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest(DeploymentRequest):
    """What an install is planned for, with a disk or without. Sizes are bytes."""

    disk_size: int | None = None
    dry_run: bool = False
    """Whether this is only about the plan: no tool of the host makes contents for it."""

    @property
    def directory(self) -> Path | None:
        """Where the disk image will be; None where none will be made."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest(PlanRequest):
    """One ``cfs install to-disk``."""

    disk: Path
    replace: bool = False
    """Whether an existing file at ``disk`` may be replaced."""

    @property
    def directory(self) -> Path:
        """Where the disk image will be: an output that is a link is written through."""
        return self.disk.resolve().parent
