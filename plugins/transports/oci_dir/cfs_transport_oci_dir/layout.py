"""Manifests and blobs of image layouts: the same in a directory and in an archive; only opening a file differs."""

from __future__ import annotations

import abc
import contextlib
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    MANIFEST_LIMIT,
    Digest,
    ImageReference,
    RetryPolicy,
    Transport,
    VerificationError,
)
from cfs_transport_oci_dir.grammar import parse_reference
from cfs_transport_oci_dir.index import INDEX_TYPE
from cfs_transport_oci_dir.reader import CHUNK, DirectoryReader

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from cfs_core.plugin import Descriptor, ImageWriter
    from cfs_transport_oci_dir.reader import LayoutReader


class LayoutTransportBase(Transport):
    """Manifests and blobs out of a `LayoutReader`."""

    retry = RetryPolicy(attempts=1)  # a file that is too short stays so

    def __init__(self) -> None:
        self._readers: dict[str, LayoutReader] = {}

    @abc.abstractmethod
    def _make_reader(self, path: str) -> LayoutReader:
        """Open the layout at *path*."""

    def reader(self, path: str) -> LayoutReader:
        """Return the layout at *path*, opened once."""
        if path not in self._readers:
            self._readers[path] = self._make_reader(path)
        return self._readers[path]

    def parse(self, text: str) -> ImageReference:
        """Split ``scheme:PATH[:TAG][@DIGEST]``."""
        return parse_reference(text)

    def close(self) -> None:
        """Close archives."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Return the manifest that the index names, or the index where that is the question."""
        del accept
        reader = self.reader(reference.name)
        index = reader.index()
        if reference.digest is not None:
            return index.media_type(reference.digest), reader.read(_blob_name(reference.digest), MANIFEST_LIMIT)
        entry = index.choose(reference)
        if entry is None:
            return INDEX_TYPE, index.raw
        raw = reader.read(_blob_name(entry.digest), MANIFEST_LIMIT)
        if len(raw) != entry.size or Digest.of(raw, entry.digest.algorithm) != entry.digest:
            msg = f"{_blob_name(entry.digest)} in {reader.where} is not what its name says"
            raise VerificationError(msg, hint="the layout is damaged; make or copy it again")
        return entry.media_type, raw

    def open_blob(
        self, reference: ImageReference, descriptor: Descriptor, offset: int
    ) -> AbstractContextManager[Iterable[bytes]]:
        """Open the blob's file at *offset*."""
        return _open_at(self.reader(reference.name), descriptor, offset)


class LayoutTransport(LayoutTransportBase):
    """``oci:DIRECTORY[:TAG][@DIGEST]``."""

    def _make_reader(self, path: str) -> LayoutReader:
        return DirectoryReader(path)

    def open_writer(self, reference: ImageReference) -> ImageWriter:
        """Open the layout for one more image; it is made if it is not there."""
        from cfs_transport_oci_dir.writer import LayoutWriter

        return LayoutWriter(reference)


@contextlib.contextmanager
def _open_at(reader: LayoutReader, descriptor: Descriptor, offset: int) -> Generator[Iterator[bytes]]:
    name = _blob_name(descriptor.digest)
    file, size = reader.open(name)
    with file:
        if size != descriptor.size:
            msg = f"{name} in {reader.where} has {size} bytes, its descriptor says {descriptor.size}"
            raise VerificationError(msg, hint="the layout is damaged; make or copy it again")
        file.seek(offset)
        yield iter(lambda: file.read(CHUNK), b"")


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
