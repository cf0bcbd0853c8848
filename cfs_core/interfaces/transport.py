"""Where images come from, and where copies of them go."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cfs_core.errors import RefusedError, TransportError
from cfs_core.interfaces.retry import RetryPolicy
from cfs_core.model.reference import ImageReference, split_scheme

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from cfs_core.model.digest import Digest
    from cfs_core.model.manifest import Descriptor

MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes; the distribution specification asks registries to accept at least this much, and few accept more."""


@dataclass(frozen=True, slots=True)
class RunningImage:
    """The image that this process runs in. ``source`` is a reference to it; ``name`` where updates of it come from."""

    source: str
    """As `--source-imgref` takes it."""

    name: str | None = None
    """None where it is not known."""


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
    """Where images come from: says where the bytes are, once. Limits, digests, resuming and retries are `Fetcher`'s.

    A transport that blocks in calls (sockets) has them broken off by the ``stop`` of its context's ``retrier``.
    """

    retry: RetryPolicy = RetryPolicy()
    """How core tries again; a source that answers the same each time says ``RetryPolicy(attempts=1)``."""

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
    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Return media type (as the source states it, or empty) and raw bytes of what *reference* names.

        ``reference.digest``, if set, wins over the tag. Read at most `MANIFEST_LIMIT` + 1 bytes.

        Raises:
            NotFoundError: no such image.
            TransportError: anything else that kept it from being fetched.
        """

    @abc.abstractmethod
    def open_blob(
        self, reference: ImageReference, descriptor: Descriptor, offset: int
    ) -> AbstractContextManager[Iterable[bytes]]:
        """Open a blob at *offset* bytes; chunks of any size.

        A transport that cannot start in the middle raises `CannotResumeError` for a non-zero offset.
        Raise `TransportError` with ``transient=True`` for what is worth another attempt, and ``retry_after`` in seconds
        if the source says when.
        """

    def open_uncompressed_layer(
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


class CannotResumeError(TransportError):
    """The source only delivers a blob from its start."""

    code = "transport.cannot-resume"


def skip_bytes(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Yield what *chunks* bring after their first *count* bytes: for sources that only begin at the start."""
    for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
            continue
        yield chunk[count:] if count else chunk
        count = 0
