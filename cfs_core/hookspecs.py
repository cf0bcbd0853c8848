"""Hook specifications, nothing else. Registration is pure and quick; behaviour lives in the providers returned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cfs_core.interfaces.bootloader import BootFacts
    from cfs_core.interfaces.command import CommandProvider
    from cfs_core.interfaces.provider import (
        BootloaderProvider,
        FilesystemProvider,
        HasherProvider,
        InitramfsProvider,
        LayoutProvider,
        PolicyProvider,
        StorageProvider,
        TransportProvider,
    )
    from cfs_core.model.boot import BootArtifacts, KernelArgument
    from cfs_core.model.event import Event
    from cfs_core.model.plan import Finding, InstallPlan

PROJECT = "cfs"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as the implementation of the hook of its name."""


@hookspec
def cfs_register_transports() -> Iterable[TransportProvider]:  # type: ignore[empty-body]
    """Offer places images come from."""


@hookspec
def cfs_register_storage_formats() -> Iterable[StorageProvider]:  # type: ignore[empty-body]
    """Offer ways to keep trees."""


@hookspec
def cfs_register_bootloaders() -> Iterable[BootloaderProvider]:  # type: ignore[empty-body]
    """Offer bootloaders."""


@hookspec
def cfs_register_layouts() -> Iterable[LayoutProvider]:  # type: ignore[empty-body]
    """Offer ways to divide a disk."""


@hookspec
def cfs_register_filesystems() -> Iterable[FilesystemProvider]:  # type: ignore[empty-body]
    """Offer filesystems."""


@hookspec
def cfs_register_policies() -> Iterable[PolicyProvider]:  # type: ignore[empty-body]
    """Offer judgements about images."""


@hookspec
def cfs_register_initramfs() -> Iterable[InitramfsProvider]:  # type: ignore[empty-body]
    """Offer knowledge about early-boot code."""


@hookspec
def cfs_register_hashers() -> Iterable[HasherProvider]:  # type: ignore[empty-body]
    """Offer libraries that hash many blocks at once."""


@hookspec
def cfs_register_commands() -> Iterable[CommandProvider]:  # type: ignore[empty-body]
    """Offer commands under ``cfs``."""


@hookspec
def cfs_kernel_arguments(facts: BootFacts) -> Iterable[KernelArgument]:  # type: ignore[empty-body]
    """Contribute kernel arguments; each carries its origin."""


@hookspec
def cfs_check_plan(plan: InstallPlan, facts: BootFacts) -> Iterable[Finding]:  # type: ignore[empty-body]
    """Contribute findings; one of severity error stops before anything is written."""


@hookspec
def cfs_check_boot(artifacts: BootArtifacts, efivars: Path) -> Iterable[Finding]:  # type: ignore[empty-body]
    """Contribute findings about what a machine that runs is to start next; one of severity error keeps it from that.

    *efivars* is where variables of its firmware are (``/sys/firmware/efi/efivars``), if it has any.
    """


@hookspec
def cfs_on_event(event: Event) -> None:
    """Observe; shielded, cannot alter anything."""
