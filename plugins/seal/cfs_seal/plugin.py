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


def _make_keys(_context: None) -> click.Command:
    from cfs_seal.keys.commands import make_keys_command

    return make_keys_command()


def _make_show(_context: None) -> click.Command:
    from cfs_seal.keys.commands import make_show_command

    return make_show_command()


def _make_enroll(_context: None) -> click.Command:
    from cfs_seal.keys.commands import make_enroll_command

    return make_enroll_command()


@hookimpl
def cfs_register_commands() -> Iterable[CommandProvider]:
    """Offer ``cfs seal`` and ``cfs secureboot``."""
    return [
        CommandProvider(
            name="seal", summary="Seal an image with a signed UKI, or check somebody else's seal.", factory=_make_seal
        ),
        CommandProvider(name="secureboot keys", summary="Make PK, KEK and db for Secure Boot.", factory=_make_keys),
        CommandProvider(
            name="secureboot show",
            summary="Show certificates and hashes in Secure Boot's variables.",
            factory=_make_show,
        ),
        CommandProvider(
            name="secureboot enroll", summary="Enrol keys in the variables of a virtual machine.", factory=_make_enroll
        ),
    ]
