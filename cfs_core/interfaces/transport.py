"""Where images come from, and where copies of them go."""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar, final

from cfs_core.errors import LimitError, RefusedError, TransportError, TruncatedError, VerificationError
from cfs_core.interfaces.retry import RetryBudget, RetryPolicy
from cfs_core.interfaces.stop import StopSignal
from cfs_core.model.digest import Digest
from cfs_core.model.reference import ImageReference, split_scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from cfs_core.model.manifest import Descriptor

T = TypeVar("T")

MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes; the distribution specification asks registries to accept at least this much, and few accept more."""

CONFIG_LIMIT = 8 * 1024 * 1024

MANIFEST_MEDIA_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


@dataclass(frozen=True, slots=True)
class RunningImage:
    """The image that this process runs in. ``source`` is a reference to it; ``name`` where updates of it come from."""

    source: str
    name: str | None = None


class ImageWriter(abc.ABC):
    """Where one image is put: blobs first, then manifests. Left early (a context manager), nothing is visible."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def has_blob(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is there already."""

    @abc.abstractmethod
    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob. *chunks* raises at its end if the content is wrong: publish nothing before it has ended.

        Raises:
            TransportError: it could not be stored.
        """

    @abc.abstractmethod
    def put_manifest(self, descriptor: Descriptor, raw: bytes, *, top: bool) -> None:
        """Store a manifest or index whose parts are there; *top* is the last one, which gets the reference's name.

        Raises:
            TransportError: it could not be stored.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give back connections; remove what was not published."""


class Transport(abc.ABC):
    """Where images come from. Plugins implement the ``_`` methods; core owns limits, digests, resuming and retries."""

    retry: RetryPolicy = RetryPolicy()

    @functools.cached_property
    def stop(self) -> StopSignal:
        """Ends what is under way. A transport that blocks in calls (sockets) has them broken off by its `on_stop`."""
        return StopSignal()

    @functools.cached_property
    def pause(self) -> Callable[[float], None]:
        """What waits between two tries; ends with `stop`."""
        return self.stop.wait

    def parse(self, text: str) -> ImageReference:
        """Turn ``scheme:rest`` into a reference. The default takes everything after the scheme as the name.

        Raises:
            UsageError: not in this transport's grammar.
        """
        scheme, rest = split_scheme(text)
        return ImageReference(scheme=scheme, name=rest, text=text)

    def canonical(self, reference: ImageReference) -> ImageReference:
        """Return what policies judge: the full name of what *reference*, which was fetched before, turned out to be.

        Nothing abbreviated, no default left out, ``text`` and ``digest`` as they were. The default returns
        *reference* itself: right where the grammar has no abbreviations.
        """
        return reference

    @abc.abstractmethod
    def _fetch_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Return media type (as the source states it, or empty) and raw bytes of what *reference* names.

        ``reference.digest``, if set, wins over the tag. Read at most `MANIFEST_LIMIT` + 1 bytes.

        Raises:
            NotFoundError: no such image.
            TransportError: anything else that kept it from being fetched.
        """

    @abc.abstractmethod
    def _open_blob(
        self, reference: ImageReference, descriptor: Descriptor, offset: int
    ) -> AbstractContextManager[Iterable[bytes]]:
        """Open a blob at *offset* bytes; chunks of any size.

        A transport that cannot start in the middle raises `CannotResumeError` for a non-zero offset.
        Raise `TransportError` with ``transient=True`` for what is worth another attempt, and ``retry_after`` in seconds
        if the source says when.
        """

    def _open_layer_uncompressed(
        self, reference: ImageReference, descriptor: Descriptor, diff_id: Digest
    ) -> AbstractContextManager[Iterable[bytes]] | None:
        """Return the uncompressed layer if this transport holds it that way (containers-storage), else None.

        Where content is read from files of its own, the first chunk of it may be `FileBytes`.
        """
        del reference, descriptor, diff_id
        return None

    def referrers(
        self, reference: ImageReference, digest: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """List artifacts (signatures, attestations) that refer to *digest*; empty where the source cannot tell."""
        del reference, digest, artifact_type
        return ()

    def open_writer(self, reference: ImageReference) -> ImageWriter:
        """Open *reference* for writing; only for providers that declare ``can_write``.

        Raises:
            RefusedError: this transport only reads.
        """
        msg = f"{reference.scheme}: images can only be read from there, not written to"
        raise RefusedError(msg, hint="copy to docker://, oci: or oci-archive:")

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give back connections and locks."""

    @functools.cached_property
    def retries(self) -> RetryBudget:
        """What is left for trying again in this run."""
        return RetryBudget(self.retry, self.pause)

    @final
    def retrying(self, action: Callable[[], T], *, progress: Callable[[], int] | None = None) -> T:
        """Run *action*, again after transient errors, within the budget.

        An action that goes on where it broke off says by *progress* how far (bytes) it is: a try that got further
        starts counting anew, as for blobs.

        Raises:
            TransportError: for good.
        """
        failures = 0
        while True:
            begun_at = progress() if progress is not None else 0
            try:
                return action()
            except TransportError as error:
                gained = progress() - begun_at if progress is not None else 0
                failures = 1 if gained >= self.retry.progress_bytes else failures + 1
                self.retries.wait(error, failures)

    @final
    def fetch_manifest(self, reference: ImageReference, *, expected: Digest | None = None) -> tuple[str, bytes]:
        """Fetch a manifest or index and check it against *expected*, or the reference's own digest.

        Raises:
            LimitError: longer than `MANIFEST_LIMIT`.
            VerificationError: other bytes than the digest names.
        """
        media_type, raw = self.retrying(lambda: self._fetch_manifest(reference, MANIFEST_MEDIA_TYPES))
        if len(raw) > MANIFEST_LIMIT:
            msg = f"the manifest of {reference} is longer than {MANIFEST_LIMIT} bytes"
            raise LimitError(msg, facts={"limit_bytes": MANIFEST_LIMIT})
        wanted = expected or reference.digest
        if wanted is not None and Digest.of(raw, wanted.algorithm) != wanted:
            msg = f"the manifest of {reference} is not the one its digest names"
            raise VerificationError(
                msg, facts={"expected": str(wanted), "found": str(Digest.of(raw, wanted.algorithm))}
            )
        return media_type, raw

    @final
    def fetch_bytes(self, reference: ImageReference, descriptor: Descriptor, *, limit: int = CONFIG_LIMIT) -> bytes:
        """Fetch a small blob (a config) whole.

        Raises:
            LimitError: the descriptor announces more than *limit* bytes.
            VerificationError: size or digest differ.
        """
        if descriptor.size > limit:
            msg = f"blob {descriptor.digest} announces {descriptor.size} bytes, more than {limit}"
            raise LimitError(msg, facts={"limit_bytes": limit})
        return b"".join(self.iter_blob(reference, descriptor))

    @final
    def iter_blob(self, reference: ImageReference, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield a blob's bytes, verified: the last step raises unless size and digest are right.

        A consumer must not publish what it made before the iterator has ended. Interrupted transfers are resumed in
        the middle, within the budget of `retry`.

        Raises:
            VerificationError: too long, or another digest.
            TransportError: the source failed for good (`TruncatedError`: it never sends the whole blob).
        """
        hasher = descriptor.digest.algorithm.new()
        seen = 0
        failures = 0
        while True:
            begun_at = seen
            try:
                for chunk in self._chunks(reference, descriptor, seen):
                    seen += len(chunk)
                    if seen > descriptor.size:
                        msg = f"blob {descriptor.digest} has more than the announced {descriptor.size} bytes"
                        raise VerificationError(msg, facts={"expected_bytes": descriptor.size})
                    hasher.update(chunk)
                    yield chunk
                if seen == descriptor.size:
                    break
                msg = f"blob {descriptor.digest} ended after {seen} of {descriptor.size} bytes"
                raise TruncatedError(
                    msg, transient=True, facts={"expected_bytes": descriptor.size, "found_bytes": seen}
                )
            except TransportError as error:
                failures = 1 if seen - begun_at >= self.retry.progress_bytes else failures + 1
                self.retries.wait(error, failures)
        if hasher.hexdigest() != descriptor.digest.hex:
            msg = f"blob {descriptor.digest} has other content than its digest says"
            raise VerificationError(msg, facts={"expected": str(descriptor.digest), "found": hasher.hexdigest()})

    def _chunks(self, reference: ImageReference, descriptor: Descriptor, offset: int) -> Iterator[bytes]:
        try:
            try:
                with self._open_blob(reference, descriptor, offset) as chunks:
                    yield from chunks
            except CannotResumeError:
                with self._open_blob(reference, descriptor, 0) as chunks:
                    yield from _skip(chunks, offset)
        except OSError as error:
            msg = f"blob {descriptor.digest} of {reference} cannot be read: {error}"
            raise TransportError(msg) from error

    @final
    def open_layer_uncompressed(
        self, reference: ImageReference, descriptor: Descriptor, diff_id: Digest
    ) -> AbstractContextManager[Iterable[bytes]] | None:
        """Return the layer as stored uncompressed, or None; the caller checks *diff_id* over it."""
        return self._open_layer_uncompressed(reference, descriptor, diff_id)


class CannotResumeError(TransportError):
    """The source only delivers a blob from its start."""

    code = "transport.cannot-resume"


def _skip(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
            continue
        yield chunk[count:] if count else chunk
        count = 0
