"""The pages of what authors of plugins import: the same description that ``cfs plugins docs`` prints, in Markdown."""

from __future__ import annotations

import re
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING

import cfs_core.plugin as surface
from cfs_core.cli.reference import CORE, HOOKS, KIT, every_entry
from generator import prose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.cli.reference import Entry

GROUPS = {
    "Interfaces": ("cfs_core.interfaces",),
    "Facts": ("cfs_core.model", "cfs_core.system.strict_json"),
    "Errors": ("cfs_core.errors",),
    "The rest": ("",),
}
"""Sections of the interface page, and the modules whose names are in each; the first that fits."""

_SECTION = re.compile(r"(Args|Raises|Returns|Yields):")
_CODE = re.compile(r"(``.+?``|`[^`]+`)")


def every_page() -> dict[str, str]:
    """Return the pages by file name."""
    entries = every_entry()
    interfaces = [prose.INTERFACES.format(api=".".join(map(str, surface.API_VERSION)))]
    grouped = sorted(entries[CORE[0]], key=_group)  # stable: by name within a group
    for title, members in groupby(grouped, key=_group_title):
        interfaces += ["", f"## {title}", *_entries(members)]
    others = [prose.OTHER_MODULES]
    for module in CORE[1:]:
        others += ["", f"## From `{module}`", *_entries(entries[module])]
    kit = [prose.KIT]
    for module in entries:
        if module != HOOKS and module.startswith(KIT):
            kit += ["", f"## From `{module}`", *_entries(entries[module])]
    pages = {"interfaces.md": interfaces, "modules.md": others, "testkit.md": kit}
    return {name: "\n".join(lines) + "\n" for name, lines in pages.items()}


def _group(entry: Entry) -> int:
    home = str(getattr(entry.value, "__module__", ""))
    return next(number for number, prefixes in enumerate(GROUPS.values()) if home.startswith(prefixes))


def _group_title(entry: Entry) -> str:
    return list(GROUPS)[_group(entry)]


def _entries(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        yield from ("", f"### `{entry.name}`", "")
        kind = "" if entry.kind == "class" else f" ({entry.kind})"
        yield f"`{entry.text}`{kind}, `{entry.use}`"
        yield from ("", *markdown(entry.meaning))
        for part in entry.parts:
            yield from ("", f"- `{part.text}`")
            if part.meaning:
                yield ""
                yield from (f"  {line}" if line else "" for line in markdown(part.meaning))


def markdown(docstring: str) -> list[str]:
    """Turn a docstring into Markdown: its sections become lists, and what would be HTML is escaped."""
    lines: list[str] = []
    for block in docstring.split("\n\n"):
        head, _, rest = block.partition("\n")
        if _SECTION.fullmatch(head) and rest:
            items = re.split(r"\n(?=\S)", textwrap.dedent(rest))
            lines += [f"{head[:-1]}:", ""]
            lines += ["- " + re.sub(r"^([\w*]+):", r"`\1`:", _escaped(" ".join(item.split()))) for item in items]
        else:
            lines += _escaped(block).split("\n")
        lines.append("")
    return lines[:-1]


def _escaped(text: str) -> str:
    return "".join(
        part if part.startswith("`") else part.replace("<", "&lt;").replace("[", "\\[") for part in _CODE.split(text)
    )
