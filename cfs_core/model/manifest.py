"""OCI manifests and configurations as facts (image-spec 1.1), always beside the raw bytes that were hashed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.model.digest import Digest
    from cfs_core.model.reference import ImageReference


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system and architecture in Go's names: ``linux``, ``amd64``, variant ``v8``."""

    os: str
    """``linux``."""

    architecture: str
    """``amd64``."""

    variant: str | None = None
    """``v8``; None where the image names none."""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A blob that is named by digest and size (bytes)."""

    media_type: str
    """What the blob is said to be."""

    digest: Digest
    """What its bytes must hash to."""

    size: int
    """In bytes; more or fewer are an error."""

    annotations: Mapping[str, str] = field(default_factory=dict)
    """Free words of who made it."""

    platform: Platform | None = None
    """In an index: what the image is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest. ``raw`` are the bytes that were hashed; they are never re-serialised."""

    raw: bytes = field(repr=False)
    """As they came."""

    digest: Digest
    """Of ``raw``."""

    media_type: str
    """OCI's or Docker's."""

    config: Descriptor
    """The configuration's blob."""

    layers: tuple[Descriptor, ...]
    """Lowest first."""

    annotations: Mapping[str, str] = field(default_factory=dict)
    """Free words of who made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image configuration. ``diff_ids`` are digests of the uncompressed layers, lowest first."""

    raw: bytes = field(repr=False)
    """The bytes that were hashed."""

    digest: Digest
    """Of ``raw``."""

    platform: Platform
    """What the image is for."""

    labels: Mapping[str, str]
    """Labels, as `podman image inspect` shows them."""

    diff_ids: tuple[Digest, ...]
    """One for each layer."""

    created: str | None = None
    """As written there (RFC 3339)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """A reference turned into one manifest for one platform; after this only digests travel.

    ``reference`` is what was asked for, ``canonical`` the full name of what was found: policies judge that one.
    """

    reference: ImageReference
    """What somebody asked for."""

    canonical: ImageReference
    """The same with the digest that was found."""

    manifest: Manifest
    """The manifest, of one platform."""

    config: ImageConfig
    """Its configuration."""
