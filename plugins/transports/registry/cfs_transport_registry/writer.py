"""Pushing an image to a registry (distribution-spec 1.1, one request per blob)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from cfs_core.plugin import ImageWriter, ServerError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import requests

    from cfs_core.plugin import Descriptor, ImageReference
    from cfs_transport_registry.oras_client import OrasClient

_OK, _CREATED, _ACCEPTED, _NOT_FOUND = 200, 201, 202, 404


class RegistryWriter(ImageWriter):
    """Puts one image into one repository. Blobs are invisible there until a manifest names them."""

    def __init__(self, client: OrasClient, path: str, reference: ImageReference) -> None:
        self._client = client
        self._path = path
        self._reference = reference

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Return whether the repository has the blob.

        Raises:
            TransportError: the registry failed.
        """
        response = self._client.request(f"/v2/{self._path}/blobs/{descriptor.digest}", method="HEAD")
        with response:
            if response.status_code == _OK:
                return True
            if response.status_code == _NOT_FOUND:
                return False
            raise self._client.error_of(response, f"blob {descriptor.digest} of {self._path}")

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Upload a blob while it is read.

        Raises:
            TransportError: the registry refused or failed.
        """
        response = self._client.request(f"/v2/{self._path}/blobs/uploads/", method="POST", body=b"")
        with response:
            self._expect(response, {_ACCEPTED}, "an upload")
            location = response.headers.get("Location", "")
        if not location:
            msg = f"{self._client.host} accepts an upload and does not say where to"
            raise ServerError(msg, facts={"host": self._client.host})
        try:
            target = urljoin(f"{self._client.base}/", location)
            target += ("&" if urlsplit(target).query else "?") + urlencode({"digest": str(descriptor.digest)})
        except ValueError as error:
            msg = f"{self._client.host} accepts an upload to something that is not a web address"
            raise ServerError(msg, facts={"host": self._client.host}) from error
        headers = {"Content-Type": "application/octet-stream"}
        body = _Sized(chunks, descriptor.size)
        with self._client.request(target, method="PUT", headers=headers, body=body) as response:
            self._expect(response, {_CREATED}, f"blob {descriptor.digest}")

    def put_manifest(self, descriptor: Descriptor, raw: bytes, *, top: bool) -> None:
        """Upload a manifest; under the reference's tag if it is the top one and there is a tag.

        Raises:
            TransportError: the registry refused or failed.
            VerificationError: the registry counts another digest.
        """
        name = self._reference.tag if top and self._reference.tag else str(descriptor.digest)
        headers = {"Content-Type": descriptor.media_type}
        url = f"/v2/{self._path}/manifests/{name}"
        with self._client.request(url, method="PUT", headers=headers, body=raw) as response:
            self._expect(response, {_CREATED, _ACCEPTED}, f"manifest {descriptor.digest}")
            stated = response.headers.get("Docker-Content-Digest")
        if (
            stated is not None
            and stated.startswith(f"{descriptor.digest.algorithm}:")
            and stated != str(descriptor.digest)
        ):
            msg = f"{self._client.host} stored the manifest under another digest"
            raise VerificationError(msg, facts={"expected": str(descriptor.digest), "found": stated})

    def _expect(self, response: requests.Response, codes: set[int], what: str) -> None:
        if response.status_code not in codes:
            raise self._client.error_of(response, f"place for {what} in {self._path}")


# The specification's upload in one request has a Content-Length.
class _Sized:
    """An iterable with a length, which requests sends with Content-Length instead of in HTTP chunks."""

    def __init__(self, chunks: Iterable[bytes], size: int) -> None:
        self._chunks = chunks
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)
