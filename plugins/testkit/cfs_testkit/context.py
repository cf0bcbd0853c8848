"""A plugin context for tests: real commands, progress that counts, a log that is a list."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from cfs_core.plugin import PluginContext
from cfs_core.testing import HostCommands

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cfs_core.plugin import Event


class RecordedLog:
    """A logger whose records can be looked at: (level, event, facts)."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, event: str, /, **facts: object) -> None:
        """Record at level debug."""
        self.records.append(("debug", event, facts))

    def info(self, event: str, /, **facts: object) -> None:
        """Record at level info."""
        self.records.append(("info", event, facts))

    def warning(self, event: str, /, **facts: object) -> None:
        """Record at level warning."""
        self.records.append(("warning", event, facts))

    def error(self, event: str, /, **facts: object) -> None:
        """Record at level error."""
        self.records.append(("error", event, facts))


class CountedProgress:
    """Progress as numbers: how much of each task was done."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.finished: set[str] = set()
        self._lock = threading.Lock()

    def start(self, task: str, *, total: int | None, unit: str = "bytes") -> None:
        """Begin a task."""
        del total, unit
        self.done[task] = 0

    def advance(self, task: str, amount: int) -> None:
        """Count."""
        with self._lock:
            self.done[task] = self.done.get(task, 0) + amount

    def finish(self, task: str) -> None:
        """End a task."""
        self.finished.add(task)


def plugin_context(
    scratch: Path,
    *,
    settings: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    log: RecordedLog | None = None,
    events: list[Event] | None = None,
) -> PluginContext:
    """Return what a factory is given. *events* collects what is emitted."""
    collected: list[Event] = [] if events is None else events
    return PluginContext(
        provider="test",
        commands=HostCommands(os.environ if environ is None else environ),
        progress=CountedProgress(),
        log=log or RecordedLog(),
        scratch=scratch,
        settings=settings or {},
        emit=collected.append,
    )
