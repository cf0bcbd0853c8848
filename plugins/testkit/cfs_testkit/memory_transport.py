"""A transport whose images are in memory: for policies and storage formats, and to see what was fetched."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    Descriptor,
    Digest,
    Fetcher,
    ImageReference,
    NotFoundError,
    Platform,
    Transport,
    UnreachableError,
)
from cfs_core.testing import resolve
from cfs_testkit.images import MANIFEST_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cfs_core.plugin import ResolvedImage
    from cfs_testkit.images import Image

REFERENCE = ImageReference(scheme="memory", name="image", text="memory:image")
CHUNK = 64 * 1024


class MemoryFetcher(Fetcher):
    """What core reads through, over a `MemoryTransport` whose facts are its own."""

    transport: MemoryTransport

    def __init__(self, image: Image, artifacts: Iterable[Image] = (), *, reference: ImageReference = REFERENCE) -> None:
        super().__init__(MemoryTransport(image, artifacts, reference=reference))

    @property
    def reference(self) -> ImageReference:
        """The image's name."""
        return self.transport.reference

    @property
    def image(self) -> Image:
        """The image."""
        return self.transport.image

    @property
    def fetched(self) -> list[str]:
        """Digests of blobs in the order of requests."""
        return self.transport.fetched

    def resolved(self) -> ResolvedImage:
        """Return the image as core resolves it."""
        image = self.transport.image
        architecture = json.loads(self.transport.blobs[json.loads(image.manifest)["config"]["digest"]])["architecture"]
        return resolve(self, self.reference, Platform("linux", architecture))


class MemoryTransport(Transport):
    """Holds one image and artifacts that refer to it. ``fetched`` lists digests of blobs in the order of requests."""

    def __init__(self, image: Image, artifacts: Iterable[Image] = (), *, reference: ImageReference = REFERENCE) -> None:
        self.image = image
        self.reference = reference
        self.artifacts = tuple(artifacts)
        self.blobs = dict(image.blobs)
        for artifact in self.artifacts:
            self.blobs |= artifact.blobs
        self.manifests = {each.digest: each.manifest for each in (image, *self.artifacts)}
        self.fetched: list[str] = []
        self.reachable = True

    def _reach(self) -> None:
        if not self.reachable:
            msg = "nobody answers"
            raise UnreachableError(msg)

    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Return the image's manifest, or the one of the digest that is asked for."""
        del accept
        self._reach()
        digest = str(reference.digest) if reference.digest else self.image.digest
        if digest not in self.manifests:
            msg = f"no manifest {digest}"
            raise NotFoundError(msg)
        return MANIFEST_TYPE, self.manifests[digest]

    @contextlib.contextmanager
    def open_blob(self, reference: ImageReference, descriptor: Descriptor, offset: int) -> Iterator[Iterable[bytes]]:
        """Hand out a blob in small chunks."""
        del reference
        self._reach()
        name = str(descriptor.digest)
        self.fetched.append(name)
        if name not in self.blobs:
            msg = f"no blob {name}"
            raise NotFoundError(msg)
        data = self.blobs[name][offset:]
        yield (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))

    def referrers(
        self, reference: ImageReference, digest: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """List the artifacts whose subject is *digest*."""
        del reference
        self._reach()
        found = []
        for artifact in self.artifacts:
            manifest = json.loads(artifact.manifest)
            kind = manifest.get("artifactType")
            subject = manifest.get("subject", {}).get("digest")
            if subject == str(digest) and artifact_type in {None, kind}:
                size = len(artifact.manifest)
                found.append(Descriptor(media_type=MANIFEST_TYPE, digest=Digest.parse(artifact.digest), size=size))
        return tuple(found)
