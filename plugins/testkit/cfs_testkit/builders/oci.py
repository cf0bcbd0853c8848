r"""Images for tests, from ``{path: content}`` to OCI layouts and archives.

::

    from cfs_testkit.builders.oci import Dir, File, Hard, Image, Link, layer, write_layout, write_archive

    base = layer({"usr/bin/sh": File(b"x" * 100, mode=0o755), "bin": Link("usr/bin"), "var/empty": Dir()})
    top = layer({"usr/bin/.wh.sh": b"", "etc/hostname": "box\n"}, compression="zstd")
    image = Image([base, top], labels={"a": "b"})          # image.manifest, image.config: raw bytes
    write_layout(tmp_path / "layout", {"latest": image})   # oci:<dir>:latest
    write_archive(tmp_path / "image.tar", {"latest": image})
    write_docker_archive(tmp_path / "docker.tar", image, "localhost/x:latest")
    write_index(tmp_path / "multi", {"multi": [image, Image([base], architecture="arm64")]})

Missing parent directories are added. Compressions: none, gzip, gzip-members (two members), zstd, zstd-frames
(two frames and a skippable one), zstd-chunked (as containers/image writes it: many frames, skippable ones, notes).
`tar_bytes` gives the bytes of one layer, `raw_header` single headers for hostile ones.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

MTIME = 1_700_000_000
OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
SKIPPABLE = struct.pack("<II", 0x184D2A50, 12) + b"not an image"


@dataclass(frozen=True)
class File:
    """A regular file. A time given as text is written as a pax record, with its fraction."""

    data: bytes | str = b""
    """Its content."""

    mode: int = 0o644
    """Permission bits."""

    uid: int = 0
    """Owner."""

    gid: int = 0
    """Group."""

    mtime: float | str = MTIME
    """Seconds since 1970; text is written as it is."""

    xattrs: dict[str, bytes] = field(default_factory=dict)
    """Extended attributes."""


@dataclass(frozen=True)
class Dir:
    """A directory."""

    mode: int = 0o755
    """Permission bits."""

    uid: int = 0
    """Owner."""

    gid: int = 0
    """Group."""

    mtime: float | str = MTIME
    """Seconds since 1970; text is written as it is."""

    xattrs: dict[str, bytes] = field(default_factory=dict)
    """Extended attributes."""


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str
    """What it holds."""


@dataclass(frozen=True)
class Hard:
    """A hard link to a path inside of the layer, or of one below."""

    target: str
    """Path of the other name."""


@dataclass(frozen=True)
class Device:
    """A node of a device, ``block`` or character, with its ``major`` and ``minor`` number."""

    major: int
    minor: int
    block: bool = False


@dataclass(frozen=True)
class Fifo:
    """A named pipe."""


Content = bytes | str | File | Dir | Link | Hard | Device | Fifo | None
"""What stands at a path; None makes a directory."""
Tree = Mapping[str, Content] | Iterable[tuple[str, Content]]
"""What a layer holds, by path; pairs may name a path twice."""


def digest(data: bytes) -> str:
    """Return the OCI digest of *data*."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_bytes(tree: Tree, *, parents: bool = True, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 - tarfile's word
    """Return a tar of *tree*; *parents* adds the directories that it does not name."""
    out = io.BytesIO()
    made: set[str] = set()
    items = tree.items() if isinstance(tree, Mapping) else tree
    with tarfile.open(fileobj=out, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for path, what in items:
            pieces = path.strip("/").split("/")
            for depth in range(1, len(pieces)) if parents else ():
                parent = "/".join(pieces[:depth])
                if parent not in made:
                    made.add(parent)
                    _add(tar, parent, Dir())
            made.add(path.strip("/"))
            _add(tar, path, what)
    return out.getvalue()


def _add(tar: tarfile.TarFile, path: str, what: Content) -> None:
    info = tarfile.TarInfo(path)
    info.mtime = MTIME
    data = b""
    match what:
        case None:
            info.type, info.mode = tarfile.DIRTYPE, Dir.mode
        case Dir():
            info.type, info.mode = tarfile.DIRTYPE, what.mode
        case Link(target):
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, target
        case Hard(target):
            info.type, info.linkname = tarfile.LNKTYPE, target
        case Device(major, minor, block):
            info.type, info.devmajor, info.devminor = tarfile.BLKTYPE if block else tarfile.CHRTYPE, major, minor
        case Fifo():
            info.type = tarfile.FIFOTYPE
        case _:
            what = what if isinstance(what, File) else File(what)
            data = what.data.encode() if isinstance(what.data, str) else what.data
            info.mode = what.mode
    if isinstance(what, File | Dir):
        _describe(info, what)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _describe(info: tarfile.TarInfo, what: File | Dir) -> None:
    headers = dict(info.pax_headers)
    info.uid, info.gid = what.uid, what.gid
    if isinstance(what.mtime, str):
        info.mtime = int(what.mtime.partition(".")[0])
        headers["mtime"] = what.mtime
    else:
        info.mtime = what.mtime
    for name, value in what.xattrs.items():
        headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = headers


def raw_header(  # noqa: PLR0913 - the fields of a header
    name: bytes,
    kind: bytes = b"0",
    size: int | bytes = 0,
    *,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: bytes = b"0000000\0",
    minor: bytes = b"0000000\0",
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """Return one 512-byte header with exactly these fields, and the right checksum unless one is given."""
    size_field = size if isinstance(size, bytes) else b"%011o\0" % size
    head = name.ljust(100, b"\0") + mode + uid + gid + size_field + mtime
    tail = kind + link.ljust(100, b"\0") + magic + bytes(64) + major + minor + prefix.ljust(167, b"\0")
    total = sum(head) + sum(tail) + 256
    return head + (checksum or b"%06o\0 " % total) + tail


def padded(data: bytes) -> bytes:
    """Return *data* with zeros up to the next block of 512 bytes."""
    return data + bytes(-len(data) % 512)


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return one pax record, its own length in front."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return str(length).encode() + body


def pax_header(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return the member with *records* that stands before the member they describe."""
    data = b"".join(pax_record(key, value) for key, value in records)
    return raw_header(b"pax", kind, len(data)) + padded(data)


@dataclass(frozen=True)
class Layer:
    """A layer as a tar and as the blob that a registry would have."""

    tar: bytes
    """Uncompressed."""

    blob: bytes
    """Compressed."""

    media_type: str
    """As the manifest names it."""

    annotations: dict[str, str] = field(default_factory=dict)
    """Of its descriptor."""

    @property
    def diff_id(self) -> str:
        """The digest of the tar."""
        return digest(self.tar)

    @property
    def descriptor(self) -> dict[str, object]:
        """What a manifest says about the layer."""
        found: dict[str, object] = {"mediaType": self.media_type, "digest": digest(self.blob), "size": len(self.blob)}
        return found | ({"annotations": self.annotations} if self.annotations else {})


def layer(tree: Tree | bytes, compression: str = "gzip", *, parents: bool = True, docker: bool = False) -> Layer:
    """Make a layer from ``{path: content}`` (or pairs), or from the bytes of a tar."""
    tar = tree if isinstance(tree, bytes) else tar_bytes(tree, parents=parents)
    blob, suffix, annotations = compress(tar, compression)
    if docker:
        suffix = {"": "", "+gzip": ".gzip", "+zstd": ".zstd"}[suffix]
        return Layer(tar, blob, f"{DOCKER}.image.rootfs.diff.tar{suffix}", annotations)
    return Layer(tar, blob, f"{OCI}.layer.v1.tar{suffix}", annotations)


def compress(tar: bytes, compression: str) -> tuple[bytes, str, dict[str, str]]:
    """Return blob, media type suffix and annotations."""
    half = len(tar) // 2
    if compression == "none":
        return tar, "", {}
    if compression == "gzip":
        return gzip.compress(tar, 1, mtime=0), "+gzip", {}
    if compression == "gzip-members":
        return gzip.compress(tar[:half], 1, mtime=0) + gzip.compress(tar[half:], 1, mtime=0), "+gzip", {}

    def frame(data: bytes) -> bytes:
        return zstandard.ZstdCompressor(level=1).compress(data)

    if compression == "zstd":
        return frame(tar), "+zstd", {}
    if compression == "zstd-frames":
        return frame(tar[:half]) + SKIPPABLE + frame(tar[half:]), "+zstd", {}
    if compression == "zstd-chunked":
        blob = b"".join(frame(tar[i : i + 1000]) for i in range(0, len(tar), 1000)) + SKIPPABLE
        notes = {"io.github.containers.zstd-chunked.manifest-checksum": digest(SKIPPABLE)}
        return blob + SKIPPABLE, "+zstd", notes
    raise ValueError(compression)


COMPRESSIONS = ("none", "gzip", "gzip-members", "zstd", "zstd-frames", "zstd-chunked")


@dataclass
class Image:
    """Layers with a config and a manifest. Set ``config`` or ``manifest`` to other bytes to make it wrong."""

    layers: list[Layer]
    """Lowest first."""

    architecture: str = "amd64"
    """In Go's words."""

    os: str = "linux"
    """In Go's words."""

    variant: str | None = None
    """Of the architecture."""

    labels: dict[str, str] = field(default_factory=dict)
    """Of the configuration."""

    docker: bool = False
    """Docker's media types, and not OCI's."""

    config: bytes = b""
    manifest: bytes = b""

    def __post_init__(self) -> None:
        if not self.config:
            self.config = self._config()
        if not self.manifest:
            self.manifest = self._manifest()

    def _config(self) -> bytes:
        platform = {"architecture": self.architecture, "os": self.os}
        if self.variant:
            platform["variant"] = self.variant
        config = {
            "created": "2024-01-01T00:00:00Z",
            **platform,
            "config": {"Labels": self.labels},
            "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in self.layers]},
            "history": [{"created_by": "cfs_testkit"}],
        }
        return json.dumps(config).encode()

    def _manifest(self) -> bytes:
        media, config = self.media_type, f"{OCI}.config.v1+json"
        if self.docker:
            config = f"{DOCKER}.container.image.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": media,
            "config": {"mediaType": config, "digest": digest(self.config), "size": len(self.config)},
            "layers": [each.descriptor for each in self.layers],
        }
        return json.dumps(manifest).encode()

    @property
    def media_type(self) -> str:
        """The media type of the manifest."""
        return f"{DOCKER}.distribution.manifest.v2+json" if self.docker else f"{OCI}.manifest.v1+json"

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return digest(self.manifest)

    @property
    def platform(self) -> dict[str, str]:
        """What an index says about the machine."""
        found = {"os": self.os, "architecture": self.architecture}
        return found | ({"variant": self.variant} if self.variant else {})

    @property
    def descriptor(self) -> dict[str, object]:
        """What an index or a layout says about the image."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.manifest)}

    @property
    def blobs(self) -> list[bytes]:
        """Layers, config and manifest."""
        return [*(each.blob for each in self.layers), self.config, self.manifest]


def index_bytes(images: list[Image], *, docker: bool = False) -> bytes:
    """Return an index over *images*."""
    media = f"{DOCKER}.distribution.manifest.list.v2+json" if docker else f"{OCI}.index.v1+json"
    manifests = [each.descriptor | {"platform": each.platform} for each in images]
    return json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": manifests}).encode()


def write_blob(directory: Path, data: bytes) -> None:
    """Put a blob into the layout at *directory*."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)


def write_layout(directory: Path, images: dict[str | None, Image]) -> Path:
    """Write an OCI layout with these tags; the tag None makes an untagged image."""
    found: list[dict[str, object]] = []
    for tag, image in images.items():
        for blob in image.blobs:
            write_blob(directory, blob)
        notes: dict[str, object] = {}
        if tag is not None:
            notes["annotations"] = {"org.opencontainers.image.ref.name": tag}
        found.append(image.descriptor | notes)
    return _finish(directory, found)


def write_index(directory: Path, images: dict[str, list[Image]]) -> Path:
    """Write an OCI layout in which each tag is an index over several platforms."""
    found: list[dict[str, object]] = []
    for tag, members in images.items():
        for blob in [blob for member in members for blob in member.blobs]:
            write_blob(directory, blob)
        raw = index_bytes(members)
        write_blob(directory, raw)
        notes = {"org.opencontainers.image.ref.name": tag}
        found.append(
            {"mediaType": f"{OCI}.index.v1+json", "digest": digest(raw), "size": len(raw), "annotations": notes}
        )
    return _finish(directory, found)


def _finish(directory: Path, manifests: list[dict[str, object]]) -> Path:
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": manifests}
    (directory / "index.json").write_text(json.dumps(index))
    return directory


def write_archive(path: Path, images: dict[str | None, Image]) -> Path:
    """Write an OCI archive: an uncompressed tar of a layout."""
    with tempfile.TemporaryDirectory() as scratch:
        layout = write_layout(Path(scratch) / "layout", images)
        with tarfile.open(path, "w") as tar:
            for each in sorted(layout.rglob("*")):
                tar.add(each, str(each.relative_to(layout)), recursive=False)
    return path


def write_docker_archive(path: Path, image: Image, *names: str) -> Path:
    """Write what ``docker save`` writes: manifest.json, config, one uncompressed tar per layer."""
    members: dict[str, bytes] = {}
    config_name = f"{hashlib.sha256(image.config).hexdigest()}.json"
    members[config_name] = image.config
    paths = []
    for each in image.layers:
        name = f"{each.diff_id.partition(':')[2]}/layer.tar"
        members[name] = each.tar
        paths.append(name)
    members["manifest.json"] = json.dumps([{"Config": config_name, "RepoTags": list(names), "Layers": paths}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
