"""What cfs-seal offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import CommandProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

CFS_PLUGIN_API = (1, 0)


def _make_seal(_context: None) -> click.Command:
    from cfs_seal.commands import make_seal

    return make_seal()


@hookimpl
def cfs_register_commands() -> Iterable[CommandProvider]:
    """Offer ``cfs seal``."""
    return [
        CommandProvider(
            name="seal", summary="Seal an image with a signed UKI, or check somebody else's seal.", factory=_make_seal
        )
    ]
