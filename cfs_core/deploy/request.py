"""What somebody asked to have deployed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.deploy.first_boot.request import FirstBootRequest

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.interfaces.fetcher import ImageLocation
    from cfs_core.model.disk import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentRequest:
    """Kernel arguments that are asked for, above those of image and settings."""

    kargs: tuple[str, ...] = ()
    karg_deletes: tuple[str, ...] = ()
    """KEY or KEY=VALUE, taken out again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRequest(ArgumentRequest):
    """An image, and what is asked for it alone. What settings can say as well is in the settings: options are a layer.

    None means "decide by settings, image and host".
    """

    source: ImageLocation
    """The image: parsed where it was asked for, and never again."""

    target_imgref: str | None = None
    architecture: str | None = None
    uki_addons: tuple[str, ...] = ()
    """Addons of the UKI, by name or as files; empty means all that the image has for it."""

    root_ssh_authorized_keys: bytes | None = None
    first_boot: FirstBootRequest = field(default_factory=FirstBootRequest)
    boot_volume: Volume | None = None
    """What /boot gets as a partition of its own: BOOT, XBOOTLDR, or nothing."""

    repo: Path | None = None
    loader_is_there: bool = False
    """Whether the target has its loader: what keeps one from being installed is then told, and stops nothing."""

    by_digest: bool = False
    """Whether the repository names the image by its manifest's digest, as bootc does on a machine."""

    seed: str | None = None
