"""Container registries as a place images come from and go to (distribution-spec 1.1)."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cfs_core.plugin import (
    MANIFEST_LIMIT,
    CannotResumeError,
    ContentTypeError,
    Digest,
    ImageError,
    ServerError,
    Transport,
    TransportError,
    VerificationError,
    clean_text,
    skip_bytes,
)
from cfs_transport_registry.clients import Clients
from cfs_transport_registry.credentials import CredentialStore
from cfs_transport_registry.reference import parse
from cfs_transport_registry.referrers import list_referrers
from cfs_transport_registry.registries_conf import RegistriesConf
from cfs_transport_registry.transfer import read_body, read_chunks
from cfs_transport_registry.writer import RegistryWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import requests

    from cfs_core.plugin import Descriptor, ImageReference, ImageWriter, PluginContext
    from cfs_transport_registry.oras_client import OrasClient
    from cfs_transport_registry.registries_conf import Endpoint
    from cfs_transport_registry.settings import Settings

T = TypeVar("T")

_VAGUE_TYPES = frozenset({"", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain"})
_OK, _PARTIAL, _BAD_RANGE = 200, 206, 416


class RegistryTransport(Transport):
    """Reads from mirrors and registries as registries.conf orders them; blobs from where the manifest was found."""

    def __init__(self, context: PluginContext, settings: Settings) -> None:
        self._log = context.log
        self._conf = RegistriesConf.load(settings)
        credentials = CredentialStore(settings, context.commands, context.log, self._conf.credential_helpers)
        self._stop = context.retrier.stop
        self._clients = Clients(settings, credentials, self._stop)
        self._minimum_rate = settings.minimum_rate
        self._found_at: dict[str, Endpoint] = {}
        self._lock = threading.Lock()

    def parse(self, text: str) -> ImageReference:
        """Turn ``docker://…`` or ``registry:…`` into a reference.

        Raises:
            UsageError: not in the grammar.
        """
        return parse(text, self._conf.aliases)

    def close(self) -> None:
        """Close idle connections."""
        self._clients.close()

    def open_writer(self, reference: ImageReference) -> ImageWriter:
        """Open *reference* for pushing.

        Raises:
            BlockedError: registries.conf forbids this registry.
        """
        endpoint = self._conf.destination(reference)
        return RegistryWriter(self._clients.client(endpoint), endpoint.repository.path, reference)

    def referrers(
        self, reference: ImageReference, digest: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """List what refers to *digest*: the referrers API, or its tag where a registry has none.

        Raises:
            TransportError: the registry failed.
        """
        return self._first(reference, lambda client, path: list_referrers(client, path, digest, artifact_type))

    def _first(self, reference: ImageReference, ask: Callable[[OrasClient, str], T], *, note: bool = False) -> T:
        """Ask one place after the other, first the one that had the manifest."""
        endpoints = list(self._conf.endpoints(reference))
        with self._lock:
            known = self._found_at.get(reference.name)
        if known in endpoints and not note:
            endpoints.sort(key=lambda endpoint: endpoint != known)
        errors: dict[Endpoint, TransportError] = {}
        for endpoint in endpoints:
            try:
                answer = ask(self._clients.client(endpoint), endpoint.repository.path)
            except TransportError as error:
                self._stop.check()
                errors[endpoint] = error
                if len(endpoints) > 1:
                    self._log.warning("registry.place-failed", place=str(endpoint), code=error.code, reason=str(error))
                continue
            if note:
                with self._lock:
                    self._found_at[reference.name] = endpoint
            return answer
        raise _telling(errors, known)

    # --- manifests ----------------------------------------------------------------------------

    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Ask mirrors, then the registry; remember who had it."""
        what = str(reference.digest or reference.tag)
        return self._first(reference, lambda client, path: self._manifest(client, path, what, accept), note=True)

    def _manifest(self, client: OrasClient, path: str, what: str, accept: Sequence[str]) -> tuple[str, bytes]:
        response = client.request(f"/v2/{path}/manifests/{what}", headers={"Accept": ", ".join(accept)})
        if response.status_code != _OK:
            raise client.error_of(response, f"{path}:{what}" if ":" not in what else f"{path}@{what}")
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type not in _VAGUE_TYPES and media_type not in accept:
            response.close()
            msg = f"{client.host} answers with {clean_text(media_type, limit=80)!r} instead of the manifest of {path}"
            hint = "is a proxy or a login page in between?"
            if media_type.startswith("application/vnd."):
                hint = "this is not a container image of OCI or of docker's schema 2"
            raise ContentTypeError(msg, hint=hint, facts={"host": client.host})
        _refuse_encoding(response, client.host, "manifests")
        raw = read_body(response, client.host, MANIFEST_LIMIT)
        _check_stated_digest(response, raw, client.host)
        return "" if media_type in _VAGUE_TYPES else media_type, raw

    # --- blobs --------------------------------------------------------------------------------

    @contextmanager
    def open_blob(self, reference: ImageReference, descriptor: Descriptor, offset: int) -> Iterator[Iterator[bytes]]:
        """Begin where the manifest was found, by range."""
        client, response = self._first(
            reference, lambda client, path: (client, _begin_blob(client, path, descriptor.digest, offset))
        )
        with response:
            chunks = read_chunks(response, client.host, self._minimum_rate)
            yield skip_bytes(chunks, offset) if response.status_code == _OK and offset else chunks


