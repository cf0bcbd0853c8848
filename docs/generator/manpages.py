"""Man pages in man(7) macros, one for each command, in the distribution that ships the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.cli.main import INTERRUPTED
from generator.commands import CommandFacts, OptionFacts, every_command
from generator.distributions import ours, shared
from generator.errors import exit_statuses
from generator.reference import option_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PLACE = "man/man1"
"""Below what each distribution installs under ``share``."""


def every_page() -> dict[Path, str]:
    """Return path and text of every man page."""
    commands = list(every_command())
    return {
        shared(ours()[command.distribution]) / PLACE / f"{command.page}.1": page(command, commands)
        for command in commands
    }


def kept_pages() -> set[Path]:
    """Return the pages that are there."""
    return {path for folder in ours().values() for path in (shared(folder) / PLACE).glob("*.1")}


def page(command: CommandFacts, every: list[CommandFacts]) -> str:
    """Return one page."""
    return "\n".join(_lines(command, every)) + "\n"


def _lines(command: CommandFacts, every: list[CommandFacts]) -> Iterator[str]:
    yield f'.TH {command.page.upper()} 1 "" "cfs" "User Commands"'
    yield ".SH NAME"
    yield _text(f"{command.page} - {command.summary}")
    yield ".SH SYNOPSIS"
    yield from _synopsis(command)
    yield ".SH DESCRIPTION"
    yield "\n.PP\n".join(_text(paragraph) for paragraph in command.paragraphs)
    yield from _items("COMMANDS", command.children)
    yield from _items("OPTIONS", ((_spelling(option), option_text(option)) for option in command.options))
    if command.examples:
        yield from (".SH EXAMPLES", ".nf", *(_text(line) for line in command.examples), ".fi")
    if command.path == ("cfs",):
        yield from _items("EXIT STATUS", _exit_statuses())
    others = [other.page for other in every if other is not command and _related(command, other)]
    if others:
        yield ".SH SEE ALSO"
        yield ",\n".join(f".BR {_text(name)} (1)" for name in others)


def _synopsis(command: CommandFacts) -> Iterator[str]:
    yield f".B {_text(command.name)}"
    required = [option.usage for option in command.options if option.required]
    words = [
        *required,
        *(["[OPTIONS]"] if command.options else []),
        *(["COMMAND [ARGS]..."] if command.children else []),
    ]
    if words or command.arguments:
        yield _text(" ".join([*words, *command.arguments]))


def _items(title: str, items: Iterable[tuple[str, str]]) -> Iterator[str]:
    lines = [line for name, text in items for line in (".TP", f".B {_text(name)}", _text(text or "."))]
    yield from ([f".SH {title}", *lines] if lines else [])


def _spelling(option: OptionFacts) -> str:
    return ", ".join(option.names) + (f" {option.value}" if option.value else "")


def _exit_statuses() -> Iterator[tuple[str, str]]:
    yield "0", "Success."
    for status, code, meaning in exit_statuses():
        yield str(status), f"{code}: {meaning}"
    yield str(INTERRUPTED), "Interrupted by a signal, after cleaning up."


def _related(command: CommandFacts, other: CommandFacts) -> bool:
    return other.path[:-1] == command.path or command.path[:-1] == other.path


def _text(text: str) -> str:
    """Escape what roff would read as its own."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("\u2019", "'")
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped
