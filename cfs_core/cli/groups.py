"""Command groups that import a command when it is used, and take in the commands of plugins."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.app.app import App
    from cfs_core.interfaces.command import CommandProvider


class PipeBrokenError(Exception):
    """A BrokenPipeError (the cause) on its way past click, which would end the process without a word."""


class LazyGroup(click.Group):
    """A group whose own commands are named as ``module:attribute``; plugins add names that are free."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's own parameters
        commands_by_name: Mapping[str, str] | None = None,
        summaries: Mapping[str, str] | None = None,
        prefix: str = "",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self._own = dict(commands_by_name or {})
        self._summaries = dict(summaries or {})
        self._prefix = prefix

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Run the command.

        Raises:
            PipeBrokenError: it met a broken pipe, of whatever kind.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as cause:
            raise PipeBrokenError from cause

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return own commands in their order, then those of plugins by name."""
        plugin = {name.split(" ")[0] for name in self._offers(ctx)} - {*self._own, *self.commands}
        return [*self._own, *self.commands, *sorted(plugin)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import an own command, or make a plugin's."""
        target = self._own.get(cmd_name)
        if target is not None:
            module, _, attribute = target.partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        if cmd_name in self.commands:
            return super().get_command(ctx, cmd_name)
        offers = self._offers(ctx)
        if cmd_name in offers:
            app: App | None = ctx.find_object(object)  # type: ignore[assignment]
            return None if app is None else _made(app, offers[cmd_name])
        nested = [name for name in offers if name.startswith(f"{cmd_name} ")]
        if nested:
            prefix = f"{self._prefix}{cmd_name} "
            return LazyGroup(name=cmd_name, prefix=prefix, help=f"Commands of plugins: {', '.join(nested)}.")
        return None

    def _offers(self, ctx: click.Context) -> dict[str, CommandProvider]:
        """Return plugin commands below this group, by the rest of their name."""
        app: App | None = ctx.find_object(object)  # type: ignore[assignment]
        if app is None or not hasattr(app, "host"):
            return {}
        registry = app.host.collect(families.COMMANDS)
        return {
            provider.name.removeprefix(self._prefix): provider
            for provider in registry
            if provider.name.startswith(self._prefix)
        }

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands without importing them."""
        offers = self._offers(ctx)
        rows = []
        for name in self.list_commands(ctx):
            if name in self._summaries:
                rows.append((name, self._summaries[name]))
            elif name in offers:
                rows.append((name, offers[name].summary))
            else:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    rows.append((name, command.get_short_help_str(limit=70)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _made(app: App, provider: CommandProvider) -> click.Command:
    from cfs_core.cli.output import CommandOutput

    context = app.command_context(provider.name, CommandOutput(lambda: app.options.output_format))
    command: click.Command = app.host.make(families.COMMANDS, provider.name, context)
    if provider.has_result:
        if any("--format" in parameter.opts for parameter in command.params):
            owner = app.host.collect(families.COMMANDS).owner(provider.name)
            msg = f"the command {provider.name!r} of {owner} has a --format of its own, besides the one of has_result"
            raise owner.fault(msg)
        _add_format(app, command)
    return command


def _add_format(app: App, command: click.Command) -> None:
    """Add ``--format`` to a plugin's command, and keep standard output for its result."""
    from cfs_core.cli.output import format_option, only_results

    def keep(_context: click.Context, _parameter: click.Parameter, value: str) -> None:
        app.configure(output_format=value)

    callback = command.callback

    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the command's own parameters
        with only_results():
            return callback(*args, **kwargs) if callback is not None else None

    command.callback = run
    format_option(command)
    command.params[-1].callback, command.params[-1].expose_value = keep, False
