"""Garbage collection: what tags, kept images and their streams need stays (formats D.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import GcReport
from cfs_storage_composefs.errors import DamagedError, MissingError
from cfs_storage_composefs.objects.names import object_path
from cfs_storage_composefs.repository.identify import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_storage_composefs.objects.names import Store
    from cfs_storage_composefs.objects.store import ObjectStore
    from cfs_storage_composefs.repository.catalog import Catalog
    from cfs_storage_composefs.repository.directory import RepositoryDirectory

_NAMES_REPORTED = 1000


def image_objects(store: Store, digest: bytes) -> set[bytes]:
    """Return the objects that an EROFS image refers to.

    Raises:
        MissingError: the image is not there.
        StorageError: not a readable image.
    """
    from cfs_storage_composefs.erofs.read import referenced_objects

    with store.content(digest).open() as file:
        return {bytes.fromhex(name) for name in referenced_objects(file.read())}


def referenced_by(catalog: Catalog, store: Store, category: str, name: str, digest: bytes) -> set[bytes]:
    """Return what one entry of images/ or streams/ needs directly, its own object included.

    Raises:
        StorageError: missing or damaged.
    """
    if category == "images":
        return {digest} | image_objects(store, digest)
    with catalog.open_object(digest, name) as stream:
        return {digest, *stream.object_refs, *stream.stream_refs}


class Collector:
    """One run over one repository."""

    def __init__(self, directory: RepositoryDirectory, objects: ObjectStore, catalog: Catalog) -> None:
        self._directory = directory
        self._objects = objects
        self._catalog = catalog
        self._live: set[bytes] = set()

    def run(self, keep: Iterable[bytes], *, dry_run: bool) -> GcReport:
        """Find what is live and remove the rest: links first, so that a killed run leaves no link to half of something.

        Raises:
            StorageError: something live is missing or damaged; nothing was removed.
            OSError: a removal failed; running again goes on.
        """
        linked = {category: self._directory.names(category) for category in CATEGORIES}
        refs = {category: self._directory.refs(category) for category in CATEGORIES}
        roots = {digest.hex(): digest for digest in keep}
        for digest in self._roots(linked["images"], refs["images"], roots):
            self._live |= {digest} | image_objects(self._objects, digest)
        self._walk(self._roots(linked["streams"], refs["streams"], roots))
        self._live |= set(roots.values())

        # Names go before what they name, with a sync between: after a power failure no name leads to an object that is
        # gone.
        removed = self._remove_links(linked, refs, dry_run=dry_run)
        if not dry_run:
            self._objects.remove_temporary()
            self._directory.remove_temporary()
            self._directory.sync()
        count = freed = kept = 0
        for digest in self._objects.names():
            if digest in self._live:
                kept += 1
                continue
            count += 1
            freed += self._objects.size(digest) or 0
            removed.append(f"objects/{object_path(digest)}")
            if not dry_run:
                self._objects.remove(digest)
        return GcReport(
            objects_removed=count, bytes_freed=freed, objects_kept=kept, removed=tuple(removed[:_NAMES_REPORTED])
        )

    @staticmethod
    def _roots(linked: dict[str, bytes], refs: dict[str, str], extra: dict[str, bytes]) -> set[bytes]:
        return {linked[name] for name in {*refs.values(), *extra} if name in linked}

    def _walk(self, roots: set[bytes]) -> None:
        """Mark streams and everything they lead to. A reference to an EROFS image keeps just that object."""
        pending = sorted(roots)
        seen = set(pending)
        while pending:
            digest = pending.pop()
            self._live.add(digest)
            try:
                with self._catalog.open_object(digest, f"stream {digest.hex()}") as stream:
                    self._live.update(stream.object_refs)
                    images = {
                        target for name, target in stream.named_refs.items() if name.startswith("composefs.image")
                    }
                    self._live |= images
                    below = set(stream.stream_refs) - images - seen
            except (MissingError, DamagedError) as error:
                msg = f"garbage cannot be told from content: {error.message}"
                raise DamagedError(msg, hint="pull that image again or remove its tag (cfs image rm)") from error
            seen |= below
            pending += sorted(below)

    def _remove_links(
        self, linked: dict[str, dict[str, bytes]], refs: dict[str, dict[str, str]], *, dry_run: bool
    ) -> list[str]:
        """Remove refs that lead nowhere, then entries whose object will go or is gone already."""
        going = []
        for category in CATEGORIES:
            staying = {
                name for name, digest in linked[category].items() if digest in self._live and digest in self._objects
            }
            going += [f"{category}/refs/{path}" for path, name in refs[category].items() if name not in staying]
            going += [f"{category}/{name}" for name in linked[category] if name not in staying]
        if not dry_run:
            for path in going:
                self._directory.unlink(path)
        return going
