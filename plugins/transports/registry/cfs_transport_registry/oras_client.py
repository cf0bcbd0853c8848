"""oras-py, and all of it: requests to one repository with token or basic authentication. No oras type leaves this file.

Of oras come the registry client and its token exchange. Ours are timeouts, TLS, redirects, what counts as an error, and
that no credential is kept in shared headers.
"""

from __future__ import annotations

import json
import ssl
import threading
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import oras.auth  # type: ignore[import-untyped]
import oras.auth.utils  # type: ignore[import-untyped]
import oras.logger  # type: ignore[import-untyped]
import oras.provider  # type: ignore[import-untyped]
import requests
import urllib3
from requests.adapters import HTTPAdapter

from cfs_core.plugin import ServerError, TlsError, TransportError, UnauthorizedError, clean_text
from cfs_transport_registry.answers import error_of, host_of
from cfs_transport_registry.challenges import choose, parse_challenges, realm_of
from cfs_transport_registry.connections import pool_classes
from cfs_transport_registry.failures import network_errors
from cfs_transport_registry.transfer import read_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from cfs_core.plugin import StopSignal
    from cfs_transport_registry.credentials import Credentials

_TOKEN_LIMIT = 256 * 1024
_REDIRECTS = 5


class OrasClient:
    """Requests to one repository of one registry. Safe to use from several threads."""

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool,
        tls: Callable[[str], ssl.SSLContext],
        authorities: Path,
        credentials: Credentials | None,
        timeouts: tuple[float, float],
        user_agent: str,
        encrypted_only: bool,
        stop: StopSignal,
    ) -> None:
        oras.logger.logger.logger.disabled = True  # it has a coloured handler of its own; we log
        scheme = "http" if plain_http else "https"
        self.host = host
        self._authorities = authorities
        self._secrets = credentials.secrets() if credentials is not None else ()
        self.base = f"{scheme}://{host}"
        self._encrypted_only = encrypted_only and not plain_http
        self._session = _Session(timeouts, tls, stop, encrypted_only=self._encrypted_only)
        self._session.headers["User-Agent"] = user_agent
        self._session.headers["Accept-Encoding"] = "identity"  # digests are over the bytes as stored
        self._registry = oras.provider.Registry(hostname=host, insecure=plain_http)
        self._registry.session = self._session
        self._registry.auth = _Auth(self._session, credentials, host, plain_http=plain_http)

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def error_of(self, response: requests.Response, what: str) -> TransportError:
        """Return the error for an answer that is not success; the credentials of this client are not in it."""
        return error_of(response, what, self._secrets)

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> requests.Response:
        """Send one request, authenticated if the registry asks for it; the body of the answer is not read yet.

        *path* is a path at this registry, or an absolute URL (then credentials go only to the registry itself).

        Raises:
            TransportError: no answer. Answers of any status are returned.
        """
        url = self.base + path if path.startswith("/") else path
        with network_errors(host_of(url), certificates=str(self._authorities)):
            if self._encrypted_only and urlsplit(url).scheme != "https":
                msg = f"{self.host} wants {host_of(url)} to be used without encryption"
                raise TlsError(msg, hint="mark the registry as insecure if that is meant to be")
            if urlsplit(url)[:2] != urlsplit(self.base)[:2]:
                return self._session.request(method, url, data=body, headers=dict(headers or {}), stream=True)
            send = oras.provider.Registry.do_request.__wrapped__  # the decorated one retries everything, unbounded
            response: requests.Response = send(
                self._registry, url, method, data=body, headers=dict(headers or {}), stream=True
            )
            return response


