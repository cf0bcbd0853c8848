"""Reading the body of an answer: never silently too little, never for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cfs_core.plugin import TransferTimeoutError
from cfs_transport_registry.connections import reading_of
from cfs_transport_registry.failures import network_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

CHUNK = 1024 * 1024
SLOWEST = 64
"""Bytes per second; a transfer that brings less over a whole read timeout is given up."""


WINDOWS = 2
"""Read timeouts after which the overall rate counts: a transfer may be slow to begin."""


def read_chunks(response: requests.Response, host: str, minimum_rate: float) -> Iterator[bytes]:
    """Yield the body as it arrives. The read timeout is the longest silence, and the window for `SLOWEST`.

    All of it together has to bring *minimum_rate* bytes per second of waiting; the time that the consumer takes for
    what it got does not count.

    Raises:
        TransferTimeoutError: silence, hardly more than that, or too slow to come to an end: that is not tried again.
        UnreachableError: broken off.
    """
    reading = reading_of(response)
    waited = 0.0
    received = 0
    seconds, total = 0.0, 0
    while True:
        begun = time.monotonic()
        reading.allow(reading.patience)
        with network_errors(host):
            # Undecoded: sizes and digests are those of what is transferred.
            chunk = response.raw.read1(CHUNK, decode_content=False)
        if not chunk:
            return
        waited += time.monotonic() - begun
        received += len(chunk)
        if waited > reading.patience:
            if received < SLOWEST * reading.patience:
                msg = f"{host} sends next to nothing: {received} bytes in {waited:.0f} s"
                raise TransferTimeoutError(
                    msg, hint="check the network, or use a mirror", transient=True, facts={"host": host}
                )
            seconds, total = seconds + waited, total + received
            waited, received = 0.0, 0
            if seconds > WINDOWS * reading.patience and total < minimum_rate * seconds:
                msg = f"{host} sends too slowly: {total} bytes in {seconds:.0f} s"
                hint = "use a mirror, or lower transport.registry.minimum-rate (bytes per second; 0 waits for ever)"
                raise TransferTimeoutError(msg, hint=hint, facts={"host": host})
        yield chunk


def read_body(response: requests.Response, host: str, limit: int) -> bytes:
    """Return the body, at most ``limit + 1`` bytes of it. All of that has to come within one read timeout.

    Raises:
        TransferTimeoutError: it did not.
        UnreachableError: broken off.
    """
    with response, network_errors(host):
        reading = reading_of(response)
        reading.allow(reading.patience)
        data = bytearray()
        while len(data) <= limit and (chunk := response.raw.read1(limit + 1 - len(data), decode_content=False)):
            data += chunk
        return bytes(data)
