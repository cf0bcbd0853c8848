"""What a provider's factory is given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cfs_core.interfaces.retry import Retrier
from cfs_core.system.command_limits import COMMAND_OUTPUT_LIMIT, COMMAND_SECONDS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cfs_core.model.event import Event


class Progress(Protocol):
    """A bar, a stream of JSON lines, or nothing."""

    def start(self, task: str, *, total: int | None, unit: str = "bytes") -> None:
        """Begin *task*; ``total`` in *unit*, None if unknown. A second start of the same task resets it."""

    def advance(self, task: str, amount: int) -> None:
        """Count *amount* more done. Called from any thread."""

    def finish(self, task: str) -> None:
        """End *task*."""


class Logger(Protocol):
    """The part of a structlog logger that cfs uses: an event name and typed facts."""

    def debug(self, event: str, /, **facts: object) -> object:
        """Log at level debug."""

    def info(self, event: str, /, **facts: object) -> object:
        """Log at level info."""

    def warning(self, event: str, /, **facts: object) -> object:
        """Log at level warning."""

    def error(self, event: str, /, **facts: object) -> object:
        """Log at level error."""


class CommandRunner(Protocol):
    """The only door to host commands."""

    def find(self, name: str) -> Path | None:
        """Return where *name* is, sbin directories included; None if it is not installed."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        ok: frozenset[int] = frozenset({0}),
        output_limit: int = COMMAND_OUTPUT_LIMIT,
        seconds: float = COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end and return captured output. ``env`` is added to a minimal C-locale environment.

        *output_limit* bounds standard output in bytes, *seconds* the time; a command that passes one is killed.

        Raises:
            CommandError: missing command, an exit status not in *ok* (message carries the end of stderr), or a limit
                passed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginContext:
    """Everything a provider may use of the run it is in. ``scratch`` is a directory that goes away with the run."""

    provider: str
    commands: CommandRunner
    progress: Progress
    log: Logger
    scratch: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    emit: Callable[[Event], None] = lambda _event: None
    source_date_epoch: int | None = None
    """Seconds; fixes every timestamp that is not the image's own."""

    seed: str | None = None
    """Fixes every identifier that would be random."""

    retrier: Retrier = field(default_factory=Retrier)
    """Tries again within the budget that core's reading has, too; its ``stop`` ends what is under way."""

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The environment that cfs was started in."""

    uid: int = field(default_factory=os.getuid)
    """Who runs cfs."""