class _Session(requests.Session):
    """A session that keeps credentials on their host, ignores netrc and cookies, and stays encrypted."""

    def __init__(
        self,
        timeouts: tuple[float, float],
        tls: Callable[[str], ssl.SSLContext],
        stop: StopSignal,
        *,
        encrypted_only: bool,
    ) -> None:
        super().__init__()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._stop = stop
        self._timeouts = timeouts
        self._tls = tls
        self._by_host: dict[tuple[str, str], HTTPAdapter] = {}
        self._making = threading.Lock()
        self.auth = lambda request: request  # keeps requests from reading ~/.netrc
        self.max_redirects = _REDIRECTS
        self._encrypted_only = encrypted_only

    def get_adapter(self, url: str | bytes) -> HTTPAdapter:
        """Return the adapter for a host; each has TLS settings of its own, so no client certificate reaches another."""
        scheme, host = urlsplit(str(url))[:2]
        with self._making:
            if (scheme, host) not in self._by_host:
                context = self._tls(host) if scheme == "https" else None
                self._by_host[scheme, host] = _Adapter(self._timeouts, context, self._stop)
            return self._by_host[scheme, host]

    def close(self) -> None:
        """Close idle connections."""
        for adapter in self._by_host.values():
            adapter.close()

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where an answer leads to. Its body, which requests would read to the end, is left out."""
        target = super().get_redirect_target(resp)
        if target is not None:
            resp._content = b""  # noqa: SLF001 - what requests itself does when it has read a body
            resp.close()
        return target

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop credentials when a redirect leaves the host; refuse one that leaves encryption."""
        source, target = str(response.request.url), str(prepared_request.url)
        if self._encrypted_only and urlsplit(target).scheme != "https":
            msg = f"{host_of(source)} redirects to {host_of(target)} without encryption"
            raise TlsError(msg, hint="mark the registry as insecure if that is meant to be")
        if urlsplit(source)[:2] != urlsplit(target)[:2]:
            prepared_request.headers.pop("Authorization", None)


