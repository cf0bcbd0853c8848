"""Who is writing to a repository in this process, and what goes again when a writer fails."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from cfs_core.plugin import StorageError
from cfs_storage_composefs.errors import LockedError
from cfs_storage_composefs.repository.identify import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_storage_composefs.objects.store import ObjectStore
    from cfs_storage_composefs.repository.catalog import Catalog
    from cfs_storage_composefs.repository.directory import RepositoryDirectory


class Writers:
    """Counts writers, so that nobody collects garbage (or cleans up) under one of them."""

    def __init__(self, directory: RepositoryDirectory, objects: ObjectStore, catalog: Catalog) -> None:
        self._directory = directory
        self._objects = objects
        self._catalog = catalog
        self._lock = threading.Lock()
        self._count = 0
        self._before: Mapping[str, Mapping[str, bytes]] | None = None
        self._leftovers: list[bytes] = []

    @contextlib.contextmanager
    def writing(self) -> Iterator[list[bytes]]:
        """Yield a list for the digests of new objects; if the block fails, they go again where that is safe.

        Raises:
            ReadOnlyError: the repository has features that we would break.
        """
        self._directory.require_writable()
        with self._lock:
            if not self._count:
                self._before = self._links()
                self._leftovers = []
            # Taken before the first of several writers, and not again: what any of them has published by the end is a
            # difference.
            self._count += 1
        created: list[bytes] = []
        try:
            yield created
        except BaseException:
            with self._lock:
                self._leftovers += created
            raise
        finally:
            with self._lock:
                self._count -= 1
                if not self._count and self._leftovers:
                    # what is left stays for the next garbage collection; the first error is the one to report
                    with contextlib.suppress(StorageError, OSError):
                        self._discard_leftovers()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the exclusive lock, asked for without waiting; no writer can begin in this process.

        Raises:
            LockedError: somebody writes, or somebody else has the repository open.
        """
        with self._lock:
            if self._count:
                msg = f"the repository at {self._directory.path} is being written to by this process"
                raise LockedError(msg, hint="wait until pulls and installs are done, then try again")
            with self._exclusive():
                yield

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            with self._directory.exclusive():
                self._objects.forget()
                yield
        finally:
            # a refusal gave the shared lock up for a moment, too: others may have removed objects
            self._objects.forget()

    def _links(self) -> Mapping[str, Mapping[str, bytes]] | None:
        try:
            return {category: self._directory.names(category) for category in CATEGORIES}
        except (StorageError, OSError):
            return None

    def _discard_leftovers(self) -> None:
        """Remove objects of failed writers, unless something that was published meanwhile refers to them."""
        from cfs_storage_composefs.repository.garbage import referenced_by

        leftovers, self._leftovers = self._leftovers, []
        if self._before is None:
            return
        with self._exclusive():
            needed: set[bytes] = set()
            for category in CATEGORIES:
                for name, digest in self._directory.names(category).items():
                    if self._before[category].get(name) != digest:
                        needed |= referenced_by(self._catalog, self._objects, category, name, digest)
            for digest in leftovers:
                if digest not in needed:
                    self._objects.remove(digest)
