"""Regular expressions of SELinux policies, read into what an automaton is made of."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

POSSIBLE_TYPES = (b"b", b"c", b"d", b"p", b"l", b"s", b"-")

_BACKSLASH = 0x5C
_SPECIAL = frozenset(b".^$*+?{}[]()|")
_QUANTIFIERS = frozenset(b"*+?{")
_CLASSES = {
    b"alnum": b"0-9A-Za-z",
    b"alpha": b"A-Za-z",
    b"blank": rb" \t",
    b"digit": b"0-9",
    b"lower": b"a-z",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb"\s",
    b"upper": b"A-Z",
    b"word": rb"\w",
    b"xdigit": b"0-9A-Fa-f",
}
_FLAGS = re.compile(rb"\(\?([is]+)\)")
_CLASS_NAME = re.compile(rb"\[:([a-z]+):\]")
_COUNTS = re.compile(rb"\{(\d*)(,?)(\d*)\}")
_NUMBERED = re.compile(rb"\\[xX][0-9a-fA-F]{2}")

MOST_STATES = 1_000_000
"""Of all expressions of a policy. Debian's whole policy has 37,000."""

REFUSALS = (re.error, OverflowError, RecursionError, ValueError)
"""What is said of expressions that are malformed, have counts too large, or are nested too deeply."""


class UnusualRegexError(ValueError):
    """What no automaton does and no known policy has: back references, look-around, possessive quantifiers."""


class TooLargeError(ValueError):
    """The expressions have more than `MOST_STATES` states, or took more than `MOST_WORK` steps."""


def literal_prefix(regex: bytes) -> tuple[bytes, bytes]:
    """Split an expression into the text that every match starts with (unless it is an alternation), and the rest."""
    literal = bytearray()
    at = last = 0
    while at < len(regex):
        char = regex[at]
        if char == _BACKSLASH and at + 1 < len(regex) and not chr(regex[at + 1]).isalnum():
            char, step = regex[at + 1], 2
        elif char in _SPECIAL or char == _BACKSLASH:
            break
        else:
            step = 1
        literal.append(char)
        last = at
        at += step
    if at < len(regex) and regex[at] in _QUANTIFIERS and literal:
        literal.pop()
        at = last
    return bytes(literal), regex[at:]


# --- expressions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OneOf:
    """One byte of a set: bit N of ``bytes`` is whether byte N is in it. No bit: this never matches."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Nothing, at the path's beginning."""


@dataclass(frozen=True, slots=True)
class Series:
    """One after another."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Again and again; ``most`` None is without end."""

    part: Expression
    least: int
    most: int | None


Expression = OneOf | Begin | Series | Choice | Repeat

ANY = OneOf((1 << 256) - 1)
_NEVER = OneOf(0)


def one_byte(byte: int) -> OneOf:
    """Return what matches *byte* alone."""
    return OneOf(1 << byte)


@functools.lru_cache(maxsize=4096)
def _set(text: bytes, *, any_case: bool) -> OneOf:
    """Return what Python's `re` matches by *text*, which stands for one byte."""
    pattern = re.compile(text, re.DOTALL | (re.IGNORECASE if any_case else 0))
    return OneOf(sum(1 << byte for byte in range(256) if pattern.fullmatch(bytes([byte]))))


def parse(regex: bytes) -> Expression:
    """Read an expression as PCRE and Python do.

    Raises:
        UnusualRegexError: see there.
        re.error: it is malformed, or another of `REFUSALS`.
    """
    flags = _FLAGS.match(regex)
    reader = _Parser(regex, flags.end() if flags else 0, any_case=flags is not None and b"i" in flags[1])
    found = reader.choice()
    if reader.at < len(regex):
        msg = "unbalanced parenthesis"
        raise re.error(msg)
    return found


