"""Findings and install plans."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.model.action import Action
    from cfs_core.model.boot import BootMenu, KernelArgument
    from cfs_core.model.deployment import ImageId
    from cfs_core.model.disk import Partition
    from cfs_core.model.manifest import ResolvedImage


class Severity(enum.StrEnum):
    """An ``error`` stops before anything is written."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something found before or after writing. ``code`` is stable: ``boot.loader-missing``."""

    severity: Severity
    code: str
    message: str
    hint: str | None = None
    origin: str = ""
    """The distribution that found it; core fills it in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A group of actions by one provider."""

    id: str
    provider: str
    title: str
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """Everything an install will do."""

    image: ResolvedImage
    image_id: ImageId
    partitions: tuple[Partition, ...]
    steps: tuple[Step, ...]
    menu: BootMenu
    arguments: tuple[KernelArgument, ...]
    findings: tuple[Finding, ...] = ()
