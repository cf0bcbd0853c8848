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
    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """Choices that decide an identity. None means the storage format's (or an existing repository's) default."""

    version: FormatVersion | None = None
    algorithm: HashAlgorithm | None = None
    keep_user_xattrs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenFormat(FormatOptions):
    """Choices that are made: what decides the identities in a repository."""

    version: FormatVersion
    algorithm: HashAlgorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedImage:
    """An image that a repository holds completely. ``id`` is that of the bootable form, ``plain_id`` of the other."""

    id: ImageId
    plain_id: ImageId
    version: FormatVersion
    algorithm: HashAlgorithm
    manifest_digest: Digest
    config_digest: Digest
    object_count: int = 0
    stored_bytes: int = 0
    """Bytes that were not in the repository before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image as a repository lists it."""

    name: str
    manifest_digest: Digest
    config_digest: Digest
    id: ImageId | None
    architecture: str
    size: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something a check found. ``where`` is an object, stream, image or path."""

    code: str
    where: str
    message: str
    repairable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What garbage collection removed, or would remove."""

    objects_removed: int
    bytes_freed: int
    objects_kept: int
    removed: tuple[str, ...] = ()
    """Names of removed objects, streams and images, at most the first thousand."""
