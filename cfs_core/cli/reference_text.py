"""The reference for authors of plugins, as people read it."""

from __future__ import annotations

import difflib
import textwrap
from typing import TYPE_CHECKING, Final

from cfs_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cfs_core.cli.reference import Entry

HEADINGS: Final = ("MODULE", "NAME", "KIND", "SUMMARY")
"""Of the list of all names."""


def chosen(entries: Mapping[str, Sequence[Entry]], names: Sequence[str]) -> list[Entry]:
    """Return the entries that *names* ask for: names, with or without their module, and modules; all without names.

    Raises:
        UsageError: there is no such name.
    """
    everything = [entry for module in entries.values() for entry in module]
    if not names:
        return everything
    found: list[Entry] = []
    for name in names:
        fitting = list(entries.get(name, ())) or [
            entry for entry in everything if name in {entry.name, f"{entry.module}.{entry.name}"}
        ]
        if not fitting:
            near = difflib.get_close_matches(name, [*entries, *{entry.name for entry in everything}], n=3)
            hint = (f"is it {' or '.join(near)}? " if near else "") + "`cfs plugins docs` lists all names"
            msg = f"there is no {name!r:.60} for plugins"
            raise UsageError(msg, hint=hint)
        found += fitting
    return found


def described(entry: Entry) -> Iterator[str]:
    """Yield the lines that describe *entry*, for people."""
    yield f"{entry.kind} {entry.text}"
    yield f"    {entry.use}"
    yield from _indented(entry.meaning, 4)
    for part in entry.parts:
        yield ""
        yield f"    {part.text}"
        if part.meaning:
            yield from _indented(part.meaning, 8)[1:]


def _indented(text: str, width: int) -> list[str]:
    return ["", *textwrap.indent(text, " " * width).splitlines()] if text else []
