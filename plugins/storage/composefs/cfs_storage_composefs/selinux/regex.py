"""Regular expressions of SELinux policies, many at a time: literal beginnings, and one alternation for each group."""

from __future__ import annotations

import re

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
_FLAGS = re.compile(rb"\(\?([imsx]+)\)")
_CLASS_NAME = re.compile(rb"\[:([a-z]+):\]")


REFUSALS = (re.error, OverflowError, RecursionError, ValueError)
"""What `re` says of expressions it does not take: malformed, counts too large or too long, nested too deeply."""


class UnusualRegexError(Exception):
    """The expression cannot be joined with others: anchors, back references, look-behind, inline flags."""


class MalformedRegexError(Exception):
    """An expression cannot be compiled; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


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


def rewrite(regex: bytes) -> bytes:
    """Return *regex* in Python's syntax and without groups of its own.

    Raises:
        UnusualRegexError: see there.
    """
    out = bytearray()
    depth = at = 0
    while at < len(regex):
        char = regex[at : at + 1]
        following = regex[at + 1 : at + 2]
        if char == b"\\":
            if following.isdigit() or following in {b"b", b"B", b"A", b"Z", b"z", b"Q", b"E", b"K", b"G"}:
                raise UnusualRegexError
            out += regex[at : at + 2]
            at += 2
            continue
        if char == b"[":
            piece, at = _bracket(regex, at)
            out += piece
            continue
        if char == b"(":
            depth += 1
            if following == b"?":
                if regex[at + 2 : at + 3] not in {b":", b"=", b"!"}:
                    raise UnusualRegexError
                out += char
            else:
                out += b"(?:"
        else:
            if char in {b"^", b"$"} or (char == b"|" and depth == 0):
                raise UnusualRegexError
            depth -= char == b")"
            out += char
        at += 1
    return bytes(out)


def _bracket(regex: bytes, start: int) -> tuple[bytes, int]:
    """Translate a bracket expression; return it and where it ends."""
    at = start + 1
    out = bytearray(b"[")
    if regex[at : at + 1] == b"^":
        out += b"^"
        at += 1
    if regex[at : at + 1] == b"]":
        out += rb"\]"
        at += 1
    while at < len(regex) and regex[at : at + 1] != b"]":
        named = _CLASS_NAME.match(regex, at)
        if named:
            if named[1] not in _CLASSES:
                raise UnusualRegexError
            out += _CLASSES[named[1]]
            at = named.end()
        elif regex[at : at + 1] == b"\\":
            out += regex[at : at + 2]
            at += 2
        else:
            if regex[at : at + 1] in b"[&~|":
                out += b"\\"  # Python warns of possible set operations
            out += regex[at : at + 1]
            at += 1
    return bytes(out) + b"]", at + 1


def compile_whole(regex: bytes, kind: bytes) -> re.Pattern[bytes]:
    """Compile one expression by itself, for path and type character together.

    Raises:
        re.error: it is malformed, or another of `REFUSALS`.
    """
    flags = _FLAGS.match(regex)
    out = bytearray(b"(?" + flags[1] + b":" if flags else b"(?:")
    at = flags.end() if flags else 0
    while at < len(regex):
        if regex[at : at + 1] == b"[":
            piece, at = _bracket(regex, at)
        else:
            step = 2 if regex[at : at + 1] == b"\\" else 1
            piece = regex[at : at + step]
            at += step
        out += piece
    return re.compile(bytes(out) + b")" + _type_pattern(kind), re.DOTALL)


def _type_pattern(kind: bytes) -> bytes:
    return re.escape(kind) if kind else b"."


class Alternatives:
    """Expressions that start with the same directories, as one expression; the one added last is tried first."""

    __slots__ = ("_compiled", "_numbers", "_patterns", "_start", "highest")

    def __init__(self, start: int) -> None:
        self._start = start
        self._numbers: list[int] = []
        self._patterns: list[bytes] = []
        self._compiled: re.Pattern[bytes] | None = None
        self.highest = -1

    def add(self, number: int, pattern: bytes, kind: bytes) -> None:
        """Add an expression (without the common directories); numbers ascend."""
        self._numbers.append(number)
        self._patterns.append(b"(?:" + pattern + b")" + _type_pattern(kind) + b"()")
        self.highest = number

    def compile(self) -> None:
        """Make ready for `match`.

        Raises:
            MalformedRegexError: the first of the expressions that is malformed.
        """
        try:
            self._compiled = re.compile(b"|".join(reversed(self._patterns)), re.DOTALL)
        except REFUSALS as error:
            for number, pattern in zip(self._numbers, self._patterns, strict=True):
                try:
                    re.compile(pattern)
                except REFUSALS as cause:
                    raise MalformedRegexError(number) from cause
            raise MalformedRegexError(self._numbers[0]) from error
        self._numbers.reverse()

    def match(self, text: bytes, best: int) -> int:
        """Return the highest number whose expression matches *text* behind the common directories, or *best*."""
        found = self._compiled.fullmatch(text, self._start) if self._compiled is not None else None
        if found is None or found.lastindex is None:
            return best
        return max(best, self._numbers[found.lastindex - 1])
