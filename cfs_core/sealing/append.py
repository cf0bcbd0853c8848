"""Writing an image with one more layer: the layers below keep their digests, what is there is not copied again."""

from __future__ import annotations

import functools
import json
import time
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.image.copy import BlobCopier
from cfs_core.image.manifest import OCI_CONFIG, OCI_MANIFEST
from cfs_core.image.parallel import run_parallel
from cfs_core.model.digest import Digest
from cfs_core.model.event import Event
from cfs_core.model.manifest import Descriptor
from cfs_core.sealing.layer import LAYER_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.model.manifest import ResolvedImage
    from cfs_core.sealing.layer import AddedLayer, LayerTar
    from cfs_core.sealing.opened import OpenedImage

PARALLEL = 3
_DOCKER_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_TYPE,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER_TYPE}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{LAYER_TYPE}+zstd",
}


def append_layer(image: OpenedImage, layer: AddedLayer, destination: str) -> Digest:
    """Write *image* with *layer* on top to *destination*, as an OCI image, and return the digest of its manifest.

    Raises:
        RefusedError: *destination* cannot be written to.
        TransportError, VerificationError: nothing is visible there then.
    """
    services = image.services
    transport, target = services.locate(destination)
    tar = image.layer_tar(layer)
    source = image.judged.image
    config = _config(source, tar, layer)
    config_descriptor = _described(OCI_CONFIG, config)
    top = Descriptor(media_type=LAYER_TYPE, digest=tar.digest, size=tar.content.size)
    manifest = _manifest(source, config_descriptor, top, layer)
    described = _described(OCI_MANIFEST, manifest)
    with transport.open_writer(target) as writer:
        copier = BlobCopier(image.judged.transport, source.reference, transport, writer, services.progress)
        jobs = [functools.partial(copier.copy, blob) for blob in _unique(source)]
        run_parallel(jobs, PARALLEL, [image.judged.transport.stop, transport.stop], done=lambda _: None)
        for descriptor, chunks in ((top, tar.chunks), (config_descriptor, lambda: iter([config]))):
            if not transport.retrying(functools.partial(writer.has_blob, descriptor)):
                transport.retrying(lambda d=descriptor, c=chunks: writer.put_blob(d, c()))  # type: ignore[misc]
        transport.retrying(lambda: writer.put_manifest(described, manifest, top=True))
    facts = {"digest": str(described.digest), "source": str(source.reference), "target": str(target)}
    services.emit(Event(name="image.sealed", facts=facts))
    return described.digest


def _unique(source: ResolvedImage) -> list[Descriptor]:
    """Return the layers, each once, the largest first: it decides how long all take."""
    found = {blob.digest: blob for blob in source.manifest.layers}
    return sorted(found.values(), key=lambda blob: -blob.size)


def _described(media_type: str, raw: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(raw), size=len(raw))


def _config(source: ResolvedImage, tar: LayerTar, layer: AddedLayer) -> bytes:
    config = json.loads(source.config.raw)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(layer.mtime))
    config["created"] = created
    config["rootfs"]["diff_ids"] = [*config["rootfs"]["diff_ids"], str(tar.digest)]
    history = config.get("history")
    if isinstance(history, list):
        config["history"] = [*history, {"created": created, "created_by": layer.created_by}]
    return json.dumps(config, separators=(",", ":")).encode()


def _manifest(source: ResolvedImage, config: Descriptor, top: Descriptor, layer: AddedLayer) -> bytes:
    below = [_json(each, _oci_type(each.media_type)) for each in source.manifest.layers]
    annotations = {**source.manifest.annotations, **layer.annotations}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _json(config, config.media_type),
        "layers": [*below, _json(top, top.media_type)],
        **({"annotations": annotations} if annotations else {}),
    }
    return json.dumps(manifest, separators=(",", ":")).encode()


def _json(descriptor: Descriptor, media_type: str) -> Mapping[str, object]:
    found: dict[str, object] = {"mediaType": media_type, "digest": str(descriptor.digest), "size": descriptor.size}
    return found | ({"annotations": dict(descriptor.annotations)} if descriptor.annotations else {})


def _oci_type(media_type: str) -> str:
    """Return OCI's name for a layer: manifests of Docker's own kind have no annotations.

    Raises:
        ImageError: a layer that OCI has no name for.
    """
    found = _DOCKER_LAYERS.get(media_type, media_type)
    if not found.startswith("application/vnd.oci.image.layer."):
        msg = f"a layer of the type {media_type!r:.100} has no place in an OCI image"
        raise ImageError(msg, hint="copy the image with `skopeo copy --format oci` first")
    return found
