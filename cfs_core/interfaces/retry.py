"""How often and how long a transport tries again before it gives up."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cfs_core.errors import TransportError
from cfs_core.interfaces.stop import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


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


class Retrier:
    """Tries again, in all threads of a run: by a policy, within what is left of its budget, until a signal ends it."""

    def __init__(self, policy: RetryPolicy | None = None, *, pause: Callable[[float], None] | None = None) -> None:
        self.policy = policy or RetryPolicy()
        self.stop = StopSignal()
        self.pause = pause or self.stop.wait
        """What waits between two tries, in seconds."""
        self._lock = threading.Lock()
        self._tries = 0
        self._waited = 0.0

    def run(self, action: Callable[[], T], *, progress: Callable[[], int] | None = None) -> T:
        """Run *action*, again after transient errors, within the budget.

        An action that goes on where it broke off says by *progress* how far (bytes) it is: a try that got further
        starts counting anew, as for blobs.

        Raises:
            TransportError: for good.
        """
        failures = 0
        while True:
            begun_at = progress() if progress is not None else 0
            try:
                return action()
            except TransportError as error:
                gained = progress() - begun_at if progress is not None else 0
                failures = self.after(error, failures, gained=gained)

    def after(self, error: TransportError, failures: int, *, gained: int = 0) -> int:
        """Count one more failure of a try that *gained* bytes, and wait before the next.

        Raises:
            TransportError: *error*, where another try is not worth it or not allowed.
        """
        failures = 1 if gained >= self.policy.progress_bytes else failures + 1
        if not error.transient or failures >= self.policy.attempts:
            raise error
        delay = self.policy.first_wait_seconds * 2 ** (failures - 1)
        if error.retry_after is not None:
            delay = float(error.retry_after)
        if delay > self.policy.longest_wait_seconds:
            raise error
        with self._lock:
            if self._tries >= self.policy.total or self._waited + delay > self.policy.total_wait_seconds:
                raise error
            self._tries += 1
            self._waited += delay
        self.pause(delay)
        return failures
