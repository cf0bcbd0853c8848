"""What an action does to what is there: told by core, from the target that the action is planned for."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

from cfs_core.model.action import CopyObject, Effect, MakeHardLink, MakeSpecial, MakeSymlink, RunCommand, WriteFile

if TYPE_CHECKING:
    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.action import Action
    from cfs_core.model.disk import Location

A = TypeVar("A", bound="Action")


def effect_of(action: Action, target: TargetView) -> Effect:
    """Return what *action* would do to *target* as it is now: something new there, or in the place of something."""
    places: tuple[Location, ...]
    match action:
        case WriteFile() | CopyObject() | MakeSymlink() | MakeHardLink() | MakeSpecial():
            places = (action.location,)
        case RunCommand():
            places = action.writes
        case _:
            return action.effect
    present = (place for place in places if place.volume in target.volumes() and target.exists(place))
    return Effect.REPLACE if any(present) else Effect.ADD


def with_effect(action: A, target: TargetView) -> A:
    """Return *action* with the effect it has on *target*."""
    effect = effect_of(action, target)
    if action.effect is effect:
        return action
    told = copy.copy(action)
    object.__setattr__(told, "effect", effect)  # no argument of the constructor: nobody but core says it
    return told
