"""The text of refind.conf: read as rEFInd's tokeniser does (refind/config.c of 0.14), edited without loss."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.plugin import BootError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENCODING = "latin-1"
"""rEFInd takes bytes for characters; this reads and writes any file without loss."""

_WORD = re.compile(r'[ \t=,]*(?:(?P<comment>#.*)|(?P<word>(?:"(?:[^"]|"")*(?:"|$)|[^ \t=,#"])+))')


def tokens(line: str) -> list[str]:
    """Split a line: white space, ``=`` and ``,`` separate outside quotes, ``""`` inside quotes is a quote."""
    found = []
    position = 0
    line = line.rstrip("\r\n")
    while match := _WORD.match(line, position):
        if match["word"] is None:
            break
        found.append(_unquoted(match["word"]))
        position = match.end()
    return found


def _unquoted(word: str) -> str:
    return re.sub(r'"((?:[^"]|"")*)(?:"|$)', lambda match: match[1].replace('""', '"'), word)


def quoted(text: str) -> str:
    """Return *text* as one token."""
    return '"' + text.replace('"', '""') + '"'


def plain(text: str) -> str:
    """Return *text* as a title can show it: one line of ASCII."""
    shown = "".join(char if " " <= char <= "~" else "?" for char in re.sub(r"\s+", " ", text).strip())
    return shown[:100]


def check_ascii(argument: str) -> None:
    """Refuse what rEFInd would hand over changed.

    Raises:
        BootError: not ASCII.
    """
    if not argument.isascii():
        message = f"rEFInd takes the bytes of {argument!r} for single characters: the kernel would see another argument"
        raise BootError(
            message, hint="write the argument in ASCII, or use a unified kernel image", facts={"argument": argument}
        )


@dataclass(frozen=True, slots=True)
class Stanza:
    """A ``menuentry`` with its lines, the first and the closing brace included."""

    lines: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the menu shows."""
        words = tokens(self.lines[0])
        return words[1] if len(words) > 1 else ""

    def get(self, key: str) -> str | None:
        """Return the first parameter of *key*; the last line that has it counts. Submenus are passed over."""
        found = None
        inside = False
        for line in self.lines[1:]:
            words = tokens(line)
            if words[:1] == ["submenuentry"]:
                inside = True
            elif words[:1] == ["}"]:
                inside = False
            elif not inside and len(words) > 1 and words[0].lower() == key:
                found = words[1]
        return found

    def note(self, key: str) -> str | None:
        """Return what a comment ``# key: value`` of ours says; rEFInd does not read it."""
        for line in self.lines:
            name, colon, value = line.strip().removeprefix("#").partition(":")
            if line.strip().startswith("#") and colon and name.strip() == key:
                return value.strip()
        return None

    def bare(self) -> Stanza:
        """Return it without the end of its last line."""
        return replace(self, lines=(*self.lines[:-1], self.lines[-1].removesuffix("\n")))

    @property
    def disabled(self) -> bool:
        """Whether rEFInd leaves it out."""
        return any(tokens(line)[:1] == ["disabled"] for line in self.lines)

    def with_options(self, options: str) -> Stanza:
        """Return it with another command line."""
        lines = [line for line in self.lines[:-1] if tokens(line)[:1] != ["options"]]
        return replace(self, lines=(*lines, f"    options {quoted(options)}\n", self.lines[-1]))


@dataclass(frozen=True, slots=True)
class Config:
    """refind.conf as lines and stanzas, in file order; joined again they are the file."""

    parts: tuple[str | Stanza, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Config:
        """Take *data* apart. Whatever it holds is kept; a stanza without an end is plain lines."""
        lines = data.decode(ENCODING).splitlines(keepends=True)
        parts: list[str | Stanza] = []
        at = 0
        while at < len(lines):
            end = _end(lines, at) if _opens(lines[at], "menuentry") else None
            parts.append(lines[at] if end is None else Stanza(tuple(lines[at:end])))
            at = at + 1 if end is None else end
        return cls(tuple(parts))

    def data(self) -> bytes:
        """Return the file."""
        return "".join(part if isinstance(part, str) else "".join(part.lines) for part in self.parts).encode(ENCODING)

    @property
    def stanzas(self) -> tuple[Stanza, ...]:
        """The stanzas that rEFInd shows."""
        return tuple(part for part in self.parts if isinstance(part, Stanza) and not part.disabled)

    def setting(self, key: str) -> str | None:
        """Return the first parameter of a global option; the last line that has it counts."""
        lines = [tokens(part) for part in self.parts if isinstance(part, str)]
        return next((words[1] for words in reversed(lines) if len(words) > 1 and words[0].lower() == key), None)

    def with_setting(self, key: str, value: str) -> Config:
        """Return it with one line for a global option, where the last one was, or at the end."""
        places = [n for n, part in enumerate(self.parts) if isinstance(part, str) and tokens(part)[:1] == [key]]
        line = f"{key} {value}\n"
        if not places:
            return self._ending((*self.parts, line))
        kept = [line if n == places[-1] else part for n, part in enumerate(self.parts) if n not in places[:-1]]
        return Config(tuple(kept))

    def with_stanzas(self, old: Sequence[Stanza], new: Sequence[Stanza]) -> Config:
        """Return it without *old* and with *new* at its end."""
        kept = [part for part in self.parts if not any(part is stanza for stanza in old)]
        return self._ending((*kept, *new))

    def without_setting(self, key: str) -> Config:
        """Return it without a global option."""
        return self._ending([part for part in self.parts if not (isinstance(part, str) and tokens(part)[:1] == [key])])

    def _ending(self, parts: Sequence[str | Stanza]) -> Config:
        """Return *parts* as a file that ends as this one does: with a line end, or without."""
        ended = list(_ended(parts))
        if ended and self.parts and not self.data().endswith(b"\n"):
            last = ended[-1]
            bare = last.removesuffix("\n") if isinstance(last, str) else last.bare()
            ended[-1] = bare
        return Config(tuple(ended))

    def default(self) -> Stanza | None:
        """Return what starts by itself: the first that ``default_selection`` means, else the first."""
        shown = self.stanzas
        for wanted in (self.setting("default_selection") or "").split(","):
            text = wanted.strip()
            if len(text) == 1 and text in "123456789":
                if int(text) <= len(shown):
                    return shown[int(text) - 1]
            elif len(text) > 1:
                found = next((stanza for stanza in shown if text.lower() in stanza.title.lower()), None)
                if found is not None:
                    return found
        return shown[0] if shown else None


def _ended(parts: Sequence[str | Stanza]) -> Iterator[str | Stanza]:
    """Yield *parts*, each with a line end."""
    for part in parts:
        if isinstance(part, str):
            yield part if part.endswith("\n") else part + "\n"
        elif part.lines[-1].endswith("\n"):
            yield part
        else:
            yield Stanza((*part.lines[:-1], part.lines[-1] + "\n"))


def _opens(line: str, word: str) -> bool:
    words = tokens(line)
    return len(words) > 1 and words[0] == word


def _end(lines: Sequence[str], start: int) -> int | None:
    """Return where the stanza that begins at *start* is over."""
    depth = 1
    for at in range(start + 1, len(lines)):
        words = tokens(lines[at])
        if words[:1] == ["submenuentry"]:
            depth += 1
        elif words[:1] == ["}"]:
            depth -= 1
            if depth == 0:
                return at + 1
    return None
