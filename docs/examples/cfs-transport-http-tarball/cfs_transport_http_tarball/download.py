"""One file from a web server into a file here: limits, resuming, errors of cfs."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import exceptions

from cfs_core.plugin import (
    ChangedError,
    ConfigError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    TlsError,
    TransferTimeoutError,
    TransportError,
    TruncatedError,
    UnauthorizedError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_transport_http_tarball.settings import Settings

CHUNK = 1 << 18
_REDIRECTS = 5
_OK, _PARTIAL, _BAD_RANGE, _TOO_MANY = 200, 206, 416, 429


@dataclass(slots=True)
class Download:
    """What has arrived: ``size`` bytes in ``path``, hashed; ``validator`` is the strong ETag or Last-Modified."""

    path: Path
    size: int = 0
    hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    validator: str | None = None

    def restart(self) -> None:
        """Forget what arrived."""
        self.path.unlink(missing_ok=True)
        self.size, self.hasher, self.validator = 0, hashlib.sha256(), None


class Client:
    """Fetches files. Nothing of a URL's query is repeated in messages: it may be a signature."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_bytes
        timeout = urllib3.Timeout(connect=settings.timeout, read=settings.timeout)
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            msg = f"transport.http-tarball.ca-file: {settings.ca_file} cannot be read: {error}"
            raise ConfigError(msg) from error
        self._pool = urllib3.PoolManager(timeout=timeout, retries=False, ssl_context=context)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def fetch(self, url: str, download: Download) -> None:
        """Fetch the rest of *download*; after a transient error, call it again.

        Raises:
            TransportError: of the class that fits; ``transient`` where another attempt may help.
            LimitError: longer than allowed.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "cfs-transport-http-tarball"}
        if download.size and download.validator:
            headers |= {"Range": f"bytes={download.size}-", "If-Range": download.validator}
        elif download.size:
            download.restart()
        with self._open(url, headers) as response:
            total = self._begin(url, response, download)
            with download.path.open("ab") as file:
                for chunk in _chunks(url, response):
                    if download.size + len(chunk) > self._limit:
                        raise self._too_long(url)
                    file.write(chunk)
                    download.hasher.update(chunk)
                    download.size += len(chunk)
        if total is not None and download.size != total:
            msg = f"{shown(url)} ended after {download.size} of {total} bytes"
            raise TruncatedError(
                msg, transient=download.size < total, facts={"expected_bytes": total, "found_bytes": download.size}
            )

    def _begin(self, url: str, response: urllib3.BaseHTTPResponse, download: Download) -> int | None:
        """Check status and headers; return how long the whole file is, if the server says so."""
        if response.status == _BAD_RANGE or (response.status == _PARTIAL and _start(response) != download.size):
            download.restart()
            msg = f"the server of {shown(url)} answers with another part of the file than it was asked for"
            raise ChangedError(msg, transient=True)
        if response.status not in {_OK, _PARTIAL}:
            raise _error(url, response)
        if response.status == _OK and download.size:
            download.restart()
        if response.headers.get("Content-Encoding", "identity") != "identity":
            msg = (
                f"the server of {shown(url)} encodes the file on the way ({response.headers['Content-Encoding'][:40]})"
            )
            raise TransportError(msg, hint="let it send tar files as they are, as application/octet-stream")
        tag = response.headers.get("ETag", "")
        download.validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
        length = response.headers.get("Content-Length", "")
        if not length.isdecimal():
            return None
        total = download.size + int(length)
        if total > self._limit:
            raise self._too_long(url)
        return total

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        for _ in range(_REDIRECTS):
            try:
                response = self._pool.request(
                    "GET", url, headers=headers, preload_content=False, redirect=False, decode_content=False
                )
            except (exceptions.HTTPError, OSError) as error:
                raise _failure(url, error) from error
            location = response.get_redirect_location()
            if not location:
                try:
                    yield response
                finally:
                    # half a body is not worth reading for the sake of the connection
                    response.close()
                    response.release_conn()
                return
            response.close()
            target = urljoin(url, location)
            if urlsplit(target).scheme != "https" and urlsplit(target).scheme != urlsplit(url).scheme:
                msg = f"{shown(url)} redirects to {shown(target)}, which is not https"
                raise TlsError(msg, hint="name the file's real address")
            url = target
        msg = f"{shown(url)} redirects more than {_REDIRECTS} times"
        raise TransportError(msg)

    def _too_long(self, url: str) -> LimitError:
        msg = f"{shown(url)} is longer than {self._limit} bytes"
        return LimitError(msg, hint="raise transport.http-tarball.max-bytes", facts={"limit_bytes": self._limit})


def _chunks(url: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        yield from response.stream(CHUNK, decode_content=False)
    except (exceptions.HTTPError, OSError) as error:
        raise _failure(url, error) from error


def _start(response: urllib3.BaseHTTPResponse) -> int | None:
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() else None


def shown(url: str) -> str:
    """Return *url* without its query."""
    return url.partition("?")[0][:200]


def _failure(url: str, error: Exception) -> TransportError:
    reason = f"{shown(url)} cannot be fetched: {error}"[:400]
    if isinstance(error, exceptions.SSLError):
        return TlsError(reason, hint="is the server's certificate signed by somebody you trust (ca-file)?")
    if isinstance(error, exceptions.TimeoutError):
        return TransferTimeoutError(reason, transient=True)
    if isinstance(error, exceptions.IncompleteRead | exceptions.ProtocolError):
        return TruncatedError(reason, transient=True)
    return UnreachableError(reason, transient=True)


def _error(url: str, response: urllib3.BaseHTTPResponse) -> TransportError:
    status = response.status
    msg = f"the server answers {status} for {shown(url)}"
    classes: dict[int, type[TransportError]] = {
        401: UnauthorizedError,
        403: ForbiddenError,
        404: NotFoundError,
        410: NotFoundError,
        _TOO_MANY: RateLimitedError,
    }
    wait = response.headers.get("Retry-After", "")
    retry_after = float(wait) if wait.isdecimal() else None
    if status in classes:
        return classes[status](msg, transient=status == _TOO_MANY, retry_after=retry_after)
    return ServerError(msg, transient=status >= 500, retry_after=retry_after)  # noqa: PLR2004 - server errors
