"""Results on standard output: text for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from cfs_core.model.digest import Digest

F = TypeVar("F", bound=Callable[..., Any])


def format_option(command: F) -> F:
    """Add ``--format text|json``."""
    option = click.option(
        "--format",
        "output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Form of the result.",
    )
    return option(command)


def repo_option(command: F) -> F:
    """Add ``--repo PATH``."""
    option = click.option("--repo", "repo_path", type=click.Path(path_type=Path), help="Repository to use.")
    return option(command)


def authfile_option(command: F) -> F:
    """Add ``--authfile FILE``, which goes to the transport."""

    def keep(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
        if value is not None:
            context.obj.authfile = value

    return click.option(
        "--authfile",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=keep,
        expose_value=False,
        help="Credentials for registries.",
    )(command)


def plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Turn facts into what JSON can hold."""
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


def show_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def table(rows: Sequence[tuple[str, ...]], headings: tuple[str, ...]) -> None:
    """Print left-aligned columns."""
    if not rows:
        return
    widths = [max(len(row[index]) for row in [headings, *rows]) for index in range(len(headings))]
    for row in [headings, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