class _Adapter(HTTPAdapter):
    """Timeouts on everything, and our own TLS settings in place of requests' bundled authorities."""

    def __init__(self, timeouts: tuple[float, float], tls: ssl.SSLContext | None, stop: StopSignal) -> None:
        self._timeouts = timeouts
        self._tls = tls
        self._stop = stop
        super().__init__(pool_connections=4, pool_maxsize=16, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed through
        """Make the pool with our context and connections."""
        kwargs |= self._tls_arguments()
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = pool_classes(self._timeouts[1], self._stop)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed through
        """Make the pool for connections through a proxy, with our context."""
        kwargs |= self._tls_arguments()
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = pool_classes(self._timeouts[1], self._stop)
        return manager

    def _tls_arguments(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        if self._tls.verify_mode == ssl.CERT_NONE:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the operator asked for it
        names = None if self._tls.check_hostname else False
        return {"ssl_context": self._tls, "cert_reqs": self._tls.verify_mode, "assert_hostname": names}

    def build_connection_pool_key_attributes(  # type: ignore[override]
        self,
        request: requests.PreparedRequest,
        verify: bool | str,  # noqa: FBT001 - as in the base
        cert: str | tuple[str, str] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Leave verification to the context."""
        del verify, cert
        parts = urlsplit(str(request.url))
        return {"scheme": parts.scheme.lower(), "host": parts.hostname, "port": parts.port}, {}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ANN401 - as in the base
        """Leave verification to the context."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - passed through
        """Send with timeouts."""
        kwargs["timeout"] = self._timeouts
        return super().send(request, *args, **kwargs)


class _Auth(oras.auth.TokenAuth):  # type: ignore[misc]
    """Answers challenges: oras' token exchange, plus basic authentication, refresh tokens and expired tokens."""

    def __init__(
        self, session: requests.Session, credentials: Credentials | None, host: str, *, plain_http: bool
    ) -> None:
        super().__init__()
        self.session = session
        self.prefix = "http" if plain_http else "https"
        self._tls_verify = True
        self._host = host
        self._credentials = credentials
        self._secrets = credentials.secrets() if credentials is not None else ()
        self._plain_http = plain_http
        self._kind = "Bearer"
        self._exchange = threading.Lock()
        if credentials is not None and credentials.identity_token is None:
            self.set_basic_auth(credentials.user, credentials.password)

    def get_auth_header(self) -> dict[str, str]:
        """Return the header for this host's requests; made anew for each of them."""
        return {"Authorization": f"{self._kind} {self.token}"} if self.token else {}

    def authenticate_request(
        self,
        original: requests.Response,
        headers: dict[str, str],
        refresh: bool = False,  # noqa: FBT001, FBT002 - oras' signature
    ) -> tuple[dict[str, str], bool]:
        """Answer a 401 or 403 with a fresh header.

        Raises:
            UnauthorizedError, ForbiddenError: there is nothing better to send.
        """
        challenge = original.headers.get("WWW-Authenticate", "")
        request = original.request
        sent = request.headers.get("Authorization")
        at_home = urlsplit(str(request.url)).netloc == self._host
        # Answered once, only to the registry itself, and only where the body can be sent again.
        if not challenge or not at_home or refresh or isinstance(request.body, (bytes, str, type(None))) is False:
            raise error_of(original, "this repository", self._secrets)
        with original, self._exchange:
            if self.token is None or sent == f"{self._kind} {self.token}":
                self._renew(original, challenge, sent)
        return {**headers, **self.get_auth_header()}, True

    def _renew(self, original: requests.Response, text: str, sent: str | None) -> None:
        basic = getattr(self, "_basic_auth", None)
        challenges = parse_challenges(text)
        challenge = choose(challenges, basic=basic is not None)
        if challenge is None:
            kinds = ", ".join(dict.fromkeys(each.scheme[:40] for each in challenges))
            if "basic" in kinds.split(", "):
                raise error_of(original, "this repository", self._secrets)
            msg = f"{self._host} wants authentication of kind {kinds or clean_text(text, limit=40)!r}"
            raise UnauthorizedError(msg, hint="cfs knows basic and token authentication")
        if challenge.scheme == "basic":
            if sent == f"Basic {basic}":
                raise error_of(original, "this repository", self._secrets)
            self._kind, self.token = "Basic", basic
            return
        realm = realm_of(challenge, self._host, scheme=self.prefix)
        header = oras.auth.utils.authHeader({**challenge.parameters, "realm": realm})
        if header.realm.startswith("http://") and not self._plain_http and self._credentials is not None:
            msg = f"{self._host} wants credentials to be sent unencrypted to {host_of(header.realm)}"
            raise TlsError(msg, hint="this is not done for a registry that is reached by TLS")
        self.token = None
        self._kind, self.token = "Bearer", self._token(header)

    def _token(self, header: Any) -> str:  # noqa: ANN401 - oras' own type
        """Exchange credentials for a token: oras for a password or none, OAuth 2 for an identity token."""
        answers = _Answers(self.session, self._host)
        credentials = self._credentials
        if credentials is not None and credentials.identity_token is not None:
            form = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token, "client_id": "cfs"}
            form |= {"service": header.service or "", "scope": header.scope or ""}
            info = answers.request("POST", header.realm, data=form, allow_redirects=False).json()
            token = info.get("access_token") or info.get("token")
        else:
            exchange = oras.auth.TokenAuth()
            exchange.session = answers
            exchange.prefix, exchange._tls_verify = self.prefix, True  # noqa: SLF001 - oras sets them this way too
            if credentials is not None:
                exchange.set_basic_auth(credentials.user, credentials.password)
            token = exchange.request_token(header)
        if not isinstance(token, str) or not token or not token.isprintable():
            msg = f"{self._host} gave no token"
            raise ServerError(msg)
        return token


class _Answers(requests.Session):
    """The session as the token exchange sees it: answers that are whole, bounded, and JSON objects."""

    def __init__(self, session: requests.Session, registry: str) -> None:
        super().__init__()
        self._inner = session
        self._registry = registry

    def request(self, method: str | bytes, url: str | bytes, **kwargs: Any) -> requests.Response:  # type: ignore[override] # noqa: ANN401 - passed through
        """Send through the session that has timeouts and TLS; read at most `_TOKEN_LIMIT` bytes.

        Raises:
            TransportError: refused, or answered with something else than a JSON object.
        """
        headers = {
            name: value for name, value in kwargs.pop("headers", {}).items() if name != "User-Agent"
        }  # oras' own
        response = self._inner.request(method, url, **{**kwargs, "headers": headers, "stream": True})
        if response.status_code != requests.codes.ok:
            raise error_of(response, f"a token for {self._registry}")
        host = host_of(str(response.url))
        raw = read_body(response, host, _TOKEN_LIMIT)
        try:
            good = len(raw) <= _TOKEN_LIMIT and isinstance(json.loads(raw), dict)
        except (ValueError, RecursionError):
            good = False
        if not good:
            msg = f"{host} answers the request for a token with something else"
            raise ServerError(msg, hint="is a proxy or a login page in between?")
        response._content = raw  # noqa: SLF001 - what requests itself does when it reads a body
        return response
