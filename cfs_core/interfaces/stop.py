"""How the work of several threads ends before its time: one signal that wakes whoever waits or is blocked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cfs_core.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable


class StoppedError(TransportError):
    """This work was given up, because other work failed or a signal came; that is what callers see, not this."""

    code = "transport.stopped"


class StopSignal:
    """Ends waits and blocked calls in all threads of a run. Safe to use from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.RLock()
        self._endings: dict[object, Callable[[], None]] = {}

    @property
    def stopped(self) -> bool:
        """Whether the run is to end."""
        return self._event.is_set()

    def stop(self) -> None:
        """End waits, and call what `on_stop` was given."""
        with self._lock:
            self._event.set()
            for ending in list(self._endings.values()):
                ending()

    def clear(self) -> None:
        """Make ready for another run; the threads of this one have ended."""
        self._event.clear()

    def check(self) -> None:
        """Go on.

        Raises:
            StoppedError: or rather not.
        """
        if self.stopped:
            msg = "stopped before the end"
            raise StoppedError(msg)

    def wait(self, seconds: float) -> None:
        """Wait.

        Raises:
            StoppedError: before that time was over.
        """
        self._event.wait(seconds)
        self.check()

    def on_stop(self, ending: Callable[[], None]) -> Callable[[], None]:
        """Have *ending* called when the run is stopped, at once if it is; return what takes that back.

        *ending* breaks off a call that another thread is blocked in (shuts down a socket), and does not block itself.
        """
        key = object()
        with self._lock:
            self._endings[key] = ending
            if self.stopped:
                ending()

        def forget() -> None:
            with self._lock:
                self._endings.pop(key, None)

        return forget
