"""Where simple signatures are kept: registries.d, files, and plain web servers (containers-registries.d(5))."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

from cfs_core.plugin import ConfigError, TransferTimeoutError, TransportError, clean_address, clean_text, open_regular
from cfs_policies.scopes import docker_scopes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from http.client import HTTPMessage

    from cfs_core.plugin import Digest
    from cfs_policies.names import Named
    from cfs_policies.places import Places

_SIGNATURE_LIMIT = 4 * 1024 * 1024
_SIGNATURES = 128
_TIMEOUT_SECONDS = 15.0
_NOT_FOUND = 404


def signatures(named: Named, digest: Digest, places: Places) -> Iterator[bytes]:
    """Yield the signatures of a manifest in a registry, in their order.

    Raises:
        ConfigError: registries.d is malformed.
        TransportError: the server failed, or took too long; that there are no more is not a failure.
    """
    base = _base(named, places)
    path = named.name.partition("/")[2]
    folder = f"{base.rstrip('/')}/{path}@{digest.algorithm.value}={digest.hex}"
    for number in range(1, _SIGNATURES + 1):
        found = _fetch(f"{folder}/signature-{number}")
        if found is None:
            return
        yield found


def _base(named: Named, places: Places) -> str:
    default, namespaces = _load(places.registries_d)
    for scope in docker_scopes(named):
        if base := _url(namespaces.get(scope), scope):
            return base
    return _url(default, "default-docker") or f"file://{places.lookaside}"


def _load(folder: Path) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
    default: Mapping[str, Any] | None = None
    namespaces: dict[str, Any] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            # not as the cause: the parser shows the line, and what stands in it may be a password
            msg = f"{path} cannot be read: {_reason(error)}"
            raise ConfigError(msg, hint="it has to be YAML as containers-registries.d(5) describes it") from None
        if not isinstance(content, dict) or not isinstance(content.get("docker") or {}, dict):
            msg = f"{path} is not a table of signature places"
            raise ConfigError(msg)
        if content.get("default-docker"):
            if default is not None:
                msg = f"default-docker is in more than one file of {folder}"
                raise ConfigError(msg)
            default = content["default-docker"]
        for scope, value in (content.get("docker") or {}).items():
            if scope in namespaces:
                msg = f"{scope} is in more than one file of {folder}"
                raise ConfigError(msg)
            namespaces[scope] = value
    return default, namespaces


def _url(namespace: object, scope: str) -> str | None:
    if namespace is None:
        return None
    if not isinstance(namespace, dict):
        msg = f"{scope} in registries.d is not a table"
        raise ConfigError(msg)
    value = namespace.get("lookaside") or namespace.get("sigstore")
    if value is not None and (not isinstance(value, str) or urlsplit(value).scheme not in ("file", "http", "https")):
        msg = f"{scope} in registries.d has the signature place {clean_address(str(value))!r}"
        raise ConfigError(msg, hint="write file:///PATH or https://HOST/PATH")
    return value


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return where + clean_text(
        getattr(error, "problem", None) or getattr(error, "strerror", None) or type(error).__name__
    )


def _host(url: str) -> str:
    """Return ``host[:port]``: an address may have a user and a password before it."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _fetch(url: str) -> bytes | None:
    parts = urlsplit(url)
    if parts.scheme == "file":
        try:
            with open_regular(Path(unquote(parts.path))) as file:
                return _bounded(file.read(_SIGNATURE_LIMIT + 1), url)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            msg = f"signature {clean_address(url)} cannot be read: {error.strerror}"
            raise TransportError(msg) from error
    return _in_time(lambda: _fetch_from_server(url), _host(url))


def _in_time(fetch: Callable[[], bytes | None], host: str) -> bytes | None:
    """Return what *fetch* returns. It runs in a thread, where a server that never comes to an end is left behind."""
    future: Future[bytes | None] = Future()

    def run() -> None:
        try:
            future.set_result(fetch())
        except BaseException as error:  # noqa: BLE001 - handed over, whatever it is
            future.set_exception(error)

    threading.Thread(target=run, name="cfs-signature", daemon=True).start()
    try:
        return future.result(_TIMEOUT_SECONDS)
    except TimeoutError as error:
        msg = f"{host} takes longer than {_TIMEOUT_SECONDS:.0f} s for a signature"
        raise TransferTimeoutError(msg, hint="check the network and registries.d", facts={"host": host}) from error


def _fetch_from_server(url: str) -> bytes | None:
    host = _host(url)
    request = urllib.request.Request(url, headers={"User-Agent": "cfs-policies"})  # noqa: S310 - schemes are checked
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return _bounded(answer.read(_SIGNATURE_LIMIT + 1), url)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == _NOT_FOUND:
                return None
            msg = f"{host} answered {error.code} for a signature"
            raise TransportError(msg) from error
    except (OSError, ValueError, HTTPException) as error:
        msg = f"signatures cannot be fetched from {host}: {clean_text(error)}"
        raise TransportError(msg) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects within the web; urllib would follow them to FTP, and leave answers with a senseless one open."""

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:  # noqa: ANN401 - as in the base
        """Follow one redirect."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except urllib.error.HTTPError:
            raise  # it has the answer, and is closed by who catches it
        except BaseException:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """Return what to ask for instead."""
        if urlsplit(newurl).scheme not in ("http", "https"):
            words = f"redirects to {clean_address(newurl)}"
            raise urllib.error.URLError(words)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _bounded(data: bytes, url: str) -> bytes:
    if len(data) > _SIGNATURE_LIMIT:
        msg = f"signature {clean_address(url)} is longer than {_SIGNATURE_LIMIT} bytes"
        raise TransportError(msg)
    return data
