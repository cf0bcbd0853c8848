"""JSON that describes images: OCI, docker save, repositories, container stores."""

from __future__ import annotations

import gzip
import itertools
import json

from cfs_core.image.manifest import parse_config, parse_manifest
from cfs_core.plugin import CfsError
from cfs_fuzz import scratch
from cfs_fuzz.target import target
from cfs_storage_composefs.repository.metadata import Metadata
from cfs_storage_composefs.streams.oci import config_facts, manifest_facts
from cfs_testkit.builders.oci import Image, index_bytes, layer, write_docker_archive
from cfs_testkit.containers import ContainerStore
from cfs_testkit.images import build_image
from cfs_transport_containers_storage.lookup import find_image
from cfs_transport_containers_storage.lookup import parse as parse_name
from cfs_transport_containers_storage.store import Store, chain
from cfs_transport_containers_storage.tarsplit import Payload, read_tar_split
from cfs_transport_oci_dir.archive import Archive
from cfs_transport_oci_dir.docker_archive import DockerArchiveTransport
from cfs_transport_oci_dir.grammar import parse_reference
from cfs_transport_oci_dir.index import LayoutIndex

_WORDS = (
    b'"mediaType"',
    b'"schemaVersion"',
    b'"manifests"',
    b'"layers"',
    b'"config"',
    b'"digest"',
    b'"size"',
    b'"annotations"',
    b'"platform"',
    b'"subject"',
    b'"artifactType"',
    b"application/vnd.oci.image.",
    b"manifest.v1+json",
    b"index.v1+json",
    b"sha256:",
    b"sha512:",
    b"org.opencontainers.image.ref.name",
    b"[" * 2000,
    b'{"a":' * 2000,
    b"1e999",
    b"1" * 5000,
    b"\\ud800",
)


def _image() -> Image:
    return Image([layer({"a": b"x"}), layer({"b": b"y"}, "zstd")], labels={"containers.bootc": "1"})


def manifests() -> list[bytes]:
    """Return manifests, an index and configs, in OCI's and in docker's words."""
    docker = build_image([{"a": "x"}])
    one = _image()
    index = index_bytes([one, Image([layer({"c": b""})], architecture="arm64")])
    return [one.manifest, one.config, index, docker.manifest]


@target("manifest", manifests, _WORDS)
def read_manifest(data: bytes) -> None:
    """A manifest, an index or a config; the same bytes as each of them."""
    readers = (
        lambda: parse_config(data),
        lambda: manifest_facts(data, "a manifest"),
        lambda: config_facts(data, "a config"),
        lambda: LayoutIndex(data, "a layout").choose(parse_reference("oci:/x:v1")),
        lambda: LayoutIndex(data, "a layout").choose(parse_reference("oci:/x")),
        lambda: parse_manifest(data, "application/vnd.oci.image.index.v1+json"),
    )
    for reader in readers:
        try:
            reader()
        except CfsError:
            continue
    parse_manifest(data)


@target("repository-metadata", lambda: [Metadata().to_bytes()], (b'"incompatible"', b'"extra"', b"fsverity-sha256-12"))
def read_metadata(data: bytes) -> None:
    """The meta.json of a repository."""
    Metadata.parse(data, "meta.json")


def _store(folder):
    store = ContainerStore(folder)
    store.add(build_image([{"usr/a": "x" * 700, "usr/b": "y"}]), "localhost/test:latest")
    return store


def listings() -> list[bytes]:
    """Return images.json and layers.json of a store, one after the other."""
    folder = scratch.folder() / "store-seeds"
    _store(folder)
    texts = [(folder / f"overlay-{name}/{name}.json").read_bytes() for name in ("images", "layers")]
    partial = json.loads(texts[1])
    partial[0] |= {"toc-digest": "sha256:" + "0" * 64, "flags": {"expected-layer-diffid": partial[0]["diff-digest"]}}
    return [b"\0".join(texts), b"\0".join([texts[0], json.dumps(partial).encode()])]


@target(
    "container-store",
    listings,
    (b'"names"', b'"layer"', b'"parent"', b'"big-data-digests"', b'"flags"', b"[" * 2000, b"\0"),
)
def read_store(data: bytes) -> None:
    """The lists of a container store."""
    images, _, layers = data.partition(b"\0")
    scratch.put("store/overlay-images/images.json", images)
    scratch.put("store/overlay-images/images.lock", b"")
    scratch.put("store/overlay-layers/layers.json", layers)
    scratch.put("store/overlay-layers/layers.lock", b"")
    store = Store(scratch.folder() / "store", "overlay")
    known = store.layers()
    found = store.images()
    for image in found:
        list(chain(known, image.top_layer))
    find_image(found, parse_name("containers-storage:localhost/test:latest"))


def splits() -> list[bytes]:
    """Return tar-split files, unpacked."""
    folder = scratch.folder() / "split-seeds"
    _store(folder)
    return [gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("overlay-layers/*.tar-split.gz"))]


@target(
    "tar-split",
    splits,
    (b'"type":1', b'"type":2', b'"size":', b'"payload":', b'"name_raw":', b"1e999", b"-1", b"[" * 2000),
)
def read_split(data: bytes) -> None:
    """A tar-split file, packed as it is, or as a damaged package of bytes."""
    for raw in (data, gzip.compress(data, 1, mtime=0)):
        path = scratch.put("tar-split.gz", raw)
        try:
            for part in itertools.islice(read_tar_split(path), 10_000):
                assert not isinstance(part, Payload) or part.size > 0, part
        except CfsError:
            if raw is not data:
                raise


def archives() -> list[bytes]:
    """Return what docker save writes."""
    path = scratch.folder() / "seed.tar"
    write_docker_archive(path, _image(), "example.com/a:1")
    return [path.read_bytes()]


@target("archive", archives, (b"manifest.json", b"index.json", b"oci-layout", b'"Layers"', b'"RepoTags"', b'"Config"'))
def read_archive(data: bytes) -> None:
    """An archive of an image, and the manifest that is made of one by docker save."""
    from cfs_fuzz.targets.layers import with_checksums

    path = scratch.put("archive.tar", with_checksums(data))
    Archive(str(path), scratch.folder()).close()
    transport = DockerArchiveTransport(scratch.folder())
    try:
        reference = parse_reference(f"docker-archive:{path}")
        transport.read_manifest(reference, ())
    finally:
        transport.close()
