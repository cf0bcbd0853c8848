"""Actions in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfs_core.model.action import (
    CopyObject,
    ExchangePaths,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    RemovePath,
    RenamePath,
    RunCommand,
    SetEfiVariable,
    WriteBlocks,
    WriteFile,
)
from cfs_core.report.progress import human_bytes

if TYPE_CHECKING:
    from cfs_core.model.action import Action

_WORDS: Final[dict[type, str]] = {
    MakeDirectory: "directory",
    MakeSymlink: "link",
    MakeHardLink: "hard link",
    MakeSpecial: "device",
    RemovePath: "gone",
    RenamePath: "new name",
    ExchangePaths: "exchange",
    RunCommand: "command",
    SetEfiVariable: "variable",
}


def described(action: Action) -> str:
    """Return one line about an action: where, and how much or what."""
    return f"{place_of(action)}  {amount_of(action)}"


def place_of(action: Action) -> str:
    """Return what an action changes: a location, or the command that is run."""
    if isinstance(action, RunCommand):
        return " ".join(action.argv)
    if isinstance(action, SetEfiVariable):
        return action.name
    return str(getattr(action, "location", None) or getattr(action, "a", ""))


def amount_of(action: Action) -> str:
    """Return bytes for what has contents, and a word for all else."""
    match action:
        case CopyObject():
            return human_bytes(action.source.size)
        case WriteFile():
            return human_bytes(len(action.data))
        case WriteBlocks():
            return f"{human_bytes(len(action.data))} at byte {action.offset}"
        case _:
            return _WORDS[type(action)]
