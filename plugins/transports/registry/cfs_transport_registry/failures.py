"""Failures of the HTTP libraries as errors of cfs."""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests
import urllib3.exceptions

from cfs_core.plugin import ServerError, TlsError, TransferTimeoutError, TransportError, UnreachableError, clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def network_errors(host: str, *, certificates: str | None = None) -> Iterator[None]:
    """Turn exceptions of the HTTP libraries into ours. *certificates* is where those for this host are looked for.

    Raises:
        TransportError: in place of any of theirs.
    """
    try:
        yield
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise _translated(error, host, certificates or f"/etc/containers/certs.d/{host}") from error


def _translated(error: Exception, host: str, certificates: str) -> TransportError:
    if (tls := _cause(error, ssl.SSLError, urllib3.exceptions.SSLError)) is not None:
        msg = f"no trustworthy connection to {host}: {_words(tls)}"
        hint = f"put the authority into {certificates}/ca.crt, or mark the registry as insecure"
        return TlsError(msg, hint=hint, facts={"host": host})
    refused = _cause(error, urllib3.exceptions.NewConnectionError) is not None
    if (
        not refused
        and _cause(error, requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) is not None
    ):
        msg = f"{host} does not answer in time"
        return TransferTimeoutError(
            msg, hint="check the network, or raise read-timeout", transient=True, facts={"host": host}
        )
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return ServerError(f"{host} redirects in circles", facts={"host": host})
    if isinstance(error, ValueError):
        return ServerError(f"{host} redirects to something that is not a web address", facts={"host": host})
    msg = f"the connection to {host} failed: {_words(error)}"
    return UnreachableError(
        msg, hint="check the name, the network and the proxy settings", transient=True, facts={"host": host}
    )


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
    return clean_text(re.sub(r"<[^>]*>:? ?", "", text))
