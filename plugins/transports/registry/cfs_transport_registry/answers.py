"""HTTP answers and network failures as errors of cfs, with the advice that fits."""

from __future__ import annotations

import email.utils
import json
import re
import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests
import urllib3.exceptions

from cfs_core.plugin import (
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    TlsError,
    TransferTimeoutError,
    TransportError,
    UnauthorizedError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DETAIL_LIMIT = 16 * 1024
_SERVER_SIDE = frozenset({408, 500, 502, 503, 504})


def error_of(response: requests.Response, what: str) -> TransportError:
    """Return the error for an answer that is not success; reads a little of its body for the registry's own words."""
    status = response.status_code
    host = re.sub(r"\Ahttps?://([^/]*).*\Z", r"\1", str(response.url), flags=re.DOTALL)
    said = _said(response)
    facts: dict[str, object] = {"status": status, "host": host}
    if said:
        facts["registry_said"] = said
    tail = f" ({said})" if said else ""
    match status:
        case 401:
            msg = f"{host} wants other credentials for {what}{tail}"
            return UnauthorizedError(
                msg, hint=f"log in with podman login {host}, or name a file with --authfile", **facts
            )
        case 403:
            msg = f"{host} does not allow access to {what}{tail}"
            return ForbiddenError(msg, hint="check the account's permissions on this repository", **facts)
        case 404:
            msg = f"{host} has no {what}{tail}"
            return NotFoundError(
                msg, hint="check name and tag; private images look absent without credentials", **facts
            )
        case 429:
            wait = retry_after_seconds(response.headers)
            if wait is not None:
                facts["retry_after_seconds"] = wait
            asked = f"; it asks to wait {wait:.0f} s" if wait else ""
            msg = f"{host} limits requests{asked}{tail}"
            return RateLimitedError(msg, hint="try again later, log in, or use a mirror", transient=True, **facts)
        case _:
            wait = retry_after_seconds(response.headers)
            if wait is not None:
                facts["retry_after_seconds"] = wait
            msg = f"{host} answered {status} for {what}{tail}"
            hint = "the registry has a problem; try again later" if status in _SERVER_SIDE else None
            return ServerError(msg, hint=hint, transient=status in _SERVER_SIDE, **facts)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the wait that ``Retry-After`` asks for (seconds or an HTTP date, RFC 9110 §10.2.3), None without one."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:9])
    when = _http_date(value)
    if when is None:
        return None
    now = _http_date(headers.get("Date", ""))  # the server's clock, if it tells
    return max(0.0, when - (time.time() if now is None else now))


def _http_date(text: str) -> float | None:
    if not text:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def _said(response: requests.Response) -> str:
    """Return the first error of a distribution-spec error body, one harmless line."""
    try:
        raw = response.raw.read(_DETAIL_LIMIT, decode_content=True)
        first = json.loads(raw)["errors"][0]
        text = f"{first.get('code', '')} {first.get('message') or ''}".strip()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError, urllib3.exceptions.HTTPError):
        return ""
    finally:
        response.close()
    return "".join(c if c.isprintable() else " " for c in text)[:200]


@contextmanager
def network_errors(host: str) -> Iterator[None]:
    """Turn exceptions of the HTTP libraries into ours.

    Raises:
        TransportError: in place of any of theirs.
    """
    try:
        yield
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise _translated(error, host) from error


def _translated(error: Exception, host: str) -> TransportError:
    if (tls := _cause(error, ssl.SSLError, urllib3.exceptions.SSLError)) is not None:
        msg = f"no trustworthy connection to {host}: {_words(tls)}"
        hint = f"put the authority into /etc/containers/certs.d/{host}/ca.crt, or mark the registry as insecure"
        return TlsError(msg, hint=hint, host=host)
    refused = _cause(error, urllib3.exceptions.NewConnectionError) is not None
    if (
        not refused
        and _cause(error, requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) is not None
    ):
        msg = f"{host} does not answer in time"
        return TransferTimeoutError(msg, hint="check the network, or raise read-timeout", host=host, transient=True)
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return ServerError(f"{host} redirects in circles", host=host)
    if isinstance(error, ValueError):
        return ServerError(f"{host} redirects to something that is not a web address", host=host)
    msg = f"the connection to {host} failed: {_words(error)}"
    return UnreachableError(msg, hint="check the name, the network and the proxy settings", host=host, transient=True)


def _cause(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    return next((cause for cause in _chain(error) if isinstance(cause, kinds)), None)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what it was made from; requests and urllib3 keep that in three different places."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        inner = getattr(following, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in following.args if isinstance(arg, BaseException)), None)
        following = inner or following.__cause__ or following.__context__
    return chain


def _words(error: BaseException) -> str:
    root = _chain(error)[-1]
    if isinstance(root, ssl.SSLCertVerificationError):
        return root.verify_message
    text = getattr(root, "strerror", None) or str(root) or type(root).__name__
    return re.sub(r"<[^>]*>:? ?", "", text)[:200]
