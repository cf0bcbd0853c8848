"""Structured logs on standard error. structlog is loaded with the first event that is shown."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from cfs_core.system.foreign_text import REDACTED, without_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from cfs_core.model.event import Event

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SECRET_KEY = re.compile(r"(?i)(passw|secret|token|authorization|credential|cookie|private_?key|^auth$)")
# Names that structlog puts into each record itself; a fact of such a name is kept with an underscore after it.
_TAKEN = frozenset({"event", "level", "timestamp", "exception", "stack", "stack_info", "positional_args", "self"})


def drop_secrets(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values that are, or contain, credentials (a structlog processor)."""
    for key, value in event.items():
        if key != "event" and _SECRET_KEY.search(key):
            event[key] = REDACTED
        else:
            event[key] = _clean(value)
    return event


def _clean(value: object) -> object:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {k: REDACTED if _SECRET_KEY.search(str(k)) else _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_secrets(str(value))  # a path, a digest, an exception


class Logs:
    """A logger that costs nothing until something is logged at or above *level*."""

    def __init__(
        self, *, level: str = "warning", as_json: bool = False, bound: dict[str, object] | None = None
    ) -> None:
        self._level = LEVELS[level]
        self._level_name = level
        self._as_json = as_json
        self._bound = bound or {}
        self._logger: Any = None

    def bind(self, **facts: object) -> Logs:
        """Return a logger that adds these facts to every event."""
        return Logs(level=self._level_name, as_json=self._as_json, bound={**self._bound, **facts})

    def debug(self, event: str, /, **facts: object) -> None:
        """Log at level debug."""
        self._log("debug", event, facts)

    def info(self, event: str, /, **facts: object) -> None:
        """Log at level info."""
        self._log("info", event, facts)

    def warning(self, event: str, /, **facts: object) -> None:
        """Log at level warning."""
        self._log("warning", event, facts)

    def error(self, event: str, /, **facts: object) -> None:
        """Log at level error."""
        self._log("error", event, facts)

    def event(self, event: Event) -> None:
        """Log an event of core: as a warning if somebody should see it who asked for no log."""
        facts = {f"{key}_" if key == "exc_info" else key: value for key, value in event.facts.items()}
        self._log("warning" if event.warning else "info", event.name, facts)

    def _log(self, level: str, event: str, facts: Mapping[str, object]) -> None:
        if LEVELS[level] < self._level:
            return
        if self._logger is None:
            self._logger = self._build()
        named = {f"{key}_" if key in _TAKEN else str(key): value for key, value in facts.items()}
        getattr(self._logger, level)(event, **named)

    def _build(self) -> Any:  # noqa: ANN401 - structlog's loggers are dynamic
        import structlog

        renderer: Any = (
            structlog.processors.JSONRenderer()
            if self._as_json
            else structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,  # already text, from which secrets are removed
            )
        )
        return structlog.wrap_logger(
            # First imported while a plugin loads, whose output goes to stderr, PrintLogger takes that for stdout.
            structlog.WriteLogger(sys.stderr),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                drop_secrets,
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
        ).bind(**self._bound)
