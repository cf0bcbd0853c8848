"""Machines that nobody sits at: whether they restart into what is staged, now."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cfs_core.errors import ConfigError
from cfs_core.lifecycle.calendar import is_open, opened_since, parse_calendar
from cfs_core.lifecycle.running import STAGED

if TYPE_CHECKING:
    from cfs_core.lifecycle.session import Session

_ANY_STATUS = frozenset(range(256))
_SAID = 200
"""Bytes of what a site's command says that are told on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartResult:
    """``restart``, ``later``, or ``nothing`` to do; and why."""

    result: str
    image_id: str | None = None
    why: str = ""


def decide_restart(session: Session, now: datetime) -> RestartResult:
    """Say whether the machine may restart into what is staged: by its settings, window, spread and the site's command.

    The command is asked last, and only when everything else says yes: it may take a lock.

    Raises:
        ConfigError: ``upgrade.window`` is no calendar expression, or there is no command ``upgrade.restart-command``.
    """
    settings, staged = session.services.settings, session.machine.running.staged
    window = [parse_calendar(text) for text in settings.value("upgrade.window")]
    if settings.value("upgrade.restart") == "never":
        return RestartResult(result="nothing", why="upgrade.restart is never")
    if staged is None or staged.locked:
        return RestartResult(result="nothing", why="nothing is staged" if staged is None else "it is downloaded only")
    if not is_open(window, now):
        return RestartResult(result="later", image_id=staged.id, why="now is not in upgrade.window")
    spread = int(settings.value("upgrade.spread"))
    if window:
        open_for, length = opened_since(window, now, spread)
    else:
        open_for, length = max(0, int((now - _staged_at(session, now)).total_seconds() // 60)), None
    turn = _turn(session, min(spread, length or spread))
    if open_for < turn:
        why = f"its turn comes {turn - open_for} minutes from now (upgrade.spread)"
        return RestartResult(result="later", image_id=staged.id, why=why)
    refused = _asked(session, staged.id)
    if refused is not None:
        return RestartResult(result="later", image_id=staged.id, why=refused)
    return RestartResult(result="restart", image_id=staged.id)


def _staged_at(session: Session, now: datetime) -> datetime:
    try:
        return datetime.fromtimestamp((session.places.run / STAGED).stat().st_mtime, UTC)
    except FileNotFoundError:
        return now


def _turn(session: Session, minutes: int) -> int:
    """Return a minute of *minutes*, the same each time on one machine, another on the next."""
    try:
        name = (session.places.root / "etc/machine-id").read_bytes().strip()
    except OSError:
        name = b""
    number = int.from_bytes(hashlib.sha256(b"cfs restart " + name).digest()[:8])
    return number * minutes >> 64


def _asked(session: Session, identity: str) -> str | None:
    """Ask the site's command; return what it says against a restart, None where it has nothing against it."""
    argv = [str(word) for word in session.services.settings.value("upgrade.restart-command")]
    if not argv:
        return None
    commands = session.services.commands
    program = commands.find(argv[0])
    if program is None:
        msg = f"the command {argv[0]!r:.80} of upgrade.restart-command is not there"
        raise ConfigError(msg, hint="name it with its full path, or take the setting away")
    done = commands.run([str(program), *argv[1:]], env={"CFS_DEPLOYMENT": identity}, ok=_ANY_STATUS)
    if done.returncode == 0:
        return None
    said = done.stdout[:_SAID].decode("utf-8", "replace").strip()
    return f"{argv[0]} says no ({f'{said}, ' if said else ''}exit status {done.returncode})"
