"""Layers imported by another process: into the objects of a repository that the first one has open and locked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.plugin import HashAlgorithm, LayerJob
from cfs_storage_composefs.objects.names import KernelSealer
from cfs_storage_composefs.objects.store import ObjectStore
from cfs_storage_composefs.streams.importer import LayerImport

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.plugin import LayerStream
    from cfs_storage_composefs.streams.entries import Packed


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """A layer whose objects are there, unsynced, and that nothing refers to yet."""

    stream: bytes | None
    """Digest of its splitstream; None if it could not be stored."""

    created: tuple[bytes, ...]
    """Objects that were not there before."""

    bytes_added: int
    """What those have together."""

    entries: Packed | None
    """What it says about the tree; None where that has to be read again."""


@dataclass(slots=True, kw_only=True)
class ImportJob(LayerJob):
    """Imports layers. The other process inherits the open repository, and with it a share of its lock."""

    repository: int
    """Descriptor that the lock belongs to."""

    objects: int
    """Descriptor of objects/."""

    path: Path
    """Of objects/."""

    algorithm: HashAlgorithm
    secure: bool
    """Whether objects are sealed."""

    where: str
    """In messages."""

    _store: ObjectStore | None = field(default=None, init=False)
    _created: list[bytes] = field(default_factory=list, init=False)
    _bytes_before: int = field(default=0, init=False)

    @property
    def descriptors(self) -> tuple[int, ...]:  # type: ignore[override] # read only
        """Open files that the other process needs."""
        return (self.repository, self.objects)

    def run(self, layer: LayerStream) -> StoredLayer:
        """Store the layer's files while reading it.

        Raises:
            StorageError: it could not be stored. What *layer* raises passes through.
        """
        if self._store is None:
            sealer = KernelSealer(self.algorithm) if self.secure else None
            self._store = ObjectStore(self.objects, self.path, self.algorithm, sealer)
        self._created = []
        self._bytes_before = self._store.bytes_added
        work = LayerImport(self._store, self.where, self._created, spool=str(self.path))
        return self._stored(work.run(layer), work.entries())

    def remains(self) -> StoredLayer:
        """Return the objects of a layer that failed."""
        return self._stored(None)

    def _stored(self, stream: bytes | None, entries: Packed | None = None) -> StoredLayer:
        added = self._store.bytes_added - self._bytes_before if self._store is not None else 0
        return StoredLayer(stream=stream, created=tuple(self._created), bytes_added=added, entries=entries)
