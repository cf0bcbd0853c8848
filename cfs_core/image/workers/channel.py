"""What the two ends of a worker's socket say to each other."""

from __future__ import annotations

import pickle
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfs_core.interfaces.stop import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.image.layers import LayerLimits
    from cfs_core.interfaces.storage import JobResult
    from cfs_core.model.digest import Digest
    from cfs_core.model.event import Event
    from cfs_core.model.manifest import Descriptor

OBJECT, DATA, END = b"O", b"D", b"E"
"""Kinds of messages: a pickled object, a piece of the blob, its end (verified by whoever sends it)."""

_HEAD = struct.Struct("!cI")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTask:
    """Which layer it is whose blob follows."""

    descriptor: Descriptor
    diff_id: Digest
    limits: LayerLimits
    name: str
    """In messages: ``layer 2 of 7``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How it went. Nothing is said before: each side speaks in its turn, so that none waits for the other."""

    result: JobResult
    events: tuple[Event, ...]
    traceback: str | None
    """Of the error in ``result``, for logs."""


class Channel:
    """One end of a stream socket between a process and a worker that it started, which trust each other."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, kind: bytes, data: bytes = b"") -> None:
        """Send a message.

        Raises:
            OSError: the other side has gone, or reads no more.
        """
        head = _HEAD.pack(kind, len(data))
        sent = self._end.sendmsg([head, data])
        if sent < len(head):
            self._end.sendall(head[sent:])
            sent = len(head)
        if sent < len(head) + len(data):
            self._end.sendall(memoryview(data)[sent - len(head) :])

    def send_object(self, value: object) -> None:
        """Send anything that can be pickled.

        Raises:
            OSError: as for `send`.
        """
        self.send(OBJECT, pickle.dumps(value, pickle.HIGHEST_PROTOCOL))

    def receive(self) -> tuple[bytes, bytes]:
        """Return kind and data of the next message.

        Raises:
            EOFError: there is none: the other side has gone, or says no more.
        """
        kind, size = _HEAD.unpack(self._exactly(_HEAD.size))
        return kind, self._exactly(size)

    def receive_object(self) -> Any:  # noqa: ANN401 - whatever was sent
        """Return what `send_object` was given at the other side.

        Raises:
            EOFError: as for `receive`.
        """
        kind, data = self.receive()
        if kind != OBJECT:
            msg = f"a message {kind!r} where an object was expected"
            raise EOFError(msg)
        return pickle.loads(data)  # noqa: S301 - from a process that this one has started, or was started by

    def chunks(self) -> Iterator[bytes]:
        """Yield the pieces of the blob that comes next.

        Raises:
            StoppedError: the other side gave it up.
        """
        try:
            while True:
                kind, data = self.receive()
                if kind == END:
                    return
                yield data
        except (EOFError, OSError) as error:
            msg = "the transfer was given up"
            raise StoppedError(msg) from error

    def read_no_more(self) -> None:
        """Make the other side's `send` fail; what it has sent so far is dropped."""
        self._end.shutdown(socket.SHUT_RD)
        while self._end.recv(1 << 16):
            pass

    def say_no_more(self) -> None:
        """Make the other side's `receive` fail. May be called from any thread, and again."""
        try:
            self._end.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it has gone already

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _exactly(self, count: int) -> bytes:
        data = self._end.recv(count, socket.MSG_WAITALL) if count else b""
        if len(data) == count:
            return data
        parts = [data]
        missing = count - len(data)
        while missing and (data := self._end.recv(missing, socket.MSG_WAITALL)):
            parts.append(data)
            missing -= len(data)
        if missing:
            msg = "the other side of a worker's socket has gone"
            raise EOFError(msg)
        return b"".join(parts)
