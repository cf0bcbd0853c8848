"""HTTP answers as errors of cfs, with the advice that fits."""

from __future__ import annotations

import base64
import binascii
import email.utils
import json
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from cfs_core.plugin import (
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    StoppedError,
    TransportError,
    UnauthorizedError,
    clean_text,
)
from cfs_transport_registry.transfer import read_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import requests

_DETAIL_LIMIT = 16 * 1024
# What another try may mend; 501 and 505 will be the same next time.
_SERVER_SIDE = frozenset({408, 500, 502, 503, 504})


def error_of(response: requests.Response, what: str, secrets: Iterable[str] = ()) -> TransportError:
    """Return the error for an answer that is not success; reads a little of its body for the registry's own words.

    What was sent to log in is taken out of them, and *secrets*.
    """
    status = response.status_code
    host = host_of(str(response.url))
    said = _said(response, host, secrets)
    facts: dict[str, object] = {"status": status, "host": host}
    if said:
        facts["registry_said"] = said
    tail = f" ({said})" if said else ""
    match status:
        case 401:
            msg = f"{host} wants other credentials for {what}{tail}"
            return UnauthorizedError(
                msg, hint=f"log in with podman login {host}, or name a file with --authfile", facts=facts
            )
        case 403:
            msg = f"{host} does not allow access to {what}{tail}"
            return ForbiddenError(msg, hint="check the account's permissions on this repository", facts=facts)
        case 404:
            msg = f"{host} has no {what}{tail}"
            return NotFoundError(
                msg, hint="check name and tag; private images look absent without credentials", facts=facts
            )
        case 429:
            wait = retry_after_seconds(response.headers)
            asked = f"; it asks to wait {wait:.0f} s" if wait else ""
            msg = f"{host} limits requests{asked}{tail}"
            return RateLimitedError(
                msg, hint="try again later, log in, or use a mirror", transient=True, retry_after=wait, facts=facts
            )
        case _:
            wait = retry_after_seconds(response.headers)
            msg = f"{host} answered {status} for {what}{tail}"
            hint = "the registry has a problem; try again later" if status in _SERVER_SIDE else None
            return ServerError(msg, hint=hint, transient=status in _SERVER_SIDE, retry_after=wait, facts=facts)


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


def host_of(url: str) -> str:
    """Return ``host[:port]``, without the user and password that a redirect may have put before it."""
    return re.sub(r"\A[a-zA-Z]+://([^/?#]*).*\Z", r"\1", url, flags=re.DOTALL).rpartition("@")[2]


def _said(response: requests.Response, host: str, secrets: Iterable[str]) -> str:
    """Return the first error of a distribution-spec error body, one harmless line without what was sent to log in."""
    try:
        first = json.loads(read_body(response, host, _DETAIL_LIMIT))["errors"][0]
        text = f"{first.get('code', '')} {first.get('message') or ''}".strip()
    except StoppedError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, TransportError):
        return ""
    return clean_text(text, secrets=[*secrets, *_sent(response.request)])


def _sent(request: requests.PreparedRequest) -> list[str]:
    """Return the credentials of a request in every form in which an answer may repeat them."""
    _, _, value = request.headers.get("Authorization", "").partition(" ")
    found = [value]
    try:
        pair = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        pair = ""
    found += [pair, pair.partition(":")[2]]
    if isinstance(request.body, str):
        found += parse_qs(request.body).get("refresh_token", [])
    return [word for word in found if word]
