"""Every command as facts, read from click."""

from __future__ import annotations

import enum
import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfs_core.app.app import App
from cfs_core.cli.main import COMMANDS, cli
from cfs_core.pluginhost import families
from generator.distributions import ours

if TYPE_CHECKING:
    from collections.abc import Iterator

CORE = "cfs-core"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionFacts:
    """One option. ``names`` as typed, ``value`` what follows it (empty for a flag)."""

    names: tuple[str, ...]
    value: str
    help: str
    default: str | None
    environment: str | None
    required: bool
    repeatable: bool

    @property
    def usage(self) -> str:
        """The option as a usage line shows it."""
        text = self.names[0] + (f" {self.value}" if self.value else "")
        return text if self.required else f"[{text}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandFacts:
    """One command or group. ``distribution`` is the one that ships it; ``examples`` are command lines."""

    path: tuple[str, ...]
    distribution: str
    summary: str
    paragraphs: tuple[str, ...]
    examples: tuple[str, ...]
    arguments: tuple[str, ...]
    options: tuple[OptionFacts, ...]
    children: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The command as typed."""
        return " ".join(self.path)

    @property
    def page(self) -> str:
        """Name of its man page."""
        return "-".join(self.path)


def every_command() -> Iterator[CommandFacts]:
    """Yield every command there is, groups first, in the order ``--help`` has."""
    with App(os.environ) as app:
        owners = {
            f"cfs {provider.name}": app.host.collect(families.COMMANDS).owner(provider.name).distribution
            for provider in app.host.collect(families.COMMANDS)
        }
        root = click.Context(cli, info_name="cfs", obj=app)
        yield from _walk(cli, ("cfs",), root, owners)


def _walk(
    command: click.Command, path: tuple[str, ...], context: click.Context, owners: dict[str, str]
) -> Iterator[CommandFacts]:
    children: list[tuple[str, click.Command]] = []
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden and _owner((*path, name), owners) in ours():
                children.append((name, child))
    yield _facts(command, path, children, owners)
    for name, child in children:
        yield from _walk(child, (*path, name), click.Context(child, info_name=name, parent=context), owners)


def _facts(
    command: click.Command, path: tuple[str, ...], children: list[tuple[str, click.Command]], owners: dict[str, str]
) -> CommandFacts:
    paragraphs, examples = _help(command.help or "")
    return CommandFacts(
        path=path,
        distribution=_owner(path, owners),
        summary=command.get_short_help_str(limit=200).rstrip("."),
        paragraphs=paragraphs,
        examples=examples,
        arguments=tuple(_argument(item) for item in command.params if isinstance(item, click.Argument)),
        options=tuple(_option(item) for item in command.params if isinstance(item, click.Option) and not item.hidden),
        children=tuple((child, made.get_short_help_str(limit=200)) for child, made in children),
    )


def _owner(path: tuple[str, ...], owners: dict[str, str]) -> str:
    """Return the distribution of a command, or of the first one in a group that only plugins fill."""
    name = " ".join(path)
    if name in owners:
        return owners[name]
    below = [owner for owned, owner in owners.items() if owned.startswith(f"{name} ")]
    return below[0] if below and len(path) > 1 and path[1] not in COMMANDS else CORE


def _help(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split help into paragraphs of text and the lines of its examples (click marks those with a backspace)."""
    paragraphs: list[str] = []
    examples: list[str] = []
    for block in inspect.cleandoc(text).split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip() not in {"\b", ""}]
        if lines and lines[0].strip().startswith("Example"):
            examples += [line.strip() for line in lines[1:]]
        elif lines:
            paragraphs.append(" ".join(line.strip() for line in lines))
    return tuple(paragraphs), tuple(examples)


def _argument(argument: click.Argument) -> str:
    """Return an argument as the usage line shows it; a choice as what there is to choose from."""
    name = (argument.metavar or argument.name or "").upper()
    if argument.metavar is None and isinstance(argument.type, click.Choice):
        name = "|".join(map(str, argument.type.choices))
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _option(option: click.Option) -> OptionFacts:
    names = tuple(sorted((*option.opts, *option.secondary_opts), key=lambda text: not text.startswith("--")))
    variable = option.envvar if isinstance(option.envvar, str) else None
    return OptionFacts(
        names=names,
        value="" if option.is_flag or option.count else _value(option),
        help=(option.help or "").strip(),
        default=_default(option),
        environment=variable,
        required=bool(option.required),
        repeatable=bool(option.multiple),
    )


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    kind = option.type
    if isinstance(kind, click.Choice):
        return "|".join(str(item.value if isinstance(item, enum.Enum) else item) for item in kind.choices)
    if isinstance(kind, click.Path):
        return "FILE" if not kind.dir_okay else "PATH"
    return str(kind.name).upper().replace(" RANGE", "")


def _default(option: click.Option) -> str | None:
    value = option.default
    if option.is_flag or option.multiple or option.required or not isinstance(value, str | int | float | Path):
        return None
    return str(value)
