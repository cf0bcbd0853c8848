"""Whether a machine that dies between two actions starts what it started before, or what it is to start now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.model.action import CopyObject
from cfs_core.target.overlay import OverlayTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.action import Action
    from cfs_core.model.boot import BootMenu


def is_steady(target: TargetView, actions: Iterable[Action], read_menu: Callable[[TargetView], BootMenu]) -> bool:
    """Return whether, after each action, the default is that of *target* or the final one, and so is the next boot.

    No choice for the next boot is fine: it is lost, but nothing else is started. Where nothing starts yet, all is well.
    """
    after = OverlayTarget(target)
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
