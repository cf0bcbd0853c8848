"""Container images from ``{"path": "content"}``: layers in every compression, manifests, indexes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfs_testkit.registry import RegistryServer

_LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_PROGRAMS = (b"\x7fELF", b"#!")
COMPRESSIONS = ("none", "gzip", "zstd", "zstd:chunked")


def sha256(data: bytes) -> str:
    """Return the OCI digest of *data*."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer_tar(files: Mapping[str, str | bytes | None], *, mtime: int = 0) -> bytes:
    """Return an uncompressed layer; None as content makes a directory, ``-> target`` a symbolic link.

    Missing parent directories are added. ELF files and scripts can be executed.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in _with_parents(files).items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.mtime = mtime
            data = content.encode() if isinstance(content, str) else content
            if data is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(content, str) and content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
                tar.addfile(info)
            else:
                info.size, info.mode = len(data), 0o755 if data.startswith(_PROGRAMS) else 0o644
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _with_parents(files: Mapping[str, str | bytes | None]) -> dict[str, str | bytes | None]:
    complete: dict[str, str | bytes | None] = {}
    for path, content in files.items():
        parts = path.strip("/").split("/")
        for count in range(1, len(parts)):
            complete.setdefault("/".join(parts[:count]), None)
        complete["/".join(parts)] = content
    return complete


def compress(tar: bytes, how: str) -> tuple[str, bytes]:
    """Return media type and bytes of a layer under one of `COMPRESSIONS`.

    ``zstd:chunked`` has the form that containers/storage writes: several frames, then skippable frames with a table of
    contents and a footer.
    """
    if how == "none":
        return _LAYER, tar
    if how == "gzip":
        return f"{_LAYER}+gzip", gzip.compress(tar, 6, mtime=0)
    compressor = zstandard.ZstdCompressor(level=3)
    if how == "zstd":
        return f"{_LAYER}+zstd", compressor.compress(tar)
    frames = b"".join(compressor.compress(tar[at : at + 4096]) for at in range(0, len(tar), 4096))
    toc = compressor.compress(json.dumps({"version": 1, "entries": []}).encode())
    footer = struct.pack("<7Q", len(frames) + 8, len(toc), 30, 1, 0, 0, 0) + b"GNUlInUx"
    return f"{_LAYER}+zstd", frames + _skippable(toc) + _skippable(footer)


def _skippable(data: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(data)) + data


@dataclass(frozen=True, slots=True)
class Image:
    """One image as blobs by digest, its manifest's bytes and digest."""

    manifest: bytes = field(repr=False)
    digest: str
    blobs: Mapping[str, bytes] = field(repr=False)
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]

    def publish(self, registry: RegistryServer, repository: str, tag: str | None = None) -> None:
        """Put the image into a registry simulator."""
        for data in self.blobs.values():
            registry.put_blob(repository, data)
        registry.put_manifest(repository, self.manifest, tag=tag, media_type=MANIFEST_TYPE)

    def descriptor(self) -> dict[str, object]:
        """Return the descriptor that an index has for this image."""
        return {"mediaType": MANIFEST_TYPE, "digest": self.digest, "size": len(self.manifest)}


def build_image(
    layers: Sequence[Mapping[str, str | bytes | None] | bytes],
    *,
    compression: str | Sequence[str] = "gzip",
    labels: Mapping[str, str] | None = None,
    architecture: str = "amd64",
) -> Image:
    """Build an image of mappings for `layer_tar` or ready tars; *compression* is one name, or one per layer."""
    ways = [compression] * len(layers) if isinstance(compression, str) else list(compression)
    blobs: dict[str, bytes] = {}
    descriptors = []
    diff_ids = []
    for layer, way in zip(layers, ways, strict=True):
        tar = layer if isinstance(layer, bytes) else layer_tar(layer)
        media_type, data = compress(tar, way)
        blobs[sha256(data)] = data
        descriptors.append({"mediaType": media_type, "digest": sha256(data), "size": len(data)})
        diff_ids.append(sha256(tar))
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": dict(labels or {})},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "1970-01-01T00:00:00Z"} for _ in layers],
        }
    ).encode()
    blobs[sha256(config)] = config
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": sha256(config),
                "size": len(config),
            },
            "layers": descriptors,
        }
    ).encode()
    return Image(manifest, sha256(manifest), blobs, tuple(str(d["digest"]) for d in descriptors), tuple(diff_ids))


def build_index(images: Mapping[str, Image]) -> bytes:
    """Return an index of images by architecture."""
    manifests = [
        image.descriptor() | {"platform": {"os": "linux", "architecture": architecture}}
        for architecture, image in images.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}).encode()
