"""A transport whose blobs are a dictionary; what it holds can be made wrong by editing it."""

from __future__ import annotations

import contextlib

from cfs_core.errors import NotFoundError
from cfs_core.interfaces.fetcher import Fetcher
from cfs_core.interfaces.retry import RetryPolicy
from cfs_core.interfaces.transport import Transport
from cfs_core.model.manifest import Platform
from cfs_core.model.reference import ImageReference
from cfs_testkit.builders.oci import Image, digest


class _Source(Transport):
    """Asks the fetcher that holds the bytes, so that tests change one object."""

    retry = RetryPolicy(attempts=1)

    def __init__(self, owner: MemoryFetcher) -> None:
        self.read_manifest, self.open_blob = owner.read_manifest, owner.open_blob
        self.open_uncompressed_layer = owner.open_uncompressed_layer

    def read_manifest(self, reference, accept): ...
    def open_blob(self, reference, descriptor, offset): ...


AMD64 = Platform("linux", "amd64")


class MemoryFetcher(Fetcher):
    """``names`` maps tags to media type and raw manifest, ``blobs`` digests to bytes, ``layers`` diff-ids to tars."""

    def __init__(self, *images: Image, chunk: int = 65536) -> None:
        super().__init__(_Source(self))
        self.names: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.layers: dict[str, bytes] = {}
        self.chunk = chunk
        self.opened: list[str] = []
        for image in images:
            self.add(image)

    def add(self, image: Image, tag: str = "latest") -> None:
        self.names[tag] = (image.media_type, image.manifest)
        self.blobs |= {digest(blob): blob for blob in image.blobs}

    def read_manifest(self, reference, accept):
        if reference.digest is not None:
            raw = self.blobs.get(str(reference.digest))
            if raw is None:
                raise NotFoundError(str(reference.digest))
            return "", raw
        return self.names[reference.tag or "latest"]

    @contextlib.contextmanager
    def open_blob(self, reference, descriptor, offset):
        self.opened.append(str(descriptor.digest))
        data = self.blobs[str(descriptor.digest)]
        yield (data[i : i + self.chunk] for i in range(offset, len(data), self.chunk))

    def open_uncompressed_layer(self, reference, descriptor, diff_id):
        data = self.layers.get(str(diff_id))
        return None if data is None else contextlib.nullcontext([data])


def reference(tag: str | None = None) -> ImageReference:
    return ImageReference(scheme="memory", name="image", tag=tag, text=f"memory:image:{tag or 'latest'}")
