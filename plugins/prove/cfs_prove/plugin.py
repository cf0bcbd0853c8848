"""What cfs-prove offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import CommandProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

    from cfs_core.plugin import CommandContext

CFS_PLUGIN_API = (2, 0)


def _make_prove(context: CommandContext) -> click.Command:
    from cfs_prove.commands import make_prove

    return make_prove(context)


@hookimpl
def cfs_register_commands() -> Iterable[CommandProvider]:
    """Offer ``cfs prove``."""
    return [
        CommandProvider(
            name="prove",
            summary="Boot a disk in a virtual machine and say what it saw.",
            factory=_make_prove,
            has_result=True,
        )
    ]
