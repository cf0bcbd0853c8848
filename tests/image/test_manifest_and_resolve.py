import json

import pytest
from builders.transport import AMD64, MemoryFetcher, reference

from cfs_core.errors import ImageError, LimitError, NotFoundError, VerificationError
from cfs_core.image.manifest import Index, parse_config, parse_manifest
from cfs_core.image.resolve import resolve
from cfs_core.model.manifest import Manifest, Platform
from cfs_testkit.builders.oci import DOCKER, OCI, Image, digest, index_bytes, layer

LAYER = layer({"etc/x": "x"})


def changed(raw: bytes, **members) -> bytes:
    document = json.loads(raw)
    for name, value in members.items():
        if value is None:
            document.pop(name, None)
        else:
            document[name] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize("docker", [False, True])
def test_a_manifest(docker):
    image = Image([LAYER], labels={"a": "b"}, docker=docker)
    found = parse_manifest(image.manifest, image.media_type)
    assert isinstance(found, Manifest)
    assert found.raw == image.manifest
    assert str(found.digest) == image.digest
    assert str(found.config.digest) == digest(image.config)
    assert [(str(each.digest), each.size) for each in found.layers] == [(digest(LAYER.blob), len(LAYER.blob))]
    config = parse_config(image.config)
    assert config.platform == AMD64
    assert config.labels == {"a": "b"}
    assert [str(each) for each in config.diff_ids] == [LAYER.diff_id]
    assert config.created == "2024-01-01T00:00:00Z"


def test_what_a_document_may_leave_out():
    image = Image([LAYER])
    bare = changed(image.manifest, mediaType=None)
    assert parse_manifest(bare).media_type == f"{OCI}.manifest.v1+json"
    assert parse_manifest(bare, f"{DOCKER}.distribution.manifest.v2+json").media_type.startswith(DOCKER)
    assert parse_manifest(bare, "application/json").media_type == f"{OCI}.manifest.v1+json"
    assert parse_manifest(bare, f"{OCI}.manifest.v1+json; charset=utf-8").media_type == f"{OCI}.manifest.v1+json"
    assert isinstance(parse_manifest(changed(index_bytes([image]), mediaType=None)), Index)
    config = changed(image.config, config={"Labels": None}, created=None, history=None)
    assert parse_config(config).labels == {}
    assert parse_config(changed(image.config, config=None)).labels == {}


MANIFEST = Image([LAYER]).manifest
CONFIG = Image([LAYER]).config
DESCRIPTOR = json.loads(MANIFEST)["layers"][0]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"schemaVersion": 2, "schemaVersion": 2}',
        changed(MANIFEST, schemaVersion=1),
        changed(MANIFEST, schemaVersion="2"),
        changed(MANIFEST, mediaType="text/html"),
        changed(MANIFEST, mediaType=7),
        changed(MANIFEST, manifests=[]),
        changed(MANIFEST, config=None),
        changed(MANIFEST, config={}),
        changed(MANIFEST, config=DESCRIPTOR),
        changed(MANIFEST, layers=None),
        changed(MANIFEST, layers={}),
        changed(MANIFEST, layers=["x"]),
        changed(MANIFEST, layers=[DESCRIPTOR | {"size": -1}]),
        changed(MANIFEST, layers=[DESCRIPTOR | {"size": True}]),
        changed(MANIFEST, layers=[DESCRIPTOR | {"size": 1 << 63}]),
        changed(MANIFEST, layers=[DESCRIPTOR | {"size": 1.0}]),
        changed(MANIFEST, layers=[DESCRIPTOR | {"digest": "sha256:" + "A" * 64}]),
        changed(MANIFEST, layers=[DESCRIPTOR | {"digest": "md5:" + "a" * 32}]),
        changed(MANIFEST, layers=[DESCRIPTOR | {"mediaType": None}]),
        changed(MANIFEST, layers=[DESCRIPTOR | {"annotations": {"a": 1}}]),
        changed(MANIFEST, layers=[DESCRIPTOR] * 2000),
        MANIFEST.replace(b'"layers"', b'"x":' + b"[" * 100 + b"]" * 100 + b',"layers"'),
        b'{"x":' + b"[" * 200_000,
        b'{"x":[' + b"0," * 300_000 + b"0]}",
    ],
)
def test_manifests_that_are_none(raw):
    with pytest.raises(ImageError) as caught:
        parse_manifest(raw)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    "raw",
    [
        changed(CONFIG, rootfs=None),
        changed(CONFIG, rootfs={"type": "other", "diff_ids": []}),
        changed(CONFIG, rootfs={"type": "layers", "diff_ids": ["x"]}),
        changed(CONFIG, rootfs={"type": "layers", "diff_ids": None}),
        changed(CONFIG, architecture=None),
        changed(CONFIG, os=""),
        changed(CONFIG, config={"Labels": ["x"]}),
    ],
)
def test_configs_that_are_none(raw):
    with pytest.raises(ImageError):
        parse_config(raw)


