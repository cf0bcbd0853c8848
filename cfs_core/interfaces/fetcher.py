"""Images through a transport, as all of cfs reads them: within limits, verified, resumed, tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cfs_core.errors import LimitError, TransportError, TruncatedError, VerificationError
from cfs_core.interfaces.retry import Retrier
from cfs_core.interfaces.transport import MANIFEST_LIMIT, CannotResumeError, skip_bytes
from cfs_core.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import Self

    from cfs_core.interfaces.stop import StopSignal
    from cfs_core.interfaces.transport import ImageWriter, Transport
    from cfs_core.model.manifest import Descriptor
    from cfs_core.model.reference import ImageReference

T = TypeVar("T")

CONFIG_LIMIT = 8 * 1024 * 1024
"""The longest image configuration that is read, in bytes."""

MANIFEST_MEDIA_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
"""What is asked for where an image is named: manifests and indexes, OCI's and Docker's."""


class ImageLocation(NamedTuple):
    """Where an image is, or is to be: its reference, parsed, and what reads and writes there."""

    transport: Fetcher
    reference: ImageReference


class Fetcher:
    """What core and policies use of a transport: ``transport`` says where bytes are, this says whether to believe them.

    ``retrier`` is the one that the transport's context has, so that both spend one budget and end by one signal.
    """

    def __init__(self, transport: Transport, retrier: Retrier | None = None) -> None:
        self.transport = transport
        self.retrier = retrier or Retrier()
        self.retrier.policy = transport.retry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stop(self) -> StopSignal:
        """Ends what is under way."""
        return self.retrier.stop

    def parse(self, text: str) -> ImageReference:
        """See `Transport.parse`."""
        return self.transport.parse(text)

    def canonical(self, reference: ImageReference) -> ImageReference:
        """See `Transport.canonical`."""
        return self.transport.canonical(reference)

    def referrers(
        self, reference: ImageReference, digest: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """List artifacts (signatures, attestations) that refer to *digest*; empty where the source cannot tell.

        Raises:
            TransportError: for good.
        """
        return tuple(self.retrier.run(lambda: self.transport.referrers(reference, digest, artifact_type)))

    def open_writer(self, reference: ImageReference) -> ImageWriter:
        """See `Transport.open_writer`."""
        return self.transport.open_writer(reference)

    def close(self) -> None:
        """Give back what the transport holds."""
        self.transport.close()

    def retrying(self, action: Callable[[], T]) -> T:
        """Run *action*, again after transient errors, within the budget.

        Raises:
            TransportError: for good.
        """
        return self.retrier.run(action)

    def fetch_manifest(self, reference: ImageReference, *, expected: Digest | None = None) -> tuple[str, bytes]:
        """Fetch a manifest or index and check it against *expected*, or the reference's own digest.

        Raises:
            LimitError: longer than `MANIFEST_LIMIT`.
            VerificationError: other bytes than the digest names.
        """
        media_type, raw = self.retrier.run(lambda: self.transport.read_manifest(reference, MANIFEST_MEDIA_TYPES))
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
                failures = self.retrier.after(error, failures, gained=seen - begun_at)
        if hasher.hexdigest() != descriptor.digest.hex:
            msg = f"blob {descriptor.digest} has other content than its digest says"
            raise VerificationError(msg, facts={"expected": str(descriptor.digest), "found": hasher.hexdigest()})

    def _chunks(self, reference: ImageReference, descriptor: Descriptor, offset: int) -> Iterator[bytes]:
        try:
            try:
                with self.transport.open_blob(reference, descriptor, offset) as chunks:
                    yield from chunks
            except CannotResumeError:
                with self.transport.open_blob(reference, descriptor, 0) as chunks:
                    yield from skip_bytes(chunks, offset)
        except OSError as error:
            msg = f"blob {descriptor.digest} of {reference} cannot be read: {error}"
            raise TransportError(msg) from error

    def open_layer_uncompressed(
        self, reference: ImageReference, descriptor: Descriptor, diff_id: Digest
    ) -> AbstractContextManager[Iterable[bytes]] | None:
        """Return the layer as stored uncompressed, or None; the caller checks *diff_id* over it."""
        return self.transport.open_uncompressed_layer(reference, descriptor, diff_id)
