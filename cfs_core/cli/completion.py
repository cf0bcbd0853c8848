"""``cfs completion``: shell completion code."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cfs_core.cli.output import ResultCommand, say


@click.command(cls=ResultCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print completion code for SHELL.

    \b
    Example:
      cfs completion bash > ~/.local/share/bash-completion/completions/cfs
    """
    kind = get_completion_class(shell)
    if kind is not None:
        say(kind(ctx.find_root().command, {}, "cfs", "_CFS_COMPLETE").source())
