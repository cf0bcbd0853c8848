"""How often and how long a transport tries again before it gives up."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfs_core.errors import TransportError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Bounds of trying again. Waits double from ``first_wait_seconds`` unless the source says how long."""

    attempts: int = 4
    """Tries in a row that bring nothing; a resumed transfer that got further starts counting anew."""

    progress_bytes: int = 64 * 1024
    """What a transfer has to bring before it breaks off again to count as having got further."""

    total: int = 40
    """Repeated tries in the whole run, all threads together."""

    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 120.0
    """A source that asks for more is an error at once."""

    total_wait_seconds: float = 600.0


class RetryBudget:
    """What is left of a policy; shared by all threads of one run."""

    def __init__(self, policy: RetryPolicy, pause: Callable[[float], None]) -> None:
        self.policy = policy
        self._pause = pause
        self._lock = threading.Lock()
        self._tries = 0
        self._waited = 0.0

    def wait(self, error: TransportError, failures: int) -> None:
        """Wait before try number ``failures + 1``, or raise *error* if another try is not worth it or not allowed."""
        if not error.transient or failures >= self.policy.attempts:
            raise error
        asked = error.retry_after
        delay = self.policy.first_wait_seconds * 2 ** (failures - 1)
        if isinstance(asked, int | float):
            delay = float(asked)
        if delay > self.policy.longest_wait_seconds:
            raise error
        with self._lock:
            if self._tries >= self.policy.total or self._waited + delay > self.policy.total_wait_seconds:
                raise error
            self._tries += 1
            self._waited += delay
        self._pause(delay)
