"""The generated pages: commands, settings, events, errors, interfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.cli.main import INTERRUPTED
from cfs_core.config.keys import KEYS, Kind
from cfs_core.config.settings import Rank
from generator import hooks, meanings, names, prose
from generator.commands import OptionFacts, every_command
from generator.errors import distribution, every_error, exit_statuses, summary
from generator.events import every_code, every_event, every_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def every_page() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {
        "hooks.md": hooks.page(),
        "commands.md": _joined(_commands()),
        "settings.md": _joined(_settings()),
        "events.md": _joined(_events()),
        "errors.md": _joined(_errors()),
        **names.every_page(),
    }


def write_pages(folder: Path) -> None:
    """Write all pages into *folder*; files that are right already stay untouched, so that builds stay quick."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in every_page().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def option_text(option: OptionFacts) -> str:
    """Return what there is to say about an option, on one line."""
    parts = [option.help]
    if option.default is not None:
        parts.append(f"Default: {option.default}.")
    if option.environment:
        parts.append(f"Also from the environment: {option.environment}.")
    if option.repeatable and "repeatable" not in option.help:
        parts.append("May be given several times.")
    return " ".join(part for part in parts if part)


def _joined(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Escape text for a table; angle brackets would be HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _commands() -> Iterator[str]:
    yield prose.COMMANDS
    for command in every_command():
        yield ""
        yield f"## `{command.name}`"
        yield ""
        yield _cell(" ".join(command.paragraphs))
        if command.distribution != "cfs-core":
            yield ""
            yield f"Comes with `{command.distribution}`."
        if command.arguments:
            yield ""
            yield f"Arguments: {', '.join(_code(argument) for argument in command.arguments)}"
        if command.children:
            yield ""
            yield from _table(
                ("Command", "What it does"),
                [(_code(f"{command.name} {name}"), _cell(summary)) for name, summary in command.children],
            )
        if command.options:
            yield ""
            yield from _table(("Option", "Meaning"), [_option_row(option) for option in command.options])
        if command.examples:
            yield ""
            yield "```sh"
            yield from command.examples
            yield "```"


def _option_row(option: OptionFacts) -> tuple[str, str]:
    names = ", ".join(_code(f"{name} {option.value}".strip()) for name in option.names)
    return names, _cell(("Required. " if option.required else "") + option_text(option))


def _settings() -> Iterator[str]:
    yield prose.SETTINGS.format(ranks=", ".join([rank.name.lower().replace("_", " ") for rank in Rank]))
    rows = [
        (
            _code(key.name),
            key.kind.value,
            "" if key.default in (None, ()) else _code(_shown(key.default)),
            "" if key.kind is Kind.TABLE else _code(variable(key.name)),
            "yes" if key.image else "",
            _cell(key.summary),
        )
        for key in KEYS
    ]
    yield from _table(("Setting", "Value", "Default", "Environment", "Image may advise", "Meaning"), rows)
    yield prose.ENVIRONMENT


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return "CFS_" + name.upper().replace(".", "_").replace("-", "_")


def _events() -> Iterator[str]:
    yield prose.EVENTS
    rows = [
        (_code(name), _cell(meanings.EVENTS.get(name, "")), _listed(facts["facts"]), _listed(facts["modules"]))
        for name, facts in every_event().items()
    ]
    yield from _table(("Event", "Meaning", "Facts", "Emitted by"), rows)
    yield prose.CODES
    codes = [(_code(code), _cell(meanings.CODES.get(code, "")), _listed(where)) for code, where in every_code().items()]
    yield from _table(("Code", "Meaning", "Made by"), codes)
    yield prose.LOGS
    logs = [
        (_code(name), level, _cell(meanings.LOGS.get(name, "")), _listed(where))
        for name, (level, where) in every_log().items()
    ]
    yield from _table(("Log line", "Level", "Meaning", "Written by"), logs)


def _listed(names: set[str]) -> str:
    return ", ".join(_code(name) for name in sorted(names))


def _errors() -> Iterator[str]:
    yield prose.ERRORS
    rows = [("0", "", "Success.")]
    rows += [(str(status), _code(code), _cell(meaning)) for status, code, meaning in exit_statuses()]
    rows += [(str(INTERRUPTED), "", "Interrupted by a signal, after cleaning up.")]
    yield from _table(("Status", "Codes begin with", "Meaning"), rows)
    yield ""
    yield "## Classes"
    yield ""
    classes = [
        (_code(kind.code), _code(kind.__name__), str(kind.exit_status), _code(distribution(kind)), _cell(summary(kind)))
        for kind in every_error()
    ]
    yield from _table(("Code", "Class", "Status", "Package", "Meaning"), classes)
    yield ""
    yield "A `PreflightError` carries the code of the first [finding](events.md) that stopped the install."
