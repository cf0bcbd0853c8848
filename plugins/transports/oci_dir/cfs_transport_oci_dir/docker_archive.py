"""``docker-archive:FILE[:NAME]``: what ``docker save`` and ``podman save`` write.

The archive has no manifest whose digest anybody knows. The one made here says only what is there: the digest of the
config, and of each layer as it lies in the archive (uncompressed: its diff-id).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.plugin import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Digest,
    HashAlgorithm,
    ImageError,
    ImageReference,
    JsonFields,
    LimitError,
    NotFoundError,
    RetryPolicy,
    Transport,
    UsageError,
    VerificationError,
    parse_json,
)
from cfs_transport_oci_dir.archive import Archive
from cfs_transport_oci_dir.grammar import parse_reference, position

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cfs_core.plugin import Descriptor

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_IMAGES_LIMIT = 1024
_LAYERS_LIMIT = 1024
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Image:
    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


class DockerArchiveTransport(Transport):
    """Reads with seeks; a compressed archive goes to *scratch* first."""

    retry = RetryPolicy(attempts=1)

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._archives: dict[str, Archive] = {}
        self._members: dict[tuple[str, str], str] = {}
        self._manifests: dict[tuple[str, str], bytes] = {}

    def parse(self, text: str) -> ImageReference:
        """Split ``docker-archive:FILE[:NAME[:TAG]]``."""
        return parse_reference(text)

    def close(self) -> None:
        """Close the archives."""
        for archive in self._archives.values():
            archive.close()
        self._archives.clear()

    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Make the manifest of what the archive lists."""
        del accept
        archive = self._archive(reference.name)
        image = _choose(_images(archive), reference)
        raw = self._manifests.get((archive.where, image.config)) or self._synthesise(archive, image)
        if reference.digest is not None and Digest.of(raw, reference.digest.algorithm) != reference.digest:
            msg = f"{archive.where} has no image {reference.digest}"
            raise NotFoundError(msg, hint="archives of docker save do not keep the digest an image has in a registry")
        return _MANIFEST, raw

    def open_blob(
        self, reference: ImageReference, descriptor: Descriptor, offset: int
    ) -> AbstractContextManager[Iterable[bytes]]:
        """Hand out a configuration or a layer of the archive, as if it were a blob."""
        archive = self._archive(reference.name)
        name = self._members.get((archive.where, str(descriptor.digest)))
        if name is None:
            msg = f"{archive.where} has no blob {descriptor.digest}"
            raise NotFoundError(msg)
        return _open_at(archive, name, descriptor, offset)

    def _archive(self, path: str) -> Archive:
        if path not in self._archives:
            archive = self._archives[path] = Archive(path, self._scratch)
            if "manifest.json" not in archive:
                if "repositories" in archive:
                    msg = f"{path} was written by docker save before Docker 1.10: it has no manifest.json in it"
                    raise ImageError(msg, hint="load it with docker or podman, and save it again: podman save -o FILE")
                oci = "oci-layout" in archive
                msg = f"{path} was not written by docker save: it has no manifest.json in it"
                raise ImageError(msg, hint=f"write oci-archive:{path}" if oci else None)
        return self._archives[path]

    def _synthesise(self, archive: Archive, image: _Image) -> bytes:
        config = _read(archive, image.config, CONFIG_LIMIT)
        where = f"config {image.config} in {archive.where}"
        diff_ids = parse_json(config, where).nested("rootfs").array("diff_ids", _LAYERS_LIMIT)
        if len(diff_ids) != len(image.layers):
            msg = f"{archive.where} has {len(image.layers)} layers and its config describes {len(diff_ids)}"
            raise ImageError(msg)
        layers = [
            self._layer(archive, name, Digest.parse(diff_id))
            for name, diff_id in zip(image.layers, diff_ids, strict=True)
        ]
        digest = Digest.of(config)
        self._members[archive.where, str(digest)] = image.config
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": str(digest), "size": len(config)},
            "layers": layers,
        }
        raw = json.dumps(manifest, separators=(",", ":")).encode()
        self._manifests[archive.where, image.config] = raw
        return raw

    def _layer(self, archive: Archive, name: str, diff_id: Digest) -> dict[str, object]:
        file, size = archive.open(name)
        with file:
            suffix = _compression(file.read(4))
            digest = str(diff_id)
            if suffix:
                file.seek(0)
                hasher = hashlib.sha256()
                while data := file.read(_CHUNK):
                    hasher.update(data)
                digest = str(Digest(HashAlgorithm.SHA256, hasher.hexdigest()))
        self._members[archive.where, digest] = name
        return {"mediaType": _LAYER + suffix, "digest": digest, "size": size}


@contextlib.contextmanager
def _open_at(archive: Archive, name: str, descriptor: Descriptor, offset: int) -> Generator[Iterator[bytes]]:
    file, size = archive.open(name)
    with file:
        if size != descriptor.size:
            msg = f"{name} in {archive.where} has {size} bytes, its descriptor says {descriptor.size}"
            raise VerificationError(msg)
        file.seek(offset)
        yield iter(lambda: file.read(_CHUNK), b"")


def _images(archive: Archive) -> list[_Image]:
    raw = _read(archive, "manifest.json", MANIFEST_LIMIT)
    # the document is an array; the strict reader wants an object
    fields = parse_json(b'{"images":' + raw + b"}", f"{archive.where}/manifest.json")
    found = []
    for number, each in enumerate(fields.array("images", _IMAGES_LIMIT)):
        image = JsonFields(each, f"image {number} in {archive.where}/manifest.json")
        layers = _strings(image, "Layers")
        names = _strings(image, "RepoTags") if image.has("RepoTags") else ()
        found.append(_Image(image.string("Config"), layers, names))
    return found


def _strings(fields: JsonFields, name: str) -> tuple[str, ...]:
    found = fields.array(name, _LAYERS_LIMIT)
    if not all(isinstance(each, str) for each in found):
        msg = f"{name!r} in {fields.where} must be an array of strings"
        raise ImageError(msg)
    return tuple(map(str, found))


def _choose(images: list[_Image], reference: ImageReference) -> _Image:
    offered = ", ".join(name for image in images for name in image.names) or "none has a name"
    place = position(reference.tag)
    if place is not None and place < len(images):
        return images[place]
    if reference.tag is None:
        if len(images) == 1:
            return images[0]
        msg = f"{reference.name} has {len(images)} images and {reference} names none of them"
        raise UsageError(msg, hint=f"names: {offered}; or @N by position")
    wanted = _full_name(reference.tag)
    for image in images:
        if wanted in map(_full_name, image.names):
            return image
    msg = f"{reference.name} has no image named {reference.tag!r}"
    raise NotFoundError(msg, hint=f"names: {offered}")


def _full_name(name: str) -> str:
    """Write a short name in full, as docker does."""
    for prefix in ("docker.io/library/", "docker.io/"):
        name = name.removeprefix(prefix)
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _compression(magic: bytes) -> str:
    if magic.startswith(b"\x1f\x8b"):
        return "+gzip"
    return "+zstd" if magic == b"\x28\xb5\x2f\xfd" else ""


def _read(archive: Archive, name: str, limit: int) -> bytes:
    file, size = archive.open(name)
    with file:
        if size > limit:
            msg = f"{name} in {archive.where} has {size} bytes, more than {limit}"
            raise LimitError(msg, facts={"limit_bytes": limit})
        return _whole(file)


def _whole(file: BinaryIO) -> bytes:
    return b"".join(iter(lambda: file.read(_CHUNK), b""))
