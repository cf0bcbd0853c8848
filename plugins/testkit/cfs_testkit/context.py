"""A plugin context for tests: real commands, progress that counts, a log that is a list."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from typing import TYPE_CHECKING

from cfs_core.plugin import CommandContext, OutputFormat, PluginContext
from cfs_core.testing import HostCommands, MemoryTarget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cfs_core.plugin import DiskMenu, Event, TargetView


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
        environ=os.environ if environ is None else environ,
    )


class RecordedOutput:
    """A command's output that can be looked at: lines said, documents shown, lines told."""

    def __init__(self, form: OutputFormat = OutputFormat.TEXT) -> None:
        self.format = form
        self.said: list[str] = []
        self.shown: list[object] = []
        self.told: list[str] = []

    def say(self, text: str) -> None:
        """Record a line of a result."""
        self.said.append(text)

    def show(self, value: object) -> None:
        """Record a result."""
        self.shown.append(value)

    def tell(self, text: str) -> None:
        """Record a line about what is going on."""
        self.told.append(text)


def command_context(
    scratch: Path,
    *,
    output: RecordedOutput | None = None,
    menus: Sequence[DiskMenu] = (),
    disk: TargetView | None = None,
    settings: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    events: list[Event] | None = None,
) -> CommandContext:
    """Return what a command's factory is given; *menus* and *disk* are what every disk holds."""
    context = plugin_context(scratch, settings=settings, environ=environ, events=events)
    return CommandContext(
        **{field.name: getattr(context, field.name) for field in dataclasses.fields(context)},
        output=output or RecordedOutput(),
        boot_menus=lambda _disk: menus,
        open_disk=lambda _disk: contextlib.nullcontext(disk or MemoryTarget()),
    )
