"""Regular expressions of SELinux policies, many at a time, in time that grows with the text and not with its powers.

Sets of states are followed through the text, and remembered (a lazy DFA), so that no expression of an image can make
matching take exponential time; the work that is left is counted and has an end (docs/adr/0035).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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

MOST_WORK = 20_000_000
"""Steps from one set of states to the next, for all paths of an image: about ten seconds. With Debian's policy a system
of 130,000 files takes 530,000."""

_CACHED = 1_000_000
"""States in all the sets that are remembered, some 50 MB; beyond it they are made anew."""

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


# --- automata -------------------------------------------------------------------------------------------------------


class Work:
    """What all expressions of a policy have and took together."""

    __slots__ = ("states", "steps")

    def __init__(self) -> None:
        self.states = 0
        self.steps = 0

    def add_state(self) -> None:
        """Count a state.

        Raises:
            TooLargeError: it is one too many.
        """
        self.states += 1
        if self.states > MOST_STATES:
            raise TooLargeError

    def add_steps(self, count: int) -> None:
        """Count steps.

        Raises:
            TooLargeError: the work has no end that anybody waits for.
        """
        self.steps += count
        if self.steps > MOST_WORK:
            raise TooLargeError


class States:
    """A set of states that an `Automaton` is in at once, with where it goes from there as far as that was asked."""

    __slots__ = ("best", "items", "moves")

    def __init__(self, items: frozenset[int], best: int) -> None:
        self.items = items
        self.best = best
        """The highest number of an expression that ends here, -1 where none does."""

        self.moves: dict[int, States] = {}


class Automaton:
    """Expressions that start with the same directories, of which the one with the highest number counts.

    *at* is how many bytes of a path those directories have.
    """

    def __init__(self, work: Work, at: int) -> None:
        self.at = at
        self.highest = -1
        self._work = work
        # State N takes a byte of _bytes[N] and goes to _after[N]; without bytes it goes to all of _after[N] at once, if
        # it is none of _begins at another place than the path's beginning. _best[N]: the expression that ends there.
        self._bytes: list[int | None] = []
        self._after: list[tuple[int, ...]] = []
        self._begins: set[int] = set()
        self._best: dict[int, int] = {}
        self._starts: list[int] = []
        self._start: States | None = None
        self._closures: dict[int, tuple[frozenset[int], int]] = {}
        self._known: dict[tuple[frozenset[int], int], States] = {}
        self._cached = 0

    def add(self, number: int, expression: Expression, kind: bytes) -> None:
        """Add an expression; numbers ascend. *kind* is a type character, empty for any.

        Raises:
            TooLargeError: there are too many states by now.
            RecursionError: it is nested too deeply.
        """
        end = self._state(None)
        self._best[end] = number
        before = self._state((one_byte(kind[0]) if kind else ANY).bytes, end)
        self._starts.append(self._build(expression, before))
        self.highest = number

    def _state(self, taken: int | None, *after: int) -> int:
        self._work.add_state()
        self._bytes.append(taken)
        self._after.append(after)
        return len(self._bytes) - 1

    def _build(self, expression: Expression, after: int) -> int:
        """Return the state in which *expression* begins, with *after* as what follows it."""
        match expression:
            case OneOf(taken):
                return self._state(taken, after)
            case Begin():
                state = self._state(None, after)
                self._begins.add(state)
                return state
            case Choice(parts):
                return self._state(None, *(self._build(part, after) for part in parts))
            case Series(parts):
                for part in reversed(parts):
                    after = self._build(part, after)
                return after
            case Repeat(part, least, most):
                return self._repeat(part, least, most, after)

    def _repeat(self, part: Expression, least: int, most: int | None, after: int) -> int:
        if most is None:
            loop = self._state(None)
            self._after[loop] = (self._build(part, loop), after)
            after = loop
        else:
            end = after
            for _ in range(most - least):
                after = self._state(None, self._build(part, after), end)
        for _ in range(least):
            after = self._build(part, after)
        return after

    def start(self) -> States:
        """Return where every text begins."""
        if self._start is None:
            self._start = self._states([self._closure(start, beginning=self.at == 0) for start in self._starts])
        return self._start

    def walk(self, states: States, text: bytes) -> States:
        """Return where *text* leads to from *states*.

        Raises:
            TooLargeError: see `Work`.
        """
        for byte in text:
            following = states.moves.get(byte)
            if following is None:
                if not states.items:
                    return states if states.best < 0 else _NOWHERE
                following = self._move(states, byte)
            states = following
        return states

    def _move(self, states: States, byte: int) -> States:
        self._work.add_steps(len(states.items))
        reached = []
        for item in states.items:
            if (self._bytes[item] or 0) >> byte & 1:
                target = self._after[item][0]
                found = self._closures.get(target)
                if found is None:
                    found = self._closure(target, beginning=False)
                    self._make_room(len(found[0]))
                    self._closures[target] = found
                reached.append(found)
        following = states.moves[byte] = self._states(reached)
        return following

    def _states(self, parts: Iterable[tuple[frozenset[int], int]]) -> States:
        items: set[int] = set()
        best = -1
        for more, number in parts:
            items |= more
            best = max(best, number)
        self._work.add_steps(len(items))
        key = (frozenset(items), best)
        found = self._known.get(key)
        if found is None:
            self._make_room(len(items))
            found = self._known[key] = States(*key)
        return found

    def _make_room(self, items: int) -> None:
        self._cached += items + 1
        if self._cached > _CACHED:
            self._known.clear()
            self._closures.clear()
            self._start = None
            self._cached = 0

    def _closure(self, target: int, *, beginning: bool) -> tuple[frozenset[int], int]:
        """Return the states with bytes that are reached from *target* without any, and the best end among them."""
        items, best = set(), -1
        seen, pending = {target}, [target]
        while pending:
            state = pending.pop()
            best = max(best, self._best.get(state, -1))
            if self._bytes[state] is not None:
                items.add(state)
            elif beginning or state not in self._begins:
                more = [after for after in self._after[state] if after not in seen]
                seen.update(more)
                pending += more
        self._work.add_steps(len(seen))
        return frozenset(items), best


_NOWHERE = States(frozenset(), -1)
