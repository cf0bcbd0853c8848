"""One more layer for an image, as a tar that is the same for the same files: directories as the image has them."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.model.digest import Digest, HashAlgorithm
from cfs_core.model.tree import Directory, lookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_core.model.content import Content
    from cfs_core.model.tree import Node

WHITEOUT = ".wh."
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
"""Not compressed: what a UKI holds is compressed already, and no version of a compressor changes the digest."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedLayer:
    """What a layer adds to an image, paths absolute.

    Directories on the way get an entry with the attributes they have in the image, so that the layer changes nothing
    else; new ones are root's, of ``mtime`` seconds. The entries of *whiteouts* are removed.
    """

    files: Mapping[str, Content]
    whiteouts: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    """Directories that it makes where the image has none."""

    mtime: int = 0
    created_by: str = "cfs"
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Of the manifest."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path in the layer, without the directories on the way."""
        return tuple(sorted((*self.files, *self.whiteouts, *self.directories)))


@dataclass(frozen=True, slots=True)
class LayerTar:
    """The tar of a layer, and what names it."""

    content: Content
    digest: Digest

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes."""
        with self.content.open() as file:
            while data := file.read(_CHUNK):
                yield data


def write_layer(layer: AddedLayer, root: Directory, out: BinaryIO) -> Digest:
    """Write *layer*, for an image whose merged tree is *root*, and return the digest of the tar.

    Raises:
        OSError: *out* is full.
    """
    hashing = _Hashing(out)
    with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        made: set[str] = set()
        for path in layer.paths:
            for parent in (*_parents(path), *([path] if path in layer.directories else ())):
                if parent not in made:
                    made.add(parent)
                    tar.addfile(_directory(parent, lookup(root, os.fsencode(parent)), layer.mtime))
            if path in layer.whiteouts:
                folder, _, name = path.rpartition("/")
                tar.addfile(_member(f"{folder}/{WHITEOUT}{name}", tarfile.REGTYPE, 0o644, layer.mtime))
            if path in layer.files:
                content = layer.files[path]
                info = _member(path, tarfile.REGTYPE, 0o644, layer.mtime)
                info.size = content.size
                with content.open() as file:
                    tar.addfile(info, file)
    return Digest(HashAlgorithm.SHA256, hashing.hasher.hexdigest())


def _parents(path: str) -> Iterator[str]:
    parts = path.strip("/").split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:count])


def _member(path: str, kind: bytes, mode: int, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path.lstrip("/"))
    info.type, info.mode, info.mtime = kind, mode, mtime
    return info


def _directory(path: str, found: Node | None, mtime: int) -> tarfile.TarInfo:
    info = _member(path, tarfile.DIRTYPE, 0o755, mtime)
    if isinstance(found, Directory):
        info.mode, info.uid, info.gid, info.mtime = found.mode, found.uid, found.gid, found.mtime_sec
        headers = {
            f"SCHILY.xattr.{key.decode('utf-8', 'surrogateescape')}": value.decode("utf-8", "surrogateescape")
            for key, value in found.xattrs
        }
        if found.mtime_nsec:
            headers["mtime"] = f"{found.mtime_sec}.{found.mtime_nsec:09d}"
        info.pax_headers = headers
    return info


class _Hashing(io.RawIOBase):
    """A file that is hashed while it is written."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__()
        self.hasher = HashAlgorithm.SHA256.new()
        self._out = out

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self.hasher.update(data)
        self._out.write(data)
        return len(data)
