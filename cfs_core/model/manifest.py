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
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A blob that is named by digest and size (bytes)."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest. ``raw`` are the bytes that were hashed; they are never re-serialised."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image configuration. ``diff_ids`` are digests of the uncompressed layers, lowest first."""

    raw: bytes = field(repr=False)
    digest: Digest
    platform: Platform
    labels: Mapping[str, str]
    diff_ids: tuple[Digest, ...]
    created: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """A reference turned into one manifest for one platform; after this only digests travel.

    ``reference`` is what was asked for, ``canonical`` the full name of what was found: policies judge that one.
    """

    reference: ImageReference
    canonical: ImageReference
    manifest: Manifest
    config: ImageConfig
