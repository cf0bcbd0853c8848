"""Many regular expressions of a policy at a time, in time that grows with the text and not with its powers.

Sets of states are followed through the text, and remembered (a lazy DFA), so that no expression of an image can make
matching take exponential time; the work that is left is counted and has an end (docs/adr/0035).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_storage_composefs.selinux.regex import (
    ANY,
    MOST_STATES,
    Begin,
    Choice,
    Expression,
    OneOf,
    Repeat,
    Series,
    TooLargeError,
    one_byte,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_WORK = 20_000_000
"""Steps from one set of states to the next, for all paths of an image: about ten seconds. With Debian's policy a system
of 130,000 files takes 530,000."""

_CACHED = 1_000_000
"""States in all the sets that are remembered, some 50 MB; beyond it they are made anew."""


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
