"""What cfs-host offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import CommandProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

    from cfs_core.plugin import CommandContext

CFS_PLUGIN_API = (2, 0)


def _make_install(_context: CommandContext) -> click.Command:
    from cfs_host.commands import make_install

    return make_install()


@hookimpl
def cfs_register_commands() -> Iterable[CommandProvider]:
    """Offer ``cfs host install``."""
    return [
        CommandProvider(
            name="host install",
            summary="put the units of an installed machine into an image that is being built",
            factory=_make_install,
        )
    ]
