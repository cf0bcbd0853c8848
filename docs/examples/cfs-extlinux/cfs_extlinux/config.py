"""The text of extlinux.conf: read as U-Boot's boot/pxe_utils.c reads it, edited without loss."""

from __future__ import annotations

import re
from dataclasses import dataclass

ENCODING = "latin-1"
"""U-Boot hands bytes on as they are; this reads and writes any file without loss."""

_KEY = re.compile(r"[ \t]*(?P<key>[a-zA-Z]+)(?:[ \t]+(?P<value>[^\r\n]*))?")


def field(line: str) -> tuple[str, str]:
    """Return keyword (small letters) and value of a line; empty where it has none."""
    match = _KEY.match(line)
    return (match["key"].lower(), (match["value"] or "").strip()) if match else ("", "")


def plain(text: str) -> str:
    """Return *text* as a menu can show it: one line of ASCII."""
    return "".join(char if " " <= char <= "~" else "?" for char in re.sub(r"\s+", " ", text).strip())[:100]


@dataclass(frozen=True, slots=True)
class Label:
    """A label with its lines, the first included."""

    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """What ``default`` calls it."""
        return field(self.lines[0])[1]

    def get(self, *keys: str) -> str | None:
        """Return the value of the last line that has one of *keys*."""
        return next((value for key, value in map(field, reversed(self.lines[1:])) if key in keys and value), None)

    def note(self, key: str) -> str | None:
        """Return what a comment ``# key: value`` of ours says; U-Boot does not read it."""
        for line in self.lines:
            name, colon, value = line.strip().removeprefix("#").partition(":")
            if line.strip().startswith("#") and colon and name.strip() == key:
                return value.strip()
        return None

    def with_append(self, words: str) -> Label:
        """Return it with another command line."""
        return Label((*(line for line in self.lines if field(line)[0] != "append"), f"  append {words}\n"))


@dataclass(frozen=True, slots=True)
class Config:
    """extlinux.conf: lines before the first label, and labels; joined again they are the file."""

    head: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Config:
        """Take *data* apart."""
        lines = [
            line if line.endswith("\n") else f"{line}\n" for line in data.decode(ENCODING).splitlines(keepends=True)
        ]
        starts = [at for at, line in enumerate(lines) if field(line)[0] == "label" and field(line)[1]]
        ends = [*starts[1:], len(lines)] if starts else []
        labels = tuple(Label(tuple(lines[start:end])) for start, end in zip(starts, ends, strict=True))
        return cls(tuple(lines[: starts[0]] if starts else lines), labels)

    def data(self) -> bytes:
        """Return the file."""
        return "".join([*self.head, *(line for label in self.labels for line in label.lines)]).encode(ENCODING)

    def setting(self, key: str) -> str | None:
        """Return a global option; the last line that has it counts."""
        return next((value for name, value in map(field, reversed(self.head)) if name == key and value), None)

    def with_setting(self, key: str, value: str | None) -> Config:
        """Return it with one line for a global option, or none."""
        kept = tuple(line for line in self.head if field(line)[0] != key)
        return Config(kept if value is None else (*kept, f"{key} {value}\n"), self.labels)

    def default(self) -> Label | None:
        """Return what starts by itself: the label ``default`` names, else the first."""
        wanted = self.setting("default")
        named = next((label for label in self.labels if label.name == wanted), None)
        return named or (self.labels[0] if self.labels else None)
