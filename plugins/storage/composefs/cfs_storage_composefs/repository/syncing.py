"""One sync for all threads that wait for one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class SharedSync:
    """Calls *sync* for several threads at once: who comes while it runs waits for the next one, together with others.

    A sync that began before a thread asked does not count for it: what that thread has written may have come too late.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition()
        self._begun = 0
        self._done = 0
        self._running = False

    def __call__(self) -> None:
        """Return when a sync that began after this call has succeeded.

        Raises:
            OSError: as the kernel says, for the thread that ran into it; the others try again themselves.
        """
        with self._changed:
            wanted = self._begun + 1
            while self._running and self._done < wanted:
                self._changed.wait()
            if self._done >= wanted:
                return
            self._running = True
            self._begun += 1
            mine = self._begun
        succeeded = False
        try:
            self._sync()
            succeeded = True
        finally:
            with self._changed:
                self._running = False
                if succeeded:
                    self._done = mine
                self._changed.notify_all()
