"""Progress: bars on a terminal, JSON lines on a file descriptor, or silence."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfs_core.model.event import Event

JSON_INTERVAL_SECONDS = 0.2


class SilentProgress:
    """Shows nothing."""

    def start(self, task: str, *, total: int | None, unit: str = "bytes") -> None:
        """Ignore."""

    def advance(self, task: str, amount: int) -> None:
        """Ignore."""

    def finish(self, task: str) -> None:
        """Ignore."""

    def event(self, event: Event) -> None:
        """Ignore."""

    def close(self) -> None:
        """Ignore."""


class JsonProgress(SilentProgress):
    """One JSON object per line: ``{"type": "progress", "task": …, "done": …, "total": …, "unit": …}`` and events.

    A reader that goes away ends the reporting, not the run.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._tasks: dict[str, dict[str, Any]] = {}
        self._last: dict[str, float] = {}
        self._broken = False

    def start(self, task: str, *, total: int | None, unit: str = "bytes") -> None:
        """Report a task with nothing done."""
        with self._lock:
            self._tasks[task] = {"type": "progress", "task": task, "done": 0, "total": total, "unit": unit}
            self._write(self._tasks[task])

    def advance(self, task: str, amount: int) -> None:
        """Count, and report a few times a second."""
        with self._lock:
            state = self._tasks.get(task)
            if state is None:
                return
            state["done"] += amount
            now = time.monotonic()
            if now - self._last.get(task, 0.0) >= JSON_INTERVAL_SECONDS:
                self._last[task] = now
                self._write(state)

    def finish(self, task: str) -> None:
        """Report the final count."""
        with self._lock:
            state = self._tasks.pop(task, None)
            if state is not None:
                self._write({**state, "finished": True})

    def event(self, event: Event) -> None:
        """Report an event as it is."""
        with self._lock:
            self._write({"type": "event", "event": event.name, "facts": dict(event.facts)})

    def _write(self, record: dict[str, Any]) -> None:
        if self._broken:
            return
        try:
            os.write(self._descriptor, json.dumps(record, default=str).encode() + b"\n")
        except OSError:
            self._broken = True


class TerminalProgress(SilentProgress):
    """Bars by rich, on standard error. Tasks of the same name share a bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._lock = threading.Lock()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            # bars draw: they need the terminal itself
            console=Console(file=getattr(sys.stderr, "raw_text", sys.stderr)),
            # rich would write what others print past the guard of terminals
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._drawn = False
        self._ids: dict[str, Any] = {}
        self._units: dict[str, str] = {}

    def start(self, task: str, *, total: int | None, unit: str = "bytes") -> None:
        """Show a bar."""
        with self._lock:
            if not self._drawn:
                self._drawn = True
                self._bars.start()
            self._units[task] = unit
            if task in self._ids:
                self._bars.reset(self._ids[task], total=total, amount="")
            else:
                self._ids[task] = self._bars.add_task(task, total=total, amount="")

    def advance(self, task: str, amount: int) -> None:
        """Move a bar."""
        with self._lock:
            if task not in self._ids:
                return
            self._bars.advance(self._ids[task], amount)
            state = self._bars.tasks[self._bars.task_ids.index(self._ids[task])]
            self._bars.update(self._ids[task], amount=_amount(state.completed, state.total, self._units[task]))

    def finish(self, task: str) -> None:
        """Leave the bar as it is, complete."""
        with self._lock:
            if task in self._ids:
                state = self._bars.tasks[self._bars.task_ids.index(self._ids[task])]
                self._bars.update(self._ids[task], total=state.completed or 1, completed=state.completed or 1)

    def close(self) -> None:
        """Give the terminal back."""
        if self._drawn:
            self._bars.stop()


def _amount(done: float, total: float | None, unit: str) -> str:
    if unit == "bytes":
        return human_bytes(int(done)) + (f" of {human_bytes(int(total))}" if total else "")
    return f"{int(done)}" + (f" of {int(total)}" if total else "") + f" {unit}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return *count* with its noun: ``1 object``, ``2 objects``, ``0 entries``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def human_bytes(count: int) -> str:
    """Return *count* bytes in binary units with three digits: ``1.46 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004 - the binary step
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"
