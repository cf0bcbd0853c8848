"""What a virtual machine writes, taken in while it is written, and kept only so far."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 16
AT_ONCE_BYTES = 4 << 20
"""Most that one `Channel.read` returns, so that a machine that writes without end does not keep us from the clock."""


class Channel:
    """A FIFO that the machine writes to. The first *head* and the last *tail* bytes are kept, what is between is not.

    A machine that writes faster than it is read has to wait.
    """

    def __init__(self, path: Path, *, head: int, tail: int = 0) -> None:
        os.mkfifo(path, 0o600)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # pipe-max-size of an ordinary user may be smaller
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._head, self._tail = bytearray(), bytearray()
        self._head_bytes, self._tail_bytes = head, tail
        self.bytes_seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self) -> bytes:
        """Return what has been written since the last time, at most 4 MiB."""
        taken = bytearray()
        while len(taken) < AT_ONCE_BYTES:
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            taken += data
        self.bytes_seen += len(taken)
        room = self._head_bytes - len(self._head)
        self._head += taken[:room]
        self._tail += taken[room:]
        del self._tail[: max(0, len(self._tail) - self._tail_bytes)]
        return bytes(taken)

    @property
    def bytes_lost(self) -> int:
        """How much was not kept."""
        return self.bytes_seen - len(self._head) - len(self._tail)

    def contents(self) -> bytes:
        """Return what was kept, with a line in place of what was not."""
        lost = f"\n[cfs prove: {self.bytes_lost} bytes are left out here]\n".encode() if self.bytes_lost else b""
        return bytes(self._head) + lost + bytes(self._tail)
