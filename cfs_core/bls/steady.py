"""Whether a machine that dies between two actions starts what it started before, or what it is to start now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.bls.scan import list_names, read_file
from cfs_core.model.action import CopyObject, RemovePath, WriteFile
from cfs_core.model.content import read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.action import Action
    from cfs_core.model.boot import BootMenu
    from cfs_core.model.disk import Location, Partition, Volume


def is_steady(target: TargetView, actions: Iterable[Action], read_menu: Callable[[TargetView], BootMenu]) -> bool:
    """Return whether, after each action, the default is that of *target* or the final one, and so is the next boot.

    No choice for the next boot is fine: it is lost, but nothing else is started. Where nothing starts yet, all is well.
    """
    after = Overlay(target)
    menus = [read_menu(target)]
    for action in actions:
        after.apply(action)
        if not isinstance(action, CopyObject):  # boot files are no menu
            menus.append(read_menu(after))
    allowed = {default_of(menus[0]), default_of(menus[-1])}
    once = {None, menus[0].once, menus[-1].once}
    return default_of(menus[0]) is None or all(default_of(menu) in allowed and menu.once in once for menu in menus)


def default_of(menu: BootMenu) -> str | None:
    """Return the id of what starts by itself, None if nothing does."""
    return menu.default or next((entry.deployment_id for entry in menu.entries), None)


class Overlay:
    """A target as it would be after some actions."""

    def __init__(self, target: TargetView) -> None:
        self._target = target
        self._files: dict[Location, WriteFile | CopyObject | None] = {}

    def apply(self, action: Action) -> None:
        """Note what a menu is made of: files written and removed."""
        if isinstance(action, WriteFile | CopyObject):
            self._files[action.location] = action
        elif isinstance(action, RemovePath):
            self._files[action.location] = None

    def volumes(self) -> frozenset[Volume]:
        """Return the volumes there are."""
        return self._target.volumes() | {location.volume for location in self._files}

    def partition(self, volume: Volume) -> Partition | None:
        """Return where *volume* lives."""
        return self._target.partition(volume)

    def read(self, location: Location) -> bytes:
        """Return a file's bytes."""
        if location in self._files:
            action = self._files[location]
            if action is None:
                raise FileNotFoundError(str(location))
            return action.data if isinstance(action, WriteFile) else read_all(action.source)
        data = read_file(self._target, location)
        if data is None:
            raise FileNotFoundError(str(location))
        return data

    def names(self, location: Location) -> tuple[str, ...]:
        """Return sorted names in a directory."""
        names = set(list_names(self._target, location))
        for changed, action in self._files.items():
            if changed.volume is location.volume and changed.path.rpartition("/")[0] == location.path.rstrip("/"):
                (names.discard if action is None else names.add)(changed.path.rpartition("/")[2])
        return tuple(sorted(names))

    def exists(self, location: Location) -> bool:
        """Return whether anything is there."""
        if location in self._files:
            return self._files[location] is not None
        return location.volume in self._target.volumes() and self._target.exists(location)
