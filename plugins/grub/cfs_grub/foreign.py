"""Somebody else's grub.cfg and entry files: what they will do with what we want, and how a script of ours has them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.bls import EntryFile, Fields, split_arguments
from cfs_core.plugin import BootEntry, BootError, EntryKind
from cfs_grub.config import ScriptEntry
from cfs_grub.state import State, entry_stem_of, named
from cfs_grub.words import linux_words, quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfs_grub.script import Command


def automatic(state: State, shown: Sequence[str], ours: Sequence[str]) -> str | None:
    """Return what starts without ``saved_entry``, None if that is not known.

    *shown* is what the menu is going to show, *ours* what of that is ours.
    """
    choices, fixed = state.choices(), state.fixed_default
    if fixed not in {None, "0"}:
        # A number may mean another entry once ours are others.
        same = [choice.path for choice in choices if choice.entry and not choice.entry.foreign] == [
            name for name in shown if name in ours
        ]
        meant = named(state.top(), fixed)
        return next((choice.path for choice in choices if same and choice.entry == meant), None)
    # What stands in the script itself, before it reads entry files or user.cfg, is shown before ours.
    lead = next((c for c in state.commands() if c.name in {"menuentry", "submenu", "blscfg"} or _reads_user(c)), None)
    if lead is not None and lead.name in {"menuentry", "submenu"}:
        return None
    return next(iter(shown), None)


def check(state: State, ours: Sequence[BootEntry], env: Mapping[str, str | None], *, scripted: bool) -> None:
    """Refuse what somebody else's grub.cfg will not show or obey. *scripted*: no GRUB could read our entry files.

    Raises:
        BootError: there is such a thing.
    """
    kinds = {entry.kind for entry in ours}
    problem = None
    if EntryKind.BLS in kinds and (scripted or not state.reads_entries):
        problem = "does not read boot loader entries, or not with these kernel arguments"
    elif EntryKind.UKI in kinds and "user.cfg" not in state.texts["grub.cfg"]:
        problem = "does not read user.cfg"
    elif any(entry.tries_left is not None for entry in ours):
        problem = "does not count tries"
    for variable in ("saved_entry", "next_entry"):
        if env.get(variable) and not state.obeys(variable):
            problem = problem or f"does not obey {variable}"
    if problem:
        message = f"{state.place.grub / 'grub.cfg'} was written by another program and {problem}"
        raise BootError(message, hint="move it away to let cfs write its own")


def script_entry(file: EntryFile) -> ScriptEntry:
    """Turn somebody else's entry file into a menu entry of our script, with what GRUB itself would read in it."""
    name, options = entry_stem_of(file), file.fields.first("options") or ""
    words = tuple(map(_word, split_arguments(options)))
    title, linux = file.fields.first("title") or name, file.fields.first("linux") or ""
    return ScriptEntry(id=name, title=title, linux=linux, words=words, initrds=tuple(map(_word, initrds(file.fields))))


def initrds(fields: Fields) -> tuple[str, ...]:
    """Return the paths of an entry's initrds."""
    return tuple(path for value in fields.every("initrd") for path in value.split())


def _reads_user(command: Command) -> bool:
    return command.name in {"source", "."} and any(word.endswith("user.cfg") for word in command.arguments)


def _word(argument: str) -> str:
    """Spell an argument of somebody else's entry: variables (``$kernelopts``) are GRUB's to fill in."""
    try:
        (argument,) = linux_words((argument,))
    except BootError:
        argument = argument.replace('"', "")
    parts = re.split(r"(\$[A-Za-z_][A-Za-z0-9_]*)", argument)
    return "".join(f"${{{part[1:]}}}" if part.startswith("$") else quote(part) for part in parts if part)
