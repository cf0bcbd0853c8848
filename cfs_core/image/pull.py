"""Bringing an image into a repository, and its layers together to a tree."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.archive.tar_fields import shown
from cfs_core.errors import HostError, ImageError
from cfs_core.image.layers import blob_chunks, layer_name, layer_source, open_layer
from cfs_core.image.limits import ImageLimits
from cfs_core.image.merge import merge_layers
from cfs_core.image.parallel import run_parallel
from cfs_core.model.event import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cfs_core.image.layers import LayerLimits
    from cfs_core.image.workers.pool import LayerWorkers
    from cfs_core.interfaces.context import Progress
    from cfs_core.interfaces.fetcher import Fetcher
    from cfs_core.interfaces.storage import Identifier
    from cfs_core.model.manifest import ResolvedImage
    from cfs_core.model.tree import Directory


TAG_BYTES = 255
"""A tag becomes a file name in which each ``/`` takes three bytes."""

# More gains little: Python runs one thread at a time (docs/explain/performance.md), and each layer holds a connection
# to the registry.
PARALLEL = 3
"""Layers on their way at the same time in one process. Each holds a few chunks of up to 1 MiB, whatever its size."""

# While a layer waits for the disk, its worker has the next one.
WAITING = 2
"""Layers on their way beyond those that workers have."""


def pull_layers(
    transport: Fetcher,
    image: ResolvedImage,
    repository: Identifier,
    *,
    progress: Progress,
    emit: Callable[[Event], None],
    parallel: int = PARALLEL,
    workers: int | None = None,
    verify: bool = False,
    limits: ImageLimits | None = None,
) -> int:
    """Fetch the layers that *repository* lacks, largest first, and return how many were fetched.

    With *verify*, layers that it has are hashed again and those that are not what they should be fetched anew.
    *workers* is the number of processes that import; None: as many as is worth it, 1: this one alone, which then has
    *parallel* layers at a time.

    The first error, or a signal, ends the other transfers at once; layers that were complete by then stay.

    Raises:
        TransportError, VerificationError, ImageError, StorageError: nothing of the failing layer is published.
        HostError: a worker process was killed, or those that *workers* asks for cannot be started.
    """
    missing = {diff_id: index for index, diff_id in reversed(list(enumerate(image.config.diff_ids)))}
    wanted = [
        index
        for diff_id, index in missing.items()
        if not (repository.has_layer(diff_id) and (not verify or repository.verify_layer(diff_id)))
    ]
    # The largest decides how long all take; begun last, it would run alone at the end.
    wanted.sort(key=lambda index: -image.manifest.layers[index].size)
    pull = _Pull(transport, image, repository, progress, emit, (limits or ImageLimits()).layer)

    def report(index: int) -> None:
        facts = {"diff_id": str(image.config.diff_ids[index]), "size_bytes": image.manifest.layers[index].size}
        emit(Event(name="layer.stored", facts=facts))

    with contextlib.ExitStack() as stack:
        job = repository.layer_job()
        count = 0 if job is None or pull.has_uncompressed(wanted) else pull.worker_count(wanted, workers)
        if job is not None and count:
            from cfs_core.image.workers.pool import LayerWorkers

            try:
                pull.workers = stack.enter_context(LayerWorkers(job, count, transport.stop))
                parallel = count + WAITING
            except HostError:
                # Somebody may run a Python that they may not start again, or have no process left: one does it as well.
                if workers is not None:
                    raise
        run_parallel(
            [functools.partial(pull.fetch, index) for index in wanted], parallel, [transport.stop], done=report
        )
    return len(wanted)


@dataclass(slots=True)
class _Pull:
    """One pull; its methods are called from several threads."""

    transport: Fetcher
    image: ResolvedImage
    repository: Identifier
    progress: Progress
    emit: Callable[[Event], None]
    limits: LayerLimits
    workers: LayerWorkers | None = None

    def worker_count(self, wanted: Sequence[int], asked: int | None) -> int:
        """Return how many workers these layers are worth."""
        from cfs_core.image.workers.pool import worker_count

        return worker_count([self.image.manifest.layers[index].size for index in wanted], asked)

    def has_uncompressed(self, wanted: Sequence[int]) -> bool:
        """Return whether layers come out of files that storage may share: those stay in the process that opens them."""
        return bool(wanted) and self._uncompressed(wanted[0]) is not None

    def _uncompressed(self, index: int) -> object:
        descriptor, diff_id = self.image.manifest.layers[index], self.image.config.diff_ids[index]
        return self.transport.open_layer_uncompressed(self.image.reference, descriptor, diff_id)

    def fetch(self, index: int) -> int:
        """Bring one layer into the repository; return *index*."""
        if self.workers is not None and self._uncompressed(index) is None:
            self._have_fetched(self.workers, index)
            return index
        with open_layer(
            self.transport, self.image, index, limits=self.limits, progress=self.progress, emit=self.emit
        ) as layer:
            self.repository.import_layer(layer)
        return index

    def _have_fetched(self, workers: LayerWorkers, index: int) -> None:
        from cfs_core.image.workers.channel import LayerTask

        source = layer_source(self.transport, self.image, index, self.limits)
        task = LayerTask(
            descriptor=source.descriptor,
            diff_id=source.diff_id,
            limits=self.limits,
            name=layer_name(self.image, index),
        )
        chunks = functools.partial(blob_chunks, source, self.progress)
        self.repository.import_with_job(source.diff_id, lambda: workers.run(task, chunks, self.emit))


def tag_of(reference: str) -> str | None:
    """Return *reference* as a tag; None where it is too long for one (the manifest's digest is used then)."""
    return reference if len(reference.encode()) + 2 * reference.count("/") <= TAG_BYTES else None


def merged_tree(
    repository: Identifier,
    image: ResolvedImage,
    *,
    emit: Callable[[Event], None] | None = None,
    limits: ImageLimits | None = None,
) -> Directory:
    """Return the merged tree of an image whose layers *repository* holds, before any canonical form.

    Directories that no layer names are told once, by an event: composefs-rs refuses such an image.
    """
    implied: list[bytes] = []
    allowed = limits or ImageLimits()
    contradictions: list[tuple[int, bytes]] = []

    def contradicted(number: int, path: bytes) -> None:
        contradictions.append((number, path))
        if not allowed.contradictions:
            raise _contradiction(number, path)

    layers = (repository.layer_entries(diff_id) for diff_id in image.config.diff_ids)
    tree = merge_layers(layers, entry_limit=allowed.entries, implied=implied.append, contradicted=contradicted)
    if contradictions and emit is not None:
        number, path = contradictions[0]
        facts = {"entries": len(contradictions), "first": shown(path), "layer": number}
        emit(Event(name="image.contradictions-applied", facts=facts, warning=True))
    if implied and emit is not None:
        first = implied[0].decode("utf-8", "backslashreplace")
        facts = {"directories": len(implied), "first": first, "reference": str(image.reference)}
        emit(Event(name="image.directories-implied", facts=facts, warning=True))
    return tree


def _contradiction(number: int, path: bytes) -> ImageError:
    msg = (
        f"layer {number} has {shown(path)} and, later, a whiteout that takes it away: composefs-rs and cfs would leave "
        "it out, umoci keeps it, and podman's overlay store refuses the layer"
    )
    hint = "build the layer anew without one of the two; or set image.contradictions to apply, which leaves it out"
    return ImageError(msg, hint=hint, code="image.contradiction", facts={"layer": number, "path": shown(path)})
