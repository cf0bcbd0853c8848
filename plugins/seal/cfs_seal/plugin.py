"""What cfs-seal offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import CommandProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import click

    from cfs_core.plugin import BootArtifacts, CommandContext, Finding

CFS_PLUGIN_API = (2, 0)


def _make_seal(context: CommandContext) -> click.Command:
    from cfs_seal.commands import make_seal

    return make_seal(context)


def _make_keys(context: CommandContext) -> click.Command:
    from cfs_seal.keys.commands import make_keys_command

    return make_keys_command(context)


def _make_show(context: CommandContext) -> click.Command:
    from cfs_seal.keys.commands import make_show_command

    return make_show_command(context)


def _make_enroll(context: CommandContext) -> click.Command:
    from cfs_seal.keys.commands import make_enroll_command

    return make_enroll_command(context)


@hookimpl
def cfs_check_boot(artifacts: BootArtifacts, efivars: Path) -> Iterable[Finding]:
    """Say what the firmware of a machine would not start, where it enforces Secure Boot."""
    from cfs_seal.firmware import judge_boot

    return judge_boot(artifacts, efivars)


@hookimpl
def cfs_register_commands() -> Iterable[CommandProvider]:
    """Offer ``cfs seal`` and ``cfs secureboot``."""
    return [
        CommandProvider(
            name="seal",
            summary="Seal an image with a signed UKI, or check somebody else's seal.",
            factory=_make_seal,
            has_result=True,
        ),
        CommandProvider(name="secureboot keys", summary="Make PK, KEK and db for Secure Boot.", factory=_make_keys),
        CommandProvider(
            name="secureboot show",
            summary="Show certificates and hashes in Secure Boot's variables.",
            factory=_make_show,
            has_result=True,
        ),
        CommandProvider(
            name="secureboot enroll", summary="Enrol keys in the variables of a virtual machine.", factory=_make_enroll
        ),
    ]