def _telling(errors: Mapping[Endpoint, TransportError], known: Endpoint | None) -> TransportError:
    """Return the error to show where every place failed: the registry's own answer, and that the mirrors failed too.

    A place that has answered in this run (*known*) and only stumbles now is worth another try.
    """
    if known is not None and known in errors and errors[known].transient:
        return errors[known]
    chosen = next((error for endpoint, error in errors.items() if not endpoint.mirror), None)
    if chosen is None:
        return next(iter(errors.values()))
    failed = {str(endpoint): error.code for endpoint, error in errors.items() if error is not chosen}
    if failed:
        chosen.facts["mirrors_failed"] = failed
        tried = "mirrors failed too: " + ", ".join(f"{place} ({code})" for place, code in failed.items())
        chosen.hint = f"{chosen.hint}; {tried}" if chosen.hint else tried
    return chosen


def _begin_blob(client: OrasClient, path: str, digest: Digest, offset: int) -> requests.Response:
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    response = client.request(f"/v2/{path}/blobs/{digest}", headers=headers)
    if response.status_code == _BAD_RANGE and offset:
        response.close()
        msg = f"{client.host} does not deliver {digest} from byte {offset}"
        raise CannotResumeError(msg, facts={"host": client.host})
    if response.status_code == _PARTIAL and offset:
        begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if begins is None or int(begins[1]) != offset:
            response.close()
            msg = f"{client.host} delivers another range of {digest} than was asked for"
            raise CannotResumeError(msg, facts={"host": client.host})
        return response
    if response.status_code != _OK:
        raise client.error_of(response, f"blob {digest} of {path}")
    _refuse_encoding(response, client.host, "blobs")
    return response


def _refuse_encoding(response: requests.Response, host: str, what: str) -> None:
    """Refuse an answer that is compressed on its way: digests are over the bytes as they are stored.

    Raises:
        ServerError: it is.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return
    response.close()
    msg = f"{host} sends {what} with the Content-Encoding {clean_text(encoding, limit=40)!r}, which nobody asked for"
    hint = "a proxy in between, or the registry's web server, compresses what it sends; have that switched off"
    raise ServerError(msg, hint=hint, facts={"host": host})


def _check_stated_digest(response: requests.Response, raw: bytes, host: str) -> None:
    stated = response.headers.get("Docker-Content-Digest")
    if stated is None:
        return
    try:
        digest = Digest.parse(stated)
    except ImageError as error:
        msg = f"{host} states the digest {stated[:100]!r}"
        raise ServerError(msg, facts={"host": host}) from error
    if len(raw) <= MANIFEST_LIMIT and Digest.of(raw, digest.algorithm) != digest:
        msg = f"{host} sends another manifest than the one it states"
        raise VerificationError(
            msg, facts={"expected": str(digest), "found": str(Digest.of(raw, digest.algorithm)), "host": host}
        )
