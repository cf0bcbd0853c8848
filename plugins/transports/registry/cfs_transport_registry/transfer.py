"""Reading the body of an answer: never silently too little, never for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cfs_core.plugin import TransferTimeoutError
from cfs_transport_registry.answers import network_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

CHUNK = 1024 * 1024
SLOWEST = 64
"""Bytes per second; a transfer that brings less over a whole read timeout is given up."""


def read_chunks(response: requests.Response, host: str, patience: float) -> Iterator[bytes]:
    """Yield the body as it arrives. *patience* in seconds is the longest silence, and the window for `SLOWEST`.

    Raises:
        TransferTimeoutError: silence, or hardly more than that.
        UnreachableError: broken off.
    """
    waited = 0.0
    received = 0
    while True:
        begun = time.monotonic()
        with network_errors(host):
            chunk = response.raw.read1(CHUNK, decode_content=False)
        if not chunk:
            return
        waited += time.monotonic() - begun
        received += len(chunk)
        if waited > patience:
            if received < SLOWEST * patience:
                msg = f"{host} sends next to nothing: {received} bytes in {waited:.0f} s"
                raise TransferTimeoutError(msg, hint="check the network, or use a mirror", host=host, transient=True)
            waited, received = 0.0, 0
        yield chunk


def read_body(response: requests.Response, host: str, patience: float, limit: int) -> bytes:
    """Return the body, at most ``limit + 1`` bytes of it.

    Raises:
        TransportError: as `read_chunks`.
    """
    with response:
        data = bytearray()
        for chunk in read_chunks(response, host, patience):
            data += chunk
            if len(data) > limit:
                break
        return bytes(data[: limit + 1])
