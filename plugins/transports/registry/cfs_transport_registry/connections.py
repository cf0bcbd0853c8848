"""Connections that end in time: every read has a deadline, and the stop signal breaks off whatever is blocked."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import requests
    from urllib3.response import BaseHTTPResponse

    from cfs_core.plugin import StopSignal


class Reading(io.RawIOBase):
    """What one answer is read from: the headers within *patience* seconds, then whatever `allow` says."""

    def __init__(self, raw: io.RawIOBase, line: socket.socket, patience: float, stop: StopSignal) -> None:
        self._raw = raw
        self._line = line
        self._usual = line.gettimeout()
        self._stop = stop
        self._handle = _Handle(line.fileno(), stop)
        self.patience = patience
        self.allow(patience)

    def allow(self, seconds: float) -> None:
        """Let reads take until *seconds* from now, all together."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - Buffer has no name before Python 3.12
        """Read what is there, or wait for something.

        Raises:
            TimeoutError: nothing came in time.
            StoppedError: the run ends.
        """
        self._stop.check()
        left = self._deadline - time.monotonic()
        if left <= 0:
            msg = "the answer takes too long"
            raise TimeoutError(msg)
        self._line.settimeout(left)
        count: int | None = self._raw.readinto(buffer)
        self._stop.check()  # a broken off line looks like an end
        return count

    def close(self) -> None:
        """Let the connection have its own timeout again."""
        if not self.closed:
            self._handle.close()
            with contextlib.suppress(OSError):
                self._line.settimeout(self._usual)
            self._raw.close()
        super().close()


def reading_of(response: requests.Response) -> Reading:
    """Return what the body of *response* is read from."""
    reading: Reading = response.raw.cfs_reading  # type: ignore[union-attr] # set by `_Ending`
    return reading


def pool_classes(read_timeout: float, stop: StopSignal) -> dict[str, type[HTTPConnectionPool]]:
    """Return classes for urllib3 whose connections end in time."""
    patience, signal = read_timeout, stop

    class Plain(_Ending, HTTPConnection):
        read_timeout = patience
        stop = signal

    class Secure(_Ending, HTTPSConnection):
        read_timeout = patience
        stop = signal

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Ending(HTTPConnection):
    """A connection whose answers are read by `Reading`."""

    read_timeout: float
    stop: StopSignal
    _handle: _Handle | None = None
    _reading: Reading | None = None

    def _new_conn(self) -> socket.socket:
        try:
            line, self._handle = _dial(self._dns_host, self.port, self.timeout, self.socket_options or (), self.stop)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            msg = f"{self.host} does not accept connections"
            raise ConnectTimeoutError(self, msg) from error
        except OSError as error:
            msg = f"no connection: {error}"
            raise NewConnectionError(self, msg) from error
        return line

    def response_class(self, line: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:  # type: ignore[override] # noqa: ANN401 - passed through
        """Make the answer that http.client reads headers into."""
        response = http.client.HTTPResponse(line, *args, **kwargs)
        self._reading = Reading(response.fp.detach(), line, self.read_timeout, self.stop)
        response.fp = io.BufferedReader(self._reading)
        return response

    def getresponse(self) -> BaseHTTPResponse:  # type: ignore[override]
        """Read the headers."""
        response = super().getresponse()
        response.cfs_reading, self._reading = self._reading, None  # type: ignore[attr-defined]
        return response

    def close(self) -> None:
        """Close; an answer that is still being read keeps the line."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        super().close()


class _Handle:
    """A second descriptor of a connection: by it the stop signal shuts the line, whatever the first is wrapped in."""

    def __init__(self, descriptor: int, stop: StopSignal) -> None:
        self._line = socket.socket(fileno=os.dup(descriptor))
        self._forget = stop.on_stop(self._shut)

    def close(self) -> None:
        """Give the descriptor back."""
        self._forget()
        self._line.close()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)


def _dial(
    host: str, port: int | None, timeout: float | None, options: Iterable[tuple[Any, ...]], stop: StopSignal
) -> tuple[socket.socket, _Handle]:
    """Connect to the first address that answers; *timeout* in seconds is for all of them together.

    Raises:
        OSError: none answers.
        StoppedError: the run ends.
        UnicodeError: not a host name.
    """
    addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    deadline = time.monotonic() + (timeout or 0)
    failure = OSError(f"{host} has no address")
    for number, (family, kind, protocol, _, where) in enumerate(addresses):
        stop.check()
        line = socket.socket(family, kind, protocol)
        handle = _Handle(line.fileno(), stop)
        try:
            for option in options:
                line.setsockopt(*option)
            if timeout is not None:
                line.settimeout(max(0.001, deadline - time.monotonic()) / (len(addresses) - number))
            line.connect(where)
            stop.check()
            line.settimeout(timeout)
        except BaseException as error:
            handle.close()
            line.close()
            if not isinstance(error, OSError):
                raise
            failure = error
        else:
            return line, handle
    stop.check()
    raise failure
