"""GRUB's script language, read as far as menus need it: words, commands, menu entries. Nothing is ever evaluated.

Source: GRUB manual, "Writing full configuration files directly" and "Shell-like scripting".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SCRIPT_LIMIT = 1024 * 1024
"""Longer scripts (in characters) are read up to here."""

_DEPTH_LIMIT = 50
_VARIABLE = re.compile(r"\$(?:\{[^}\n]*\}|[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[#@*?])")
_SEPARATORS = frozenset("\n;|&<>{}")
_WORD_ENDS = _SEPARATORS | frozenset(" \t\r")
_KEYWORDS = frozenset({"if", "then", "elif", "else", "fi", "for", "in", "do", "done", "while", "until", "!"})
_BODIES = frozenset({"menuentry", "submenu", "function"})
_ESCAPED_IN_QUOTES = '"$\\\n'


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its quotes taken off. Variables stand in it as ``$name``; ``fixed`` tells that it has none."""

    text: str
    start: int
    end: int
    fixed: bool = True
    quoted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command with its words; menu entries, submenus and functions have a ``body``. Positions count characters."""

    words: tuple[Word, ...]
    body: tuple[Command, ...] = ()
    start: int
    end: int

    @property
    def name(self) -> str:
        """The command's name."""
        return self.words[0].text if self.words else ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its words but the name."""
        return tuple(word.text for word in self.words[1:])

    def option(self, name: str) -> str | None:
        """Return the value of ``--name=value`` or ``--name value``."""
        arguments = self.arguments
        for position, text in enumerate(arguments):
            if text.startswith(f"{name}="):
                return text[len(name) + 1 :]
            if text == name and position + 1 < len(arguments):
                return arguments[position + 1]
        return None


def parse_script(text: str) -> tuple[Command, ...]:
    """Return the commands of a script in order, those inside ``if`` and loops too (but not as their bodies).

    Never fails: what is unbalanced ends with the script.
    """
    return tuple(_Reader(text[:SCRIPT_LIMIT]).commands(0))


def executed(commands: tuple[Command, ...]) -> Iterator[Command]:
    """Yield commands in the order in which they run: those of a function where it is called (for the first time)."""
    functions: dict[str, tuple[Command, ...]] = {}
    pending = [iter(commands)]
    while pending:
        command = next(pending[-1], None)
        if command is None:
            pending.pop()
        elif command.name == "function" and command.arguments:
            functions[command.arguments[0]] = command.body
        elif command.name in functions:
            pending.append(iter(functions.pop(command.name)))
        else:
            yield command


def assigned(commands: Iterable[Command], variable: str) -> Iterator[str]:
    """Yield what *variable* is set to: ``set default=1`` and ``default=1``. Variables stand in it as written."""
    for command in commands:
        word = command.name if command.name != "set" else "".join(command.arguments[:1])
        name, equals, value = word.partition("=")
        if equals and name == variable:
            yield value


def menu_entries(commands: tuple[Command, ...]) -> Iterator[Command]:
    """Yield menu entries in order, those in submenus too."""
    for command in commands:
        if command.name == "menuentry":
            yield command
        elif command.name == "submenu":
            yield from menu_entries(command.body)


def find_commands(commands: tuple[Command, ...], name: str) -> Iterator[Command]:
    """Yield commands called *name*, wherever they are."""
    for command in commands:
        if command.name == name:
            yield command
        yield from find_commands(command.body, name)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def commands(self, depth: int) -> Iterator[Command]:
        """Yield commands up to the brace that closes the block (or the end)."""
        words: list[Word] = []
        groups = 0  # braces that are no body
        while True:
            self._skip_blank()
            char = self._text[self._at : self._at + 1]
            if char == "{" and depth < _DEPTH_LIMIT and words and words[0].text in _BODIES:
                self._at += 1
                body = tuple(self.commands(depth + 1))
                yield Command(words=tuple(words), body=body, start=words[0].start, end=self._at)
                words = []
            elif not char or char in _SEPARATORS:
                self._at += len(char)
                if words:
                    yield Command(words=tuple(words), start=words[0].start, end=words[-1].end)
                    words = []
                if not char or (char == "}" and depth and not groups):
                    return
                groups = max(0, groups + (char == "{") - (char == "}"))
            else:
                word = self._word()
                if words or word.quoted or word.text not in _KEYWORDS:
                    words.append(word)

    def _skip_blank(self) -> None:
        while self._at < len(self._text):
            if self._text[self._at] in " \t\r":
                self._at += 1
            elif self._text.startswith("\\\n", self._at):
                self._at += 2
            elif self._text[self._at] == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                return

    def _word(self) -> Word:
        text, start = self._text, self._at
        parts: list[str] = []
        fixed, quoted = True, False
        while self._at < len(text):
            char = text[self._at]
            if char in _WORD_ENDS:
                break
            if char == "'":
                end = text.find("'", self._at + 1)
                end = len(text) if end < 0 else end
                parts.append(text[self._at + 1 : end])
                self._at, quoted = end + 1, True
            elif char == '"':
                fixed = self._double_quoted(parts) and fixed
                quoted = True
            elif char == "\\":
                following = text[self._at + 1 : self._at + 2]
                parts.append("" if following == "\n" else following)
                self._at += 2
            elif variable := _VARIABLE.match(text, self._at):
                parts.append(variable[0])
                self._at, fixed = variable.end(), False
            else:
                parts.append(char)
                self._at += 1
        return Word("".join(parts), start, self._at, fixed, quoted)

    def _double_quoted(self, parts: list[str]) -> bool:
        text, fixed = self._text, True
        self._at += 1
        while self._at < len(text) and text[self._at] != '"':
            if text[self._at] == "\\" and text[self._at + 1 : self._at + 2] in set(_ESCAPED_IN_QUOTES):
                parts.append("" if text[self._at + 1] == "\n" else text[self._at + 1])
                self._at += 2
            elif variable := _VARIABLE.match(text, self._at):
                parts.append(variable[0])
                self._at, fixed = variable.end(), False
            else:
                parts.append(text[self._at])
                self._at += 1
        self._at += 1
        return fixed
