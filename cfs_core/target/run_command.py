"""Runs a `RunCommand` action: inputs from a target become files in a scratch directory, outputs are taken from there.

``argv`` names them as ``{reads[0]}``, ``{writes[0]}``; a location that is a directory becomes a directory. The command
sees nothing of the target itself, so the same action works on memory, a disk image and a mounted machine.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cfs_core.errors import CommandError, DiskError, RefusedError
from cfs_core.model.action import RunCommand, WriteBlocks, WriteFile
from cfs_core.model.disk import RAW, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfs_core.interfaces.context import CommandRunner
    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.action import Action

OUTPUT_LIMIT = 256 << 20
"""Most bytes one command may write to one location: outputs are boot files."""

_PLACEHOLDER = re.compile(r"\{(reads|writes)\[([0-9]{1,3})\]\}")


def run_command(
    action: RunCommand,
    view: TargetView,
    commands: CommandRunner,
    *,
    scratch: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[Location, bytes]:
    """Run the command and return what it wrote, by location.

    Raises:
        RefusedError: host tools are forbidden (`refuse_host_tools`).
        DiskError: a declared input is missing, an output was not written or is too large, a placeholder is wrong.
        CommandError: the command failed.
    """
    with tempfile.TemporaryDirectory(prefix="command-", dir=scratch) as directory:
        places: dict[str, list[Path]] = {"reads": [], "writes": []}
        for kind, locations in (("reads", action.reads), ("writes", action.writes)):
            for number, location in enumerate(locations):
                holder = Path(directory, f"{kind}-{number}")
                holder.mkdir()
                places[kind].append(holder / (PurePosixPath(location.path).name or "volume"))
        for location, place in zip(action.reads, places["reads"], strict=True):
            _materialise(view, location, place)
        argv = [_fill_in(word, places) for word in action.argv]
        try:
            commands.run(argv, env=env)
        except CommandError as error:
            error.hint = error.hint or f"it was run to: {action.why}"
            raise
        return {
            location: _collect(location, place, action.argv[0])
            for location, place in zip(action.writes, places["writes"], strict=True)
        }


def resolved(
    action: Action, run: Callable[[RunCommand], Mapping[Location, bytes]], *, host_tools: bool
) -> tuple[Action, ...]:
    """Return *action*; of a `RunCommand` what writes its outputs, which *run* makes.

    Raises:
        RefusedError: a `RunCommand` where host tools are forbidden.
    """
    if not isinstance(action, RunCommand):
        return (action,)
    if not host_tools:
        refuse_host_tools(action)
    return tuple(
        WriteBlocks(why=action.why, location=location, offset=action.offset, data=data)
        if location.volume in RAW
        else WriteFile(why=action.why, location=location, data=data)
        for location, data in run(action).items()
    )


def refuse_host_tools(action: RunCommand) -> None:
    """Raise the error for a command that must not be run."""
    msg = f"{action.argv[0]} would have to be run on this host, which the setting install.host-tools forbids"
    raise RefusedError(msg, hint=f"set install.host-tools = true, or choose what does without: {action.why}")


def _fill_in(word: str, places: Mapping[str, list[Path]]) -> str:
    def path(match: re.Match[str]) -> str:
        known = places[match[1]]
        number = int(match[2])
        if number >= len(known):
            msg = f"a planned command names {match[0]}, and declares only {len(known)} {match[1]}"
            raise DiskError(msg, hint="the plugin that planned it is at fault")
        return str(known[number])

    return _PLACEHOLDER.sub(path, word)


def _materialise(view: TargetView, location: Location, place: Path) -> None:
    names = view.names(location)
    if names:
        place.mkdir()
        for name in names:
            _materialise(view, Location(location.volume, f"{location.path.rstrip('/')}/{name}"), place / name)
        return
    try:
        place.write_bytes(view.read(location))
    except FileNotFoundError as error:
        if view.exists(location):
            place.mkdir(exist_ok=True)
            return
        msg = f"a planned command reads {location}, which is not there"
        raise DiskError(msg, hint="the plugin that planned it is at fault") from error


def _collect(location: Location, place: Path, command: str) -> bytes:
    if place.is_symlink() or not place.is_file():
        msg = f"{command} did not write what was expected of it for {location}"
        raise DiskError(msg)
    size = place.stat().st_size
    if size > OUTPUT_LIMIT:
        msg = f"{command} wrote {size} bytes for {location}; the limit is {OUTPUT_LIMIT}"
        raise DiskError(msg)
    return place.read_bytes()
