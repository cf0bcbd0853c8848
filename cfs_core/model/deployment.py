"""Committed images and deployments."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.model.digest import Digest, HashAlgorithm

ImageId = NewType("ImageId", str)
"""Identity of a committed tree (composefs: fs-verity digest of the bootable EROFS image, in hex)."""


class FormatVersion(enum.StrEnum):
    """EROFS layouts of composefs (formats B): V0 and V1 as the C tools write them, V2 as composefs-rs before 0.7."""

    V0 = "v0"
    """Version 0 of the C tools."""

    V1 = "v1"
    """Version 1 of the C tools, the default of composefs storage."""

    V2 = "v2"
    """What composefs-rs wrote before 0.7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """Choices that decide an identity. None means the storage format's (or an existing repository's) default."""

    version: FormatVersion | None = None
    """Layout of the EROFS image."""

    algorithm: HashAlgorithm | None = None
    """Hash of fs-verity, for objects and for the image."""

    keep_user_xattrs: bool = False
    """Whether ``user.*`` attributes of files count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenFormat(FormatOptions):
    """Choices that are made: what decides the identities in a repository."""

    version: FormatVersion
    """Layout of the EROFS image."""

    algorithm: HashAlgorithm
    """Hash of fs-verity, for objects and for the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedImage:
    """An image that a repository holds completely. ``id`` is that of the bootable form, ``plain_id`` of the other."""

    id: ImageId
    """Of the bootable form."""

    plain_id: ImageId
    """Of the image as it is."""

    version: FormatVersion
    """Layout of both EROFS images."""

    algorithm: HashAlgorithm
    """Hash of fs-verity."""

    manifest_digest: Digest
    """The manifest that it was made from."""

    config_digest: Digest
    """The configuration that it was made from."""

    object_count: int = 0
    """Objects that its files are in."""

    stored_bytes: int = 0
    """Bytes that were not in the repository before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image as a repository lists it."""

    name: str
    """The name that it was pulled under."""

    manifest_digest: Digest
    """The manifest."""

    config_digest: Digest
    """The configuration."""

    id: ImageId | None
    """Identity of the bootable form; None where the repository does not say."""

    architecture: str
    """In Go's words: ``amd64``."""

    size: int
    """In bytes, as the repository counts it."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What garbage collection removed, or would remove."""

    objects_removed: int
    """How many."""

    bytes_freed: int
    """Room on the disk, in bytes."""

    objects_kept: int
    """How many are still needed."""

    removed: tuple[str, ...] = ()
    """Names of removed objects, streams and images, at most the first thousand."""
