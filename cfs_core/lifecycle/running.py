"""What the running system says of itself: what it booted, what is staged, what lies over /usr."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cfs_core.bls import argument_deployment, split_arguments
from cfs_core.model.disk import Location, Volume

if TYPE_CHECKING:
    from pathlib import Path

STAGED = "composefs/staged-deployment"
"""Below /run: what the finalizing at shutdown makes the default, as bootc has it (formats F.1)."""

BOOTC_STAGED = (
    Location(Volume.ESP, "/loader/entries.staged"),
    Location(Volume.XBOOTLDR, "/loader/entries.staged"),
    Location(Volume.BOOT, "/grub2/user.cfg.staged"),
    Location(Volume.ROOT, "/boot/grub2/user.cfg.staged"),
)
"""What bootc writes beside the menu when it stages (formats F.1). cfs plans the menu when it finalizes."""

DETAILS = "cfs/staged.json"
"""Below /run: what the finalizing has to know and bootc's file has no place for."""

_SOURCE = re.compile(r"(?:composefs:|transient:composefs=)([0-9a-f]+)")
"""What early boot calls the root that it mounts (formats E.6)."""

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo: where, of what filesystem, from what, with which directory of it, how."""

    where: str
    root: str
    filesystem: str
    source: str
    device: str
    options: frozenset[str]
    super_options: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A deployment that waits for the shutdown; ``locked`` ones are only downloaded and wait for more than that."""

    id: str
    locked: bool = False
    arguments: tuple[str, ...] | None = field(default=None, compare=False)
    """The kernel arguments that it will have, as cfs noted them; None where something else staged it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSystem:
    """The system below one directory, usually ``/``. Of a disk image nothing runs: everything is empty then."""

    booted: str | None = None
    arguments: tuple[str, ...] = ()
    """The kernel command line."""

    staged: Staged | None = None
    usr_overlay: str | None = None
    """``readWrite`` or ``readOnly`` where an overlay is mounted over /usr."""

    mounts: tuple[Mount, ...] = ()

    def mount_at(self, where: str) -> Mount | None:
        """Return what is mounted at *where*, the uppermost."""
        return next((mount for mount in reversed(self.mounts) if mount.where == where), None)


def read_running(root: Path) -> RunningSystem:
    """Read the system below *root*: its ``proc``, ``run``. What is not there says nothing."""
    arguments = split_arguments(_text(root / "proc/cmdline"))
    mounts = tuple(_mounts(_text(root / "proc/self/mountinfo") or _text(root / "proc/1/mountinfo")))
    system = RunningSystem(arguments=arguments, mounts=mounts)
    root_mount = system.mount_at("/")
    over = system.mount_at("/usr")
    overlay = over is not None and over.filesystem == "overlay"
    return RunningSystem(
        # After a soft reboot the kernel's command line is that of another deployment; the mount says what runs.
        booted=(_deployment_of(root_mount) if root_mount is not None else None) or argument_deployment(arguments),
        arguments=arguments,
        staged=read_staged(root / "run"),
        usr_overlay=_access(over) if over is not None and overlay else None,
        mounts=mounts,
    )


def read_staged(run: Path) -> Staged | None:
    """Return what is staged; None where nothing is, or what says so is malformed."""
    try:
        found = json.loads((run / STAGED).read_bytes())
        identity, locked = found["depl_id"], found.get("finalization_locked", False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(identity, str) or not identity:
        return None
    arguments = read_details(run, identity).get("arguments")
    known = tuple(map(str, arguments)) if isinstance(arguments, list) else None
    return Staged(id=identity, locked=locked is True, arguments=known)


def read_details(run: Path, identity: str) -> dict[str, Any]:
    """Return what cfs kept about the staged deployment *identity*; empty where somebody else staged it."""
    try:
        found = json.loads((run / DETAILS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("id") == identity else {}


def format_staged(staged: Staged) -> bytes:
    """Return the file as bootc writes it: canonical JSON."""
    document = {"depl_id": staged.id, "finalization_locked": staged.locked}
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _text(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes())
    except OSError:
        return ""


def _mounts(text: str) -> list[Mount]:
    """Parse mountinfo (proc(5)): optional fields end at ``-``."""
    found = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 3:  # noqa: PLR2004 - the fields that are always there
            continue
        found.append(
            Mount(
                where=_unescaped(fields[4]),
                root=_unescaped(fields[3]),
                filesystem=rest[0],
                source=_unescaped(rest[1]),
                device=fields[2],
                options=frozenset(fields[5].split(",")),
                super_options=frozenset(rest[2].split(",")),
            )
        )
    return found


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _deployment_of(mount: Mount) -> str | None:
    match = _SOURCE.fullmatch(mount.source)
    return match[1] if match else None


def _access(mount: Mount) -> str:
    return "readOnly" if "ro" in mount.options else "readWrite"
