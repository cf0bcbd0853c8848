"""What somebody asked to have installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.model.boot import Firmware
    from cfs_core.model.disk import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest:
    """One ``cfs install to-disk``, options resolved against settings where those exist already.

    Sizes are bytes. None means "decide by settings, image and host".
    """

    source: str
    disk: Path
    target_imgref: str | None = None
    architecture: str | None = None
    filesystem: str | None = None
    root_size: int | None = None
    esp_size: int | None = None
    disk_size: int | None = None
    bootloader: str | None = None
    firmware: frozenset[Firmware] | None = None
    storage: str | None = None
    kargs: tuple[str, ...] = ()
    karg_deletes: tuple[str, ...] = ()
    root_ssh_authorized_keys: bytes | None = None
    boot_volume: Volume | None = None
    """What /boot gets as a partition of its own: BOOT, XBOOTLDR, or nothing."""

    repo: Path | None = None
    seed: str | None = None
    replace: bool = False
    """Whether an existing file at ``disk`` may be replaced."""
