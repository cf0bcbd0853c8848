"""Copying an image between two transports, byte for byte: every digest stays what it was."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from cfs_core.errors import CfsError, ImageError, LimitError, TransportError
from cfs_core.image.manifest import INDEX_LIMIT, INDEX_TYPES, LAYERS_LIMIT, media_type_of, parse_descriptor
from cfs_core.image.parallel import run_parallel
from cfs_core.image.pump import Pump
from cfs_core.image.resolve import resolve
from cfs_core.model.digest import Digest
from cfs_core.model.event import Event
from cfs_core.model.manifest import Descriptor
from cfs_core.system.strict_json import JsonFields, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfs_core.interfaces.context import Progress
    from cfs_core.interfaces.fetcher import Fetcher
    from cfs_core.interfaces.transport import ImageWriter
    from cfs_core.model.manifest import Platform
    from cfs_core.model.reference import ImageReference

PARALLEL = 3
"""Blobs that are copied at the same time."""

# As in `resolve`: each level is one more request for what nobody trusts yet.
INDEX_DEPTH = 4


def copy_image(
    source: Fetcher,
    reference: ImageReference,
    destination: Fetcher,
    target: ImageReference,
    *,
    platform: Platform | None = None,
    progress: Progress,
    emit: Callable[[Event], None],
) -> Digest:
    """Copy what *reference* names to *target* and return the digest it has in both places.

    From an index everything is copied, or only the image for *platform* if one is given. Blobs that the target has are
    not copied again; the target's name appears last.

    Raises:
        RefusedError: *target* cannot be written to.
        TransportError, VerificationError, ImageError: nothing is visible at the target then.
    """
    stated, raw = source.fetch_manifest(reference)
    media_type = media_type_of(parse_json(raw, f"manifest of {reference}"), stated)
    if platform is not None and media_type in INDEX_TYPES:
        chosen = resolve(source, reference, platform).manifest
        raw, media_type = chosen.raw, chosen.media_type
    top = Descriptor(media_type=media_type, digest=Digest.of(raw), size=len(raw))
    with destination.open_writer(target) as writer:
        copier = _Copier(source, reference, destination, writer, progress)
        copier.manifest(top, raw, depth=0)
    emit(Event(name="image.copied", facts={"digest": str(top.digest), "source": str(reference), "target": str(target)}))
    return top.digest


@dataclasses.dataclass(frozen=True, slots=True)
class BlobCopier:
    """Copies single blobs of an image, each where the destination has it not."""

    source: Fetcher
    reference: ImageReference
    destination: Fetcher
    writer: ImageWriter
    progress: Progress

    def copy(self, descriptor: Descriptor) -> None:
        """Copy one blob. Called from any thread.

        Raises:
            TransportError, VerificationError: it is not there then.
        """
        if self.destination.retrying(lambda: self.writer.has_blob(descriptor)):
            return
        self.destination.retrying(lambda: self._put(descriptor))

    def _put(self, descriptor: Descriptor) -> None:
        with Pump(lambda: self.source.iter_blob(self.reference, descriptor), self.source.stop) as pump:
            chunks = _Read(pump, descriptor, self.progress)
            try:
                self.writer.put_blob(descriptor, chunks)
            except TransportError as error:
                # the source has spent its own tries already
                raise chunks.error or error from None
            finally:
                chunks.close()


@dataclasses.dataclass(frozen=True, slots=True)
class _Copier(BlobCopier):
    """Copies an image: what its manifests name, each once, and then they."""

    done: set[Digest] = dataclasses.field(default_factory=set)

    def manifest(self, descriptor: Descriptor, raw: bytes, *, depth: int) -> None:
        """Copy what a manifest or index names, then itself."""
        if descriptor.digest in self.done:
            return
        self.done.add(descriptor.digest)
        blobs, manifests = _parts(descriptor, raw)
        if manifests and depth >= INDEX_DEPTH:
            msg = f"{self.reference} nests indexes deeper than {INDEX_DEPTH} levels"
            raise LimitError(msg, facts={"limit": INDEX_DEPTH})
        for part in manifests:
            pinned = dataclasses.replace(self.reference, tag=None, digest=part.digest)
            _, inner = self.source.fetch_manifest(pinned, expected=part.digest)
            self.manifest(part, inner, depth=depth + 1)
        self._blobs([blob for blob in blobs if blob.digest not in self.done])
        self.destination.retrying(lambda: self.writer.put_manifest(descriptor, raw, top=depth == 0))

    def _blobs(self, blobs: list[Descriptor]) -> None:
        unique = {blob.digest: blob for blob in blobs}
        self.done.update(unique)
        jobs = [functools.partial(self.copy, one) for one in sorted(unique.values(), key=lambda blob: -blob.size)]
        run_parallel(jobs, PARALLEL, [self.source.stop, self.destination.stop], done=lambda _: None)


class _Read:
    """A blob as it is read, with progress; remembers that it was the source that failed."""

    def __init__(self, chunks: Iterator[bytes], descriptor: Descriptor, progress: Progress) -> None:
        self._chunks = chunks
        self._task = f"blob {descriptor.digest.hex[:12]}"
        self._progress = progress
        self.error: CfsError | None = None
        progress.start(self._task, total=descriptor.size)

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self._progress.advance(self._task, len(chunk))
                yield chunk
        except TransportError as error:
            self.error = _final(error)
            raise self.error from error
        except CfsError as error:
            self.error = error
            raise

    def close(self) -> None:
        """End the task."""
        self._progress.finish(self._task)


def _final(error: TransportError) -> TransportError:
    """Return *error* as one that is not worth another try."""
    error.transient = False
    return error


def _parts(descriptor: Descriptor, raw: bytes) -> tuple[list[Descriptor], list[Descriptor]]:
    """Return the blobs and the manifests that a manifest or index names, artifacts included."""
    fields = parse_json(raw, f"manifest {descriptor.digest}")
    if descriptor.media_type in INDEX_TYPES:
        return [], list(_descriptors(fields, "manifests", INDEX_LIMIT))
    if not fields.has("config"):
        msg = f"manifest {descriptor.digest} has no config"
        raise ImageError(msg)
    return [parse_descriptor(fields.nested("config")), *_descriptors(fields, "layers", LAYERS_LIMIT)], []


def _descriptors(fields: JsonFields, name: str, limit: int) -> Iterator[Descriptor]:
    for number, each in enumerate(fields.array(name, limit), 1):
        yield parse_descriptor(JsonFields(each, f"{name} {number} of {fields.where}"))
