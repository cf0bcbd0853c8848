"""A transport that asks a `RegistryServer` and does nothing clever: for plugins that need images from a registry."""

from __future__ import annotations

import contextlib
import http.client
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    ImageReference,
    NotFoundError,
    ServerError,
    Transport,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_CHUNK = 64 * 1024
_TIMEOUT_SECONDS = 20


class RegistryTransport(Transport):
    """Plain HTTP, no credentials, no retries of its own. References are ``docker://HOST:PORT/NAME[:TAG][@DIGEST]``."""

    def parse(self, text: str) -> ImageReference:
        """Split host and name, tag and digest."""
        scheme, _, rest = text.partition("://")
        rest, _, digest = rest.partition("@")
        name, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            name, tag = rest, ""
        return ImageReference(
            scheme=scheme,
            name=name,
            tag=tag or (None if digest else "latest"),
            digest=Digest.parse(digest) if digest else None,
            text=text,
        )

    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Return a manifest by digest or tag."""
        what = f"manifests/{reference.digest or reference.tag}"
        with _get(reference, what, {"Accept": ", ".join(accept)}) as answer:
            return answer.headers.get("Content-Type", ""), answer.read(MANIFEST_LIMIT + 1)

    @contextlib.contextmanager
    def open_blob(self, reference: ImageReference, descriptor: Descriptor, offset: int) -> Iterator[Iterable[bytes]]:
        """Hand out a blob, from *offset* by range."""
        with _get(reference, f"blobs/{descriptor.digest}", {"Range": f"bytes={offset}-"}) as answer:
            yield iter(lambda: answer.read(_CHUNK), b"")


@contextlib.contextmanager
def _get(reference: ImageReference, what: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    host, _, repository = reference.name.partition("/")
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_SECONDS)
    try:
        try:
            connection.request("GET", f"/v2/{repository}/{what}", headers=headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            msg = f"{host} cannot be reached: {error}"
            raise UnreachableError(msg) from error
        if answer.status == http.HTTPStatus.NOT_FOUND:
            msg = f"{host} has no {what} of {repository}"
            raise NotFoundError(msg)
        if answer.status not in {http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT}:
            msg = f"{host} answered {answer.status} for {what} of {repository}"
            raise ServerError(msg)
        yield answer
    finally:
        connection.close()
