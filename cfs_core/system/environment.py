"""Directories that the environment names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def directory_of(environ: Mapping[str, str], name: str, below_home: str | None = None) -> Path | None:
    """Return the directory that the variable *name* holds, else *below_home* in HOME, else None.

    A relative path would mean another directory for each current one: it counts as not set, as the XDG Base Directory
    Specification demands of its variables, and as HOME's meaning in POSIX does.
    """
    value = environ.get(name)
    if value and os.path.isabs(value):  # noqa: PTH117 - a string, not yet a path
        return Path(value)
    if below_home is None:
        return None
    home = directory_of(environ, "HOME")
    return home / below_home if home is not None else None
