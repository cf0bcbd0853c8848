"""A store as podman and buildah keep it (containers/storage, overlay driver), written without either of them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cfs_testkit.images import Image

_PLAIN = re.compile(r"[.0-9a-z]+")
_MANIFEST = "manifest"


class ContainerStore:
    """A graph root. Layers are unpacked, with a tar-split file that says what the directories do not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("overlay", "overlay-images", "overlay-layers"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for name in ("images", "layers"):
            (root / f"overlay-{name}" / f"{name}.lock").touch()
            self._listing(name).write_text("[]", encoding="utf-8")

    def add(self, image: Image, name: str) -> str:
        """Put *image* into the store under *name* (``localhost/test:latest``), and return its id."""
        manifest = json.loads(image.manifest)
        parent = ""
        for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
            parent = self._layer(image.blobs[layer], layer, diff_id, parent)
        config = manifest["config"]["digest"]
        identity = str(config).removeprefix("sha256:")
        items = {_MANIFEST: image.manifest, f"{_MANIFEST}-{image.digest}": image.manifest, config: image.blobs[config]}
        folder = self.root / "overlay-images" / identity
        folder.mkdir(exist_ok=True)
        for key, data in items.items():
            (folder / _item(key)).write_bytes(data)
        entry = {
            "id": identity,
            "digest": image.digest,
            "names": [name],
            "layer": parent,
            "big-data-names": list(items),
            "big-data-sizes": {key: len(data) for key, data in items.items()},
            "big-data-digests": {key: f"sha256:{hashlib.sha256(data).hexdigest()}" for key, data in items.items()},
        }
        self._append("images", entry)
        return identity

    def _layer(self, blob: bytes, digest: str, diff_id: str, parent: str) -> str:
        identity = hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest()
        tar = _uncompressed(blob)
        folder = self.root / "overlay" / identity / "diff"
        if not folder.exists():
            folder.mkdir(parents=True)
            lines = _unpack(tar, folder)
            split = self.root / "overlay-layers" / f"{identity}.tar-split.gz"
            split.write_bytes(gzip.compress(lines, mtime=0))
        entry = {
            "id": identity,
            "parent": parent,
            "diff-digest": diff_id,
            "diff-size": len(tar),
            "compressed-diff-digest": digest,
            "compressed-size": len(blob),
        }
        self._append("layers", entry)
        return identity

    def _listing(self, what: str) -> Path:
        return self.root / f"overlay-{what}" / f"{what}.json"

    def _append(self, what: str, entry: Mapping[str, object]) -> None:
        path = self._listing(what)
        entries = [each for each in json.loads(path.read_text(encoding="utf-8")) if each["id"] != entry["id"]]
        path.write_text(json.dumps([*entries, entry]), encoding="utf-8")


def _unpack(tar: bytes, folder: Path) -> bytes:
    """Unpack an archive, and return its tar-split: raw bytes as they are, files by name, size and checksum."""
    lines: list[dict[str, object]] = []
    position = 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.isdir():
                path.mkdir(exist_ok=True)
            elif member.issym():
                path.symlink_to(member.linkname)
            elif member.islnk():
                os.link(folder / member.linkname, path)
            elif member.isreg():
                data = tar[member.offset_data : member.offset_data + member.size]
                path.write_bytes(data)
                lines.append({"type": 2, "payload": base64.b64encode(tar[position : member.offset_data]).decode()})
                checksum = base64.b64encode(zlib.crc32(data).to_bytes(8, "big")).decode()
                lines.append({"type": 1, "name": member.name, "size": member.size, "payload": checksum})
                position = member.offset_data + member.size
    lines.append({"type": 2, "payload": base64.b64encode(tar[position:]).decode()})
    return b"".join(json.dumps({**line, "position": at}).encode() + b"\n" for at, line in enumerate(lines))


def _uncompressed(blob: bytes) -> bytes:
    if blob[:2] == b"\x1f\x8b":
        return gzip.decompress(blob)
    if blob[:4] == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(blob)
    return blob


def _item(key: str) -> str:
    return key if _PLAIN.fullmatch(key) else "=" + base64.b64encode(key.encode()).decode()
