"""Tar files on web servers as images of one layer."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    Digest,
    HashAlgorithm,
    ImageError,
    NotFoundError,
    Transport,
    TransportError,
    VerificationError,
)
from cfs_transport_http_tarball.contents import examine
from cfs_transport_http_tarball.download import CHUNK, Client, Download, shown
from cfs_transport_http_tarball.reference import parse, take_apart

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cfs_core.plugin import Descriptor, ImageReference, Retrier
    from cfs_transport_http_tarball.reference import Tarball
    from cfs_transport_http_tarball.settings import Settings

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True, slots=True)
class _Image:
    """A fetched tar file as an image."""

    manifest: bytes
    config: bytes
    layer: Path
    layer_digest: str


class HttpTarballTransport(Transport):
    """Each file is fetched once in a run, into *scratch*; manifest and configuration follow from its bytes."""

    def __init__(self, settings: Settings, scratch: Path, retrier: Retrier) -> None:
        self._settings = settings
        self._scratch = scratch
        self._retrier = retrier
        self._client = Client(settings)
        self._images: dict[str, _Image] = {}
        self._lock = threading.Lock()

    def parse(self, text: str) -> ImageReference:
        """Check the grammar.

        Raises:
            UsageError: not in it.
        """
        return parse(text)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Make the manifest of the fetched file."""
        del accept
        return _MANIFEST, self._image(reference).manifest

    def open_blob(
        self, reference: ImageReference, descriptor: Descriptor, offset: int
    ) -> AbstractContextManager[Iterable[bytes]]:
        """Hand out the configuration made, or the file fetched."""
        image = self._image(reference)
        if descriptor.digest == Digest.of(image.config):
            return contextlib.nullcontext([image.config[offset:]])
        if str(descriptor.digest) == image.layer_digest:
            return _read(image.layer, offset)
        msg = f"{reference} has no blob {descriptor.digest}"
        raise NotFoundError(msg)

    def _image(self, reference: ImageReference) -> _Image:
        with self._lock:
            if reference.name not in self._images:
                tarball = take_apart(reference.name)
                download = Download(self._scratch / f"{Digest.of(reference.name.encode()).hex}.tar")
                try:
                    self._images[reference.name] = self._made(tarball, download)
                except BaseException:
                    download.restart()
                    raise
            return self._images[reference.name]

    def _made(self, tarball: Tarball, download: Download) -> _Image:
        try:
            self._retrier.run(lambda: self._client.fetch(tarball.url, download), progress=lambda: download.size)
        except TransportError as error:
            # Core's own tries around this one would begin from the start.
            error.transient = False
            raise
        except OSError as error:
            msg = f"{shown(tarball.url)} cannot be kept in {self._scratch}: {error}"
            raise TransportError(msg, hint="make room there, or set TMPDIR") from error
        digest = Digest(HashAlgorithm.SHA256, download.hasher.hexdigest())
        if tarball.digest is not None and digest != tarball.digest:
            msg = f"{shown(tarball.url)} is not the file that was asked for"
            raise VerificationError(msg, facts={"expected": str(tarball.digest), "found": str(digest)})
        found = examine(download.path, self._settings.max_uncompressed_bytes)
        architecture = tarball.architecture or found.architecture or self._settings.architecture
        if architecture is None:
            msg = f"{shown(tarball.url)} has no program that would tell its architecture"
            raise ImageError(msg, hint="write #arch=amd64 (or arm64, riscv64, 386) behind the reference")
        rootfs = {"type": "layers", "diff_ids": [str(found.diff_id)]}
        config = _json({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs})
        layer = {"mediaType": found.media_type, "digest": str(digest), "size": download.size}
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": str(Digest.of(config)), "size": len(config)},
            "layers": [layer],
        }
        return _Image(_json(manifest), config, download.path, str(digest))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@contextlib.contextmanager
def _read(path: Path, offset: int) -> Iterator[Iterator[bytes]]:
    with path.open("rb") as file:
        file.seek(offset)
        yield iter(lambda: file.read(CHUNK), b"")