def test_a_document_must_be_what_it_was_announced_as():
    with pytest.raises(ImageError, match="announced"):
        parse_manifest(MANIFEST, f"{OCI}.index.v1+json")
    with pytest.raises(ImageError, match="schema 1"):
        parse_manifest(b'{"schemaVersion": 1}', f"{DOCKER}.distribution.manifest.v1+prettyjws")
    with pytest.raises(ImageError, match="artifact"):
        parse_manifest(changed(MANIFEST, config=DESCRIPTOR, artifactType="application/x-thing"))


def test_an_image_is_resolved():
    image = Image([LAYER])
    found = resolve(MemoryFetcher(image), reference(), AMD64)
    assert str(found.manifest.digest) == image.digest
    assert found.config.raw == image.config


def test_the_image_for_the_platform_is_taken():
    images = [
        Image([LAYER], architecture="arm", variant="v7"),
        Image([LAYER], architecture="amd64", variant="v3"),
        Image([LAYER], architecture="amd64"),
        Image([LAYER], architecture="arm64", variant="v8"),
        Image([LAYER], os="windows"),
    ]
    transport = MemoryFetcher(*images)
    transport.names["latest"] = ("", index_bytes(images))
    for platform, index in (
        (AMD64, 2),
        (Platform("linux", "amd64", "v3"), 1),
        (Platform("linux", "arm64"), 3),
        (Platform("linux", "arm", "v7"), 0),
    ):
        assert str(resolve(transport, reference(), platform).manifest.digest) == images[index].digest
    with pytest.raises(ImageError, match=r"no image for linux/riscv64; there are: .*linux/arm64/v8") as caught:
        resolve(transport, reference(), Platform("linux", "riscv64"))
    assert caught.value.hint


def test_attestations_are_not_images():
    image = Image([LAYER])
    document = json.loads(index_bytes([image]))
    attestation = document["manifests"][0] | {"platform": {"os": "unknown", "architecture": "unknown"}}
    document["manifests"].append(attestation)
    transport = MemoryFetcher(image)
    transport.names["latest"] = ("", json.dumps(document).encode())
    with pytest.raises(ImageError) as caught:
        resolve(transport, reference(), Platform("linux", "s390x"))
    assert "unknown" not in caught.value.message


def nested(image: Image, levels: int) -> tuple[MemoryFetcher, bytes]:
    transport = MemoryFetcher(image)
    raw = index_bytes([image])
    for _ in range(levels):
        transport.blobs[digest(raw)] = raw
        entry = {"mediaType": f"{OCI}.index.v1+json", "digest": digest(raw), "size": len(raw)}
        raw = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    transport.names["latest"] = ("", raw)
    return transport, raw


def test_nested_indexes():
    image = Image([LAYER])
    assert str(resolve(nested(image, 3)[0], reference(), AMD64).manifest.digest) == image.digest
    with pytest.raises(LimitError, match="deeper"):
        resolve(nested(image, 4)[0], reference(), AMD64)


def test_a_wide_index_of_indexes_is_bounded():
    image = Image([LAYER])
    transport, _ = nested(image, 1)
    inner = json.loads(transport.names["latest"][1])["manifests"][0]
    transport.names["latest"] = ("", json.dumps({"schemaVersion": 2, "manifests": [inner] * 500}).encode())
    with pytest.raises(LimitError, match="more than 32"):
        resolve(transport, reference(), Platform("linux", "none"))


def test_an_explicit_platform_holds_for_single_images_too():
    transport = MemoryFetcher(Image([LAYER], architecture="arm64"))
    assert resolve(transport, reference()).config.platform.architecture == "arm64"
    with pytest.raises(ImageError, match="linux/arm64, not for linux/amd64"):
        resolve(transport, reference(), AMD64)


def test_lies_about_parts():
    image = Image([LAYER])
    transport = MemoryFetcher(image)
    transport.blobs[digest(image.config)] = image.config.replace(b"amd64", b"arm64")
    with pytest.raises(VerificationError):
        resolve(transport, reference(), AMD64)

    short = Image([LAYER, LAYER], config=Image([LAYER]).config)
    with pytest.raises(ImageError, match="2 layers and its config describes 1"):
        resolve(MemoryFetcher(short), reference(), AMD64)

    transport = MemoryFetcher(image)
    document = json.loads(index_bytes([image]))
    document["manifests"][0]["size"] += 1
    transport.names["latest"] = ("", json.dumps(document).encode())
    with pytest.raises(VerificationError, match="its index says"):
        resolve(transport, reference(), AMD64)

    transport = MemoryFetcher(image)
    transport.names["latest"] = ("", index_bytes([image]))
    transport.blobs[image.digest] = image.manifest + b" "
    with pytest.raises(VerificationError):
        resolve(transport, reference(), AMD64)
    del transport.blobs[image.digest]
    with pytest.raises(NotFoundError):
        resolve(transport, reference(), AMD64)
