"""Bringing an image into a repository, and its layers together to a tree."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cfs_core.archive.tar_fields import shown
from cfs_core.errors import ImageError
from cfs_core.image.layers import open_layer
from cfs_core.image.limits import ImageLimits
from cfs_core.image.merge import merge_layers
from cfs_core.image.parallel import run_parallel
from cfs_core.model.event import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfs_core.interfaces.context import Progress
    from cfs_core.interfaces.fetcher import Fetcher
    from cfs_core.interfaces.storage import Identifier
    from cfs_core.model.manifest import ResolvedImage
    from cfs_core.model.tree import Directory


TAG_BYTES = 255
"""A tag becomes a file name in which each ``/`` takes three bytes."""

# More gains little: hashing and unpacking of three keep two processors only 1.3 times as busy as one
# (docs/explain/performance.md), and each layer holds a connection to the registry.
PARALLEL = 3
"""Layers on their way at the same time. Each holds a few chunks of up to 1 MiB, whatever its size."""


def pull_layers(
    transport: Fetcher,
    image: ResolvedImage,
    repository: Identifier,
    *,
    progress: Progress,
    emit: Callable[[Event], None],
    parallel: int = PARALLEL,
    verify: bool = False,
    limits: ImageLimits | None = None,
) -> int:
    """Fetch the layers that *repository* lacks, largest first, and return how many were fetched.

    With *verify*, layers that it has are hashed again and those that are not what they should be fetched anew.

    The first error, or a signal, ends the other transfers at once; layers that were complete by then stay.

    Raises:
        TransportError, VerificationError, ImageError, StorageError: nothing of the failing layer is published.
    """
    allowed = limits or ImageLimits()
    missing = {diff_id: index for index, diff_id in reversed(list(enumerate(image.config.diff_ids)))}
    wanted = [
        index
        for diff_id, index in missing.items()
        if not (repository.has_layer(diff_id) and (not verify or repository.verify_layer(diff_id)))
    ]
    # The largest decides how long all take; begun last, it would run alone at the end.
    wanted.sort(key=lambda index: -image.manifest.layers[index].size)

    def fetch(index: int) -> int:
        with open_layer(transport, image, index, limits=allowed.layer, progress=progress, emit=emit) as layer:
            repository.import_layer(layer)
        return index

    def report(index: int) -> None:
        facts = {"diff_id": str(image.config.diff_ids[index]), "size_bytes": image.manifest.layers[index].size}
        emit(Event(name="layer.stored", facts=facts))

    run_parallel([functools.partial(fetch, index) for index in wanted], parallel, [transport.stop], done=report)
    return len(wanted)


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