class _Parser:
    def __init__(self, text: bytes, at: int, *, any_case: bool) -> None:
        self.text = text
        self.at = at
        self._any_case = any_case

    def choice(self) -> Expression:
        parts = [self._sequence()]
        while self._next() == b"|":
            self.at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _next(self, size: int = 1) -> bytes:
        return self.text[self.at : self.at + size]

    def _sequence(self) -> Expression:
        parts: list[Expression] = []
        while self._next() not in {b"", b"|", b")"}:
            part = self._atom()
            counts = self._counts()
            if counts is not None:
                part = Repeat(part, *counts)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Series(tuple(parts))

    def _counts(self) -> tuple[int, int | None] | None:
        found: tuple[int, int | None]
        char = self._next()
        if char in {b"*", b"+", b"?"}:
            found = {b"*": (0, None), b"+": (1, None), b"?": (0, 1)}[char]
            self.at += 1
        elif char == b"{" and (counts := self._braces()) is not None:
            found = counts
        else:
            return None
        if self._next() == b"?":  # as few as possible: the same texts match
            self.at += 1
        elif self._next() == b"+":
            raise UnusualRegexError("a possessive quantifier")  # noqa: EM101, TRY003 - said as it is
        if self._next() in {b"*", b"+", b"?"} or (self._next() == b"{" and _COUNTS.match(self.text, self.at)):
            msg = "multiple repeat"
            raise re.error(msg)
        return found

    def _braces(self) -> tuple[int, int | None] | None:
        """Read ``{2}``, ``{2,}``, ``{,3}`` or ``{2,3}``; None where the brace is one, as in ``%{USERID}``."""
        counts = _COUNTS.match(self.text, self.at)
        if counts is None or not any(counts.groups()):
            return None
        self.at = counts.end()
        least = int(counts[1] or 0)
        most = (int(counts[3]) if counts[3] else None) if counts[2] else least
        if most is not None and most < least:
            msg = "min repeat greater than max repeat"
            raise re.error(msg)
        if max(least, most or 0) > MOST_STATES:
            raise TooLargeError
        return least, most

    def _atom(self) -> Expression:
        char = self._next()
        start = self.at
        if char == b"(":
            return self._group()
        if char == b"[":
            return self._bracket()
        if char == b"\\":
            return self._escape()
        if char in {b"*", b"+", b"?"} or (char == b"{" and self._braces() is not None):
            msg = "nothing to repeat"
            raise re.error(msg)
        self.at = start + 1
        if char == b"^":
            return Begin()
        if char == b"$":
            return _NEVER  # the file's type always follows
        if char == b".":
            return ANY
        return _set(re.escape(char), any_case=True) if self._any_case else one_byte(char[0])

    def _group(self) -> Expression:
        self.at += 1
        if self._next() == b"?":
            if self._next(2) != b"?:":
                raise UnusualRegexError(f"({self._next(2).decode('latin-1')}")  # noqa: EM102 - said as it is
            self.at += 2
        found = self.choice()
        if self._next() != b")":
            msg = "missing ), unterminated subpattern"
            raise re.error(msg)
        self.at += 1
        return found

    def _escape(self) -> Expression:
        following = self.text[self.at + 1 : self.at + 2]
        if following == b"A":
            self.at += 2
            return Begin()
        if following in {b"Z", b"z"}:
            self.at += 2
            return _NEVER
        if following.isdigit() or following in {b"b", b"B", b"Q", b"E", b"K", b"G"}:
            raise UnusualRegexError("\\" + following.decode("ascii"))
        numbered = _NUMBERED.match(self.text, self.at)
        end = numbered.end() if numbered else self.at + 2
        text = self.text[self.at : end]
        self.at = end
        return _set(text, any_case=self._any_case)

    def _bracket(self) -> Expression:
        """Read a bracket expression, which is given to Python once its POSIX names are ranges."""
        at = self.at + 1
        out = bytearray(b"[")
        if self.text[at : at + 1] == b"^":
            out += b"^"
            at += 1
        if self.text[at : at + 1] == b"]":
            out += rb"\]"
            at += 1
        while (char := self.text[at : at + 1]) not in {b"]", b""}:
            named = _CLASS_NAME.match(self.text, at)
            if named:
                if named[1] not in _CLASSES:
                    raise UnusualRegexError(named[0].decode("ascii"))
                out += _CLASSES[named[1]]
                at = named.end()
            elif char == b"\\":
                out += self.text[at : at + 2]
                at += 2
            else:
                if char in b"[&~|":
                    out += b"\\"  # Python warns of possible set operations
                out += char
                at += 1
        self.at = at + 1
        if char == b"":
            msg = "unterminated character set"
            raise re.error(msg)
        return _set(bytes(out) + b"]", any_case=self._any_case)
