"""Names that were meant, for those that do not exist."""

from __future__ import annotations

import difflib
from importlib import metadata
from typing import TYPE_CHECKING

from cfs_core.errors import UsageError
from cfs_core.pluginhost.load import ENTRY_POINT_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse_unknown_plugins(names: Iterable[str]) -> None:
    """Refuse to switch off what is not installed; plugins go by their own name or their distribution's.

    Raises:
        UsageError: no plugin has such a name.
    """
    entries = metadata.entry_points(group=ENTRY_POINT_GROUP)
    known = {entry.name for entry in entries} | {entry.dist.name for entry in entries if entry.dist is not None}
    for name in names:
        if name not in known:
            msg = f"--disable-plugin {name}: there is no such plugin"
            close = difflib.get_close_matches(name, known)
            installed = ", ".join(sorted({entry.name for entry in entries})) or "none"
            raise UsageError(msg, hint=f"did you mean {' or '.join(close)}?" if close else f"installed: {installed}")
