"""One layer as a verified stream: fetched, decompressed and hashed in a thread of its own, parsed in the caller's."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.archive.decompress import CHUNK, DecompressionLimits, decompress
from cfs_core.archive.tar import TarLimits, read_members
from cfs_core.archive.tar_fields import raising
from cfs_core.errors import ImageError, LimitError, VerificationError
from cfs_core.image.pump import Pump
from cfs_core.interfaces.source_file import FileBytes
from cfs_core.model.event import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from cfs_core.interfaces.context import Progress
    from cfs_core.interfaces.fetcher import Fetcher
    from cfs_core.interfaces.source_file import SourceFile
    from cfs_core.model.digest import Digest
    from cfs_core.model.layer import LayerMember
    from cfs_core.model.manifest import Descriptor, ResolvedImage
    from cfs_core.model.reference import ImageReference


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLimits:
    """What one layer may be."""

    blob_bytes: int = 64 << 30
    """Of the blob as it is transferred."""

    trailer_bytes: int = 64 << 20
    """Behind the end blocks of the tar stream."""

    decompression: DecompressionLimits = field(default_factory=DecompressionLimits)
    tar: TarLimits = field(default_factory=TarLimits)


@contextlib.contextmanager
def open_layer(
    transport: Fetcher,
    image: ResolvedImage,
    index: int,
    *,
    limits: LayerLimits | None = None,
    progress: Progress | None = None,
    emit: Callable[[Event], None] = lambda _event: None,
) -> Generator[VerifiedLayer]:
    """Open layer *index* (0 is the lowest) of *image* as a `LayerStream`.

    Nothing is held but a few chunks. Leaving the context early stops the transfer.

    Raises:
        ImageError, VerificationError, TransportError: while the stream is read; see `VerifiedLayer`.
    """
    limits = limits or LayerLimits()
    source = layer_source(transport, image, index, limits)
    chunks = functools.partial(layer_chunks, source, limits, progress, emit)
    with Pump(chunks, transport.stop) as pump:
        yield VerifiedLayer(pump, source.diff_id, limits, name=layer_name(image, index))


def layer_source(transport: Fetcher, image: ResolvedImage, index: int, limits: LayerLimits) -> LayerSource:
    """Return where layer *index* of *image* comes from.

    Raises:
        LimitError: it announces more bytes than *limits* allow.
    """
    descriptor = image.manifest.layers[index]
    if descriptor.size > limits.blob_bytes:
        msg = f"layer {descriptor.digest} announces {descriptor.size} bytes, more than {limits.blob_bytes}"
        facts = {"limit_bytes": limits.blob_bytes, "setting": "limits.layer-size"}
        raise LimitError(msg, hint=raising("limits.layer-size"), facts=facts)
    return LayerSource(transport, image.reference, descriptor, image.config.diff_ids[index])


def layer_name(image: ResolvedImage, index: int) -> str:
    """Return what messages call layer *index*: ``layer 1 of 7`` is the lowest."""
    return f"layer {index + 1} of {len(image.manifest.layers)}"


class VerifiedLayer:
    """A `LayerStream` over chunks that are verified when they end.

    A damaged transfer is reported as such even where the damage first shows as a malformed archive.

    Raises (from `members`, `content` and `trailer` alike):
        ImageError: malformed, truncated or hostile archive or compression; `LimitError` past a limit.
        VerificationError: size, blob digest or diff-id differ.
        TransportError: the source failed for good.
    """

    def __init__(
        self, chunks: Iterator[bytes], diff_id: Digest, limits: LayerLimits | None = None, *, name: str = "layer"
    ) -> None:
        self.diff_id = diff_id
        self._name = name
        self._limits = limits or LayerLimits()
        self._chunks = chunks
        self._chunk = b""
        self._position = 0
        self._left = 0

    def members(self) -> Iterator[LayerMember]:
        """Yield members in stream order; the last one has no entry and holds the end blocks."""
        try:
            for member in read_members(self, self._limits.tar):
                self._left = member.size
                yield member
                while self._left:
                    self._next_content()
        except ImageError as error:
            if "layer" in error.facts:
                raise
            self._prefer_transfer_error(error)
            raise self._named(error) from error

    def source(self) -> SourceFile | None:
        """Return the file that holds just the current member's content, if there is one; before `content`."""
        if not self._left or self._position < len(self._chunk):
            return None
        self._next_chunk()
        source = self._chunk.source if isinstance(self._chunk, FileBytes) else None
        return source if source is not None and source.size == self._left else None

    def content(self) -> Iterator[bytes]:
        """Yield what is left of the current member's content, in chunks of at most 1 MiB."""
        while self._left:
            yield self._next_content()

    def trailer(self) -> Iterator[bytes]:
        """Yield what follows the archive; the layer is verified when this has ended."""
        seen = 0
        while data := self._some(CHUNK):
            seen += len(data)
            if seen > self._limits.trailer_bytes:
                msg = f"{self._name} has more than {self._limits.trailer_bytes} bytes behind its end"
                facts = {"limit_bytes": self._limits.trailer_bytes, "setting": "limits.layer-trailer"}
                raise LimitError(msg, hint=raising("limits.layer-trailer"), facts=facts)
            yield data

    def read(self, count: int) -> bytes:
        """Return exactly *count* bytes, fewer only at the end."""
        position = self._position
        data = self._chunk[position : position + count]
        self._position = position + len(data)
        if len(data) == count:
            return data
        parts = [data]
        missing = count - len(data)
        while missing and (data := self._some(missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def _some(self, count: int) -> bytes:
        """Return between one and *count* bytes, none at the end."""
        while self._position >= len(self._chunk):
            if not self._next_chunk():
                return b""
        if not self._position and len(self._chunk) <= count:
            self._position = len(self._chunk)
            return self._chunk
        data = self._chunk[self._position : self._position + count]
        self._position += len(data)
        return data

    def _next_chunk(self) -> bool:
        """Take the next chunk from the source; returns False, with an empty one, at the end."""
        try:
            chunk = next(self._chunks, None)
        except ImageError as error:
            raise self._named(error) from error
        self._chunk, self._position = chunk or b"", 0
        return chunk is not None

    def _next_content(self) -> bytes:
        data = self._some(min(self._left, CHUNK))
        if not data:
            error = ImageError(
                "the layer ends in the middle of a file",
                hint="the image was not written completely; make or copy it again",
            )
            self._prefer_transfer_error(error)
            raise self._named(error)
        self._left -= len(data)
        return data

    def _named(self, error: ImageError) -> ImageError:
        """Return *error* with the layer's name in its message."""
        return type(error)(
            f"{self._name}: {error.message}", hint=error.hint, facts={**error.facts, "layer": self._name}
        )

    def _prefer_transfer_error(self, error: ImageError) -> None:
        if isinstance(error, LimitError):
            return
        with contextlib.suppress(ImageError):
            for _ in self._chunks:
                pass


@dataclass(frozen=True, slots=True)
class LayerSource:
    """Which layer, and where it is."""

    transport: Fetcher
    reference: ImageReference
    descriptor: Descriptor
    diff_id: Digest


def layer_chunks(
    source: LayerSource,
    limits: LayerLimits,
    progress: Progress | None,
    emit: Callable[[Event], None] = lambda _event: None,
) -> Iterator[bytes]:
    """Yield the uncompressed layer; the last step raises unless all digests are right."""
    descriptor, diff_id = source.descriptor, source.diff_id
    opened = source.transport.open_layer_uncompressed(source.reference, descriptor, diff_id)
    if opened is None:
        yield from verified(uncompressed(blob_chunks(source, progress), descriptor, limits, emit), descriptor, diff_id)
        return
    with opened as stored:
        cut = (piece for chunk in _counted(stored, _task(descriptor), None, progress) for piece in _cut(chunk))
        yield from verified(cut, descriptor, diff_id)


def blob_chunks(source: LayerSource, progress: Progress | None) -> Iterator[bytes]:
    """Yield the layer's blob as it is transferred; the last step raises unless size and digest are right."""
    blob = source.transport.iter_blob(source.reference, source.descriptor)
    return _counted(blob, _task(source.descriptor), source.descriptor.size, progress)


def uncompressed(
    blob: Iterator[bytes], descriptor: Descriptor, limits: LayerLimits, emit: Callable[[Event], None]
) -> Iterator[bytes]:
    """Yield the bytes of a layer whose *blob* is what *descriptor* says; *blob* is read to its end in any case.

    Raises:
        ImageError: damaged, truncated or of a compression that no image may have; `LimitError` past a limit.
    """

    def mismatch(what: str) -> None:
        facts = {"layer": str(descriptor.digest), "problem": f"the layer is {what}; its contents are right"}
        emit(Event(name="layer.media-type-wrong", facts=facts, warning=True))

    try:
        yield from decompress(blob, descriptor.media_type, limits.decompression, mismatch=mismatch)
    except LimitError:
        raise
    except ImageError:
        for _ in blob:  # a digest that differs explains the damage better
            pass
        raise
    for _ in blob:
        pass


def verified(chunks: Iterator[bytes], descriptor: Descriptor, diff_id: Digest) -> Iterator[bytes]:
    """Yield *chunks*; the last step raises unless all of them together have *diff_id*.

    Raises:
        VerificationError: they have another digest.
    """
    hasher = diff_id.algorithm.new()
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != diff_id.hex:
        msg = f"layer {descriptor.digest} is not, uncompressed, what the image's config says"
        raise VerificationError(
            msg, facts={"expected": str(diff_id), "found": f"{diff_id.algorithm}:{hasher.hexdigest()}"}
        )


def _task(descriptor: Descriptor) -> str:
    return f"layer {descriptor.digest.hex[:12]}"


def _counted(chunks: Iterable[bytes], task: str, total: int | None, progress: Progress | None) -> Iterator[bytes]:
    if progress is None:
        yield from chunks
        return
    progress.start(task, total=total)
    try:
        for chunk in chunks:
            progress.advance(task, len(chunk))
            yield chunk
    finally:
        progress.finish(task)


def _cut(chunk: bytes) -> Iterator[bytes]:
    if len(chunk) <= CHUNK:
        yield chunk
        return
    for start in range(0, len(chunk), CHUNK):
        yield chunk[start : start + CHUNK]
