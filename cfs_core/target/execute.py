"""Applies actions, all of them or the first few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cfs_core.model.action import Action
    from cfs_core.target.memory import MemoryTarget


class ActionTarget(Protocol):
    """Anything actions can be applied to."""

    def apply(self, action: Action) -> None:
        """Do what *action* says."""


def apply(
    actions: Iterable[Action], target: ActionTarget, *, done: Callable[[Action], None] = lambda _action: None
) -> None:
    """Apply *actions* in order; *done* is called after each.

    Raises:
        CfsError: whatever the target raises; the actions before are done.
    """
    for action in actions:
        target.apply(action)
        done(action)


def first_k(actions: Sequence[Action], target: MemoryTarget) -> Iterator[tuple[int, MemoryTarget]]:
    """Yield (k, *target* after the first k actions) for every k from 0 to all: what a crash would leave behind.

    Each target is independent of the others, and *target* stays as it is.
    """
    current = target.copy()
    yield 0, current.copy()
    for count, action in enumerate(actions, start=1):
        current.apply(action)
        yield count, current.copy()
