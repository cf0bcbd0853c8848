"""Reading in a thread of its own, a few chunks ahead of who uses them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfs_core.interfaces.stop import StopSignal

QUEUE_CHUNKS = 4
"""Chunks of up to 1 MiB that wait between the two threads."""

LEAVE_SECONDS = 2.0
"""A thread that is still blocked in its source then is left behind; it ends with its next chunk."""


class Pump:
    """Runs an iterator of chunks in a thread; at most `QUEUE_CHUNKS` wait. A context manager that ends the thread.

    Raises (from iteration): what the iterator raised; `StoppedError` as soon as *stop* says so.
    """

    def __init__(self, make: Callable[[], Iterator[bytes]], stop: StopSignal) -> None:
        self._make = make
        self._stop = stop
        self._ready: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._left = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="cfs-pump", daemon=True)

    def __enter__(self) -> Self:
        self._forget = self._stop.on_stop(self._wake)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        with self._changed:
            self._left = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(LEAVE_SECONDS)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            while not self._ready and not self._ended and not self._stop.stopped:
                self._changed.wait()
            self._stop.check()
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            if self._error is not None:
                raise self._error
            raise StopIteration

    def _run(self) -> None:
        try:
            with contextlib.closing(self._make()) as chunks:  # type: ignore[type-var] # a generator
                for chunk in chunks:
                    if not self._put(chunk):
                        break
        except BaseException as error:  # noqa: BLE001 - handed over to the reading thread, whatever it is
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, chunk: bytes) -> bool:
        with self._changed:
            while len(self._ready) >= QUEUE_CHUNKS and not self._over():
                self._changed.wait()
            if self._over():
                return False
            self._ready.append(chunk)
            self._changed.notify_all()
            return True

    def _over(self) -> bool:
        return self._left or self._stop.stopped

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
