"""Manifests, indexes and configurations from raw bytes (OCI image-spec 1.1; docker schema 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.model.digest import Digest
from cfs_core.model.manifest import Descriptor, ImageConfig, Manifest, Platform
from cfs_core.system.strict_json import JsonFields, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping


# Engines stop at about 127; whoever has thousands means harm.
LAYERS_LIMIT = 1024
INDEX_LIMIT = 1024
ANNOTATIONS_LIMIT = 1024

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An image index or manifest list: manifests for several platforms, or further indexes."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


def parse_manifest(raw: bytes, media_type: str = "") -> Manifest | Index:
    """Read what a transport returned; *media_type* is what it was said to be (empty: nothing).

    Raises:
        ImageError: malformed, of an unknown type, or of another type than it was said to be.
        LimitError: past a limit of this module or of `strict_json`.
    """
    digest = Digest.of(raw)
    fields = parse_json(raw, f"manifest {_short(digest)}")
    kind = media_type_of(fields, media_type)
    if fields.get("schemaVersion") != 2:  # noqa: PLR2004 - the only version there is
        msg = f"{fields.where} has schemaVersion {fields.get('schemaVersion')!r:.20}, not 2"
        raise ImageError(msg, hint="images in Docker's old schema 1 must be pushed again by a current tool")
    if kind in INDEX_TYPES:
        return _index(raw, digest, kind, fields)
    return _manifest(raw, digest, kind, fields)


def parse_config(raw: bytes) -> ImageConfig:
    """Read an image configuration.

    Raises:
        ImageError: malformed, or without what an image must have.
        LimitError: past a limit of this module or of `strict_json`.
    """
    digest = Digest.of(raw)
    fields = parse_json(raw, f"config {_short(digest)}")
    rootfs = fields.nested("rootfs")
    if rootfs.string("type") != "layers":
        msg = f"'type' in {rootfs.where} is {rootfs.get('type')!r:.100}, not 'layers'"
        raise ImageError(msg)
    labels = fields.nested("config").strings("Labels") if fields.has("config") else {}
    return ImageConfig(
        raw=raw,
        digest=digest,
        platform=_platform(fields),
        labels=labels,
        diff_ids=tuple(Digest.parse(each) for each in rootfs.array("diff_ids", LAYERS_LIMIT)),
        created=fields.string("created", "") or None,
    )


def media_type_of(fields: JsonFields, stated: str) -> str:
    """Return the type the document has, whatever it was said to be; both must agree if both are known."""
    known = MANIFEST_TYPES | INDEX_TYPES
    stated = stated.partition(";")[0].strip()
    inner = fields.string("mediaType", "")
    if stated.startswith(_DOCKER_SCHEMA_1) or fields.get("schemaVersion") == 1:
        msg = f"{fields.where} is in Docker's old schema 1"
        raise ImageError(msg, hint="push the image again with a current tool")
    if inner and inner not in known:
        msg = f"{fields.where} is of the unknown type {inner!r:.100}"
        raise ImageError(msg)
    if inner and stated in known and inner != stated:
        msg = f"{fields.where} says it is {inner!r} and was announced as {stated!r}"
        raise ImageError(msg)
    is_index, is_manifest = fields.has("manifests"), fields.has("config") or fields.has("layers")
    if is_index and is_manifest:
        # CVE-2021-41190: two programs could read two different images out of one digest
        msg = f"{fields.where} is index and manifest at once"
        raise ImageError(msg)
    return inner or (stated if stated in known else OCI_INDEX if is_index else OCI_MANIFEST)


def _index(raw: bytes, digest: Digest, kind: str, fields: JsonFields) -> Index:
    manifests = fields.array("manifests", INDEX_LIMIT)
    where = fields.where
    found = tuple(parse_descriptor(JsonFields(each, f"entry {n} of {where}")) for n, each in enumerate(manifests, 1))
    return Index(raw=raw, digest=digest, media_type=kind, manifests=found, annotations=_annotations(fields))


def _manifest(raw: bytes, digest: Digest, kind: str, fields: JsonFields) -> Manifest:
    config = parse_descriptor(fields.nested("config"))
    if config.media_type not in CONFIG_TYPES:
        what = fields.string("artifactType", config.media_type)
        msg = f"{fields.where} is not an image but an artifact of type {what!r:.100}"
        raise ImageError(msg)
    layers = fields.array("layers", LAYERS_LIMIT)
    where = fields.where
    return Manifest(
        raw=raw,
        digest=digest,
        media_type=kind,
        config=config,
        layers=tuple(parse_descriptor(JsonFields(each, f"layer {n} of {where}")) for n, each in enumerate(layers, 1)),
        annotations=_annotations(fields),
    )


def parse_descriptor(fields: JsonFields) -> Descriptor:
    """Read one descriptor.

    Raises:
        ImageError: malformed.
    """
    return Descriptor(
        media_type=fields.string("mediaType"),
        digest=Digest.parse(fields.get("digest")),
        size=fields.size("size"),
        annotations=_annotations(fields),
        platform=_platform(fields.nested("platform")) if fields.has("platform") else None,
    )


def _platform(fields: JsonFields) -> Platform:
    os, architecture = fields.string("os"), fields.string("architecture")
    if not os or not architecture:
        msg = f"{fields.where} names no platform"
        raise ImageError(msg)
    return Platform(os, architecture, fields.string("variant", "") or None)


def _annotations(fields: JsonFields) -> Mapping[str, str]:
    found = fields.strings("annotations")
    if len(found) > ANNOTATIONS_LIMIT:
        msg = f"{fields.where} has more than {ANNOTATIONS_LIMIT} annotations"
        raise ImageError(msg)
    return found


def _short(digest: Digest) -> str:
    return f"{digest.algorithm}:{digest.hex[:12]}"
