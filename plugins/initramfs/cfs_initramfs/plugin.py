"""What cfs-initramfs offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import CommandProvider, InitramfsProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

    from cfs_core.plugin import CommandContext, Initramfs, PluginContext

CFS_PLUGIN_API = (2, 0)


def _make_install(_context: CommandContext) -> click.Command:
    from cfs_initramfs.commands import make_install

    return make_install()


def _make_early_boot(_context: PluginContext) -> Initramfs:
    from cfs_initramfs.examine import EarlyBoot

    return EarlyBoot()


@hookimpl
def cfs_register_initramfs() -> Iterable[InitramfsProvider]:
    """Offer knowledge about the early-boot code of cfs, bootc and composefs-rs."""
    return [
        InitramfsProvider(
            name="early-boot",
            summary="early-boot code of cfs, bootc and composefs-rs for composefs roots",
            factory=_make_early_boot,
        )
    ]


@hookimpl
def cfs_register_commands() -> Iterable[CommandProvider]:
    """Offer ``cfs initramfs install``."""
    return [
        CommandProvider(
            name="initramfs install",
            summary="put early-boot code into an image that is being built",
            factory=_make_install,
        )
    ]
