import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile

import pytest
import zstandard

from cfs_core.image.layers import open_layer
from cfs_core.image.merge import merge_layers
from cfs_core.image.resolve import resolve
from cfs_core.model.manifest import Platform
from cfs_core.model.tree import walk
from cfs_core.plugin import (
    Fetcher,
    ImageError,
    LimitError,
    NotFoundError,
    RefusedError,
    TransportError,
    UsageError,
    VerificationError,
)
from cfs_testkit.builders.oci import (
    COMPRESSIONS,
    OCI,
    File,
    Image,
    Link,
    digest,
    layer,
    raw_header,
    tar_bytes,
    write_archive,
    write_blob,
    write_docker_archive,
    write_index,
    write_layout,
)
from cfs_transport_oci_dir.docker_archive import DockerArchiveTransport
from cfs_transport_oci_dir.grammar import parse_reference
from cfs_transport_oci_dir.layout import LayoutTransport
from cfs_transport_oci_dir.oci_archive import ArchiveTransport

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
LAYERS = [layer({f"usr/lib/{name}": File(name.encode() * 5000)}, name) for name in COMPRESSIONS]
IMAGE = Image(LAYERS)
OTHER = Image(LAYERS[:1])


@pytest.fixture
def make(tmp_path):
    """Return a function from reference text to a transport and the parsed reference."""
    made = []

    def open_transport(text):
        scheme = text.partition(":")[0]
        transport = {
            "oci": LayoutTransport,
            "oci-archive": lambda: ArchiveTransport(tmp_path),
            "docker-archive": lambda: DockerArchiveTransport(tmp_path),
        }[scheme]()
        transport = Fetcher(transport)
        made.append(transport)
        return transport, transport.parse(text)

    yield open_transport
    for transport in made:
        transport.close()


def entries(transport, image):
    for index in range(len(image.manifest.layers)):
        with open_layer(transport, image, index) as stream:
            found = [member.entry for member in stream.members() if member.entry is not None]
            for _ in stream.trailer():
                pass
        yield found


def tree_of(transport, reference, platform=AMD64):
    image = resolve(transport, reference, platform)
    return image, [path for path, _ in walk(merge_layers(entries(transport, image)))]


PATHS = [b"/", b"/usr", b"/usr/lib", *sorted(f"/usr/lib/{name}".encode() for name in COMPRESSIONS)]


# --- references ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "tag", "hashed"),
    [
        ("oci:dir", "dir", None, None),
        ("oci:/a/b:tag", "/a/b", "tag", None),
        ("oci:./x:quay.io/a/b:1.0", "./x", "quay.io/a/b:1.0", None),
        (f"oci:d@sha256:{'a' * 64}", "d", None, "a" * 64),
        (f"oci:d:t@sha256:{'a' * 64}", "d", "t", "a" * 64),
        ("oci:a@b:c", "a@b", "c", None),
        ("oci:d:@1", "d", "@1", None),
    ],
)
def test_references(text, name, tag, hashed):
    found = parse_reference(text)
    assert (found.name, found.tag, found.digest and found.digest.hex) == (name, tag, hashed)
    assert str(found) == text


@pytest.mark.parametrize("text", ["oci:", "oci::tag", "oci:dir:", "nothing"])
def test_references_that_are_none(text):
    with pytest.raises(UsageError):
        parse_reference(text)


# --- directories --------------------------------------------------------------------------------


def test_a_layout_with_every_compression(tmp_path, make):
    write_layout(tmp_path / "l", {"latest": IMAGE})
    for text in ("", ":latest", f"@{IMAGE.digest}", f":latest@{IMAGE.digest}", ":@0"):
        image, paths = tree_of(*make(f"oci:{tmp_path}/l{text}"))
        assert paths == PATHS
        assert str(image.manifest.digest) == IMAGE.digest


def test_several_images(tmp_path, make):
    write_layout(tmp_path / "l", {"a": IMAGE, "b": OTHER, None: Image(LAYERS[1:2])})
    assert str(resolve(*make(f"oci:{tmp_path}/l:b")).manifest.digest) == OTHER.digest
    with pytest.raises(UsageError, match="3 images") as caught:
        resolve(*make(f"oci:{tmp_path}/l"))
    assert "tags: a, b; 1 without a tag" in caught.value.hint
    with pytest.raises(NotFoundError, match="tagged 'c'") as caught:
        resolve(*make(f"oci:{tmp_path}/l:c"))
    assert "a, b" in caught.value.hint
    with pytest.raises(NotFoundError, match="no image 3"):
        resolve(*make(f"oci:{tmp_path}/l:@3"))
    write_layout(tmp_path / "same", {"a": IMAGE, "b": IMAGE})
    assert str(resolve(*make(f"oci:{tmp_path}/same")).manifest.digest) == IMAGE.digest


def artifact(directory, *, config="application/vnd.oci.empty.v1+json", layer="text/plain", **more):
    """Write a manifest without a root file system into a layout; return its line of the index."""

    def put(data):
        digest = hashlib.sha256(data).hexdigest()
        (directory / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": config, **put(b"{}")},
        "layers": [{"mediaType": layer, **put(b"hi")}],
        **more,
    }
    return {"mediaType": document["mediaType"], **put(json.dumps(document).encode())}


COSIGN = "sha256-" + "ab" * 32 + ".sig"


@pytest.mark.parametrize(
    ("inside", "line"),
    [
        ({"artifactType": "application/x-thing"}, {"artifactType": "application/x-thing"}),
        ({}, {}),
        ({"config": "application/vnd.oci.image.config.v1+json", "layer": "application/vnd.in-toto+json"}, {}),
        (
            {"config": "application/vnd.oci.image.config.v1+json", "layer": "application/x.tar"},
            {"annotations": {"org.opencontainers.image.ref.name": COSIGN}},
        ),
        (
            {"config": "application/vnd.oci.image.config.v1+json", "layer": "application/x.tar"},
            {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}, "platform": {"os": "unknown"}},
        ),
    ],
    ids=["artifact type", "config", "layers", "cosign tag", "attestation"],
)
def test_what_stands_beside_an_image_is_not_meant(tmp_path, make, inside, line):
    image = Image([layer({"a": "1"})])
    write_layout(tmp_path / "oci", {None: image})
    index = tmp_path / "oci/index.json"
    document = json.loads(index.read_text())
    document["manifests"].insert(0, {**artifact(tmp_path / "oci", **inside), **line})
    index.write_text(json.dumps(document))
    found = resolve(*make(f"oci:{tmp_path}/oci"), AMD64)
    assert str(found.manifest.digest) == image.digest


def test_indexes(tmp_path, make):
    arm = Image(LAYERS[:1], architecture="arm64")
    write_index(tmp_path / "l", {"multi": [IMAGE, arm]})
    for platform, wanted in ((AMD64, IMAGE), (ARM64, arm)):
        assert str(resolve(*make(f"oci:{tmp_path}/l:multi"), platform).manifest.digest) == wanted.digest
    with pytest.raises(ImageError, match="there are: linux/amd64, linux/arm64"):
        resolve(*make(f"oci:{tmp_path}/l"), Platform("linux", "s390x"))
    # the layout's index itself as the index
    index = json.loads((tmp_path / "l/index.json").read_text())
    index["manifests"] = [each.descriptor | {"platform": each.platform} for each in (IMAGE, arm)]
    (tmp_path / "l/index.json").write_text(json.dumps(index))
    assert str(resolve(*make(f"oci:{tmp_path}/l"), ARM64).manifest.digest) == arm.digest


def test_one_tag_for_two_images(tmp_path, make):
    write_layout(tmp_path / "l", {"a": IMAGE, "b": OTHER})
    text = (tmp_path / "l/index.json").read_text()
    (tmp_path / "l/index.json").write_text(text.replace('"b"', '"a"'))
    with pytest.raises(ImageError, match="2 different images") as caught:
        resolve(*make(f"oci:{tmp_path}/l:a"))
    assert IMAGE.digest in caught.value.hint


def test_places_that_are_no_layout(tmp_path, make):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for path, message in (("none", "no directory"), ("file", "not a directory"), ("empty", "not an image layout")):
        with pytest.raises(NotFoundError, match=message) as caught:
            resolve(*make(f"oci:{tmp_path}/{path}"))
        assert caught.value.hint


def blob(directory, hexdigest):
    return directory / "blobs/sha256" / hexdigest.removeprefix("sha256:")


def test_blobs_must_be_plain_files(tmp_path, make):
    layout = write_layout(tmp_path / "l", {"latest": OTHER})
    target = blob(layout, digest(OTHER.config))
    moved = tmp_path / "moved"
    target.rename(moved)
    target.symlink_to(moved)
    with pytest.raises(ImageError, match="symbolic link"):
        resolve(*make(f"oci:{layout}"))
    target.unlink()
    os.mkfifo(target)
    with pytest.raises(ImageError, match="not a regular file"):
        resolve(*make(f"oci:{layout}"))
    target.unlink()
    target.mkdir()
    with pytest.raises(ImageError, match="not a regular file"):
        resolve(*make(f"oci:{layout}"))
    target.rmdir()
    with pytest.raises(NotFoundError):
        resolve(*make(f"oci:{layout}"))
    shutil.move(layout / "blobs", tmp_path / "outside")
    (layout / "blobs").symlink_to(tmp_path / "outside")
    with pytest.raises(ImageError):
        resolve(*make(f"oci:{layout}"))


def test_damaged_blobs(tmp_path, make):
    layout = write_layout(tmp_path / "l", {"latest": OTHER})
    config = blob(layout, digest(OTHER.config))
    config.write_bytes(OTHER.config.replace(b"amd64", b"arm64"))
    with pytest.raises(VerificationError, match="other content"):
        resolve(*make(f"oci:{layout}"))
    config.write_bytes(OTHER.config + b" ")
    with pytest.raises(VerificationError, match="its descriptor says"):
        resolve(*make(f"oci:{layout}"))
    manifest = blob(layout, OTHER.digest)
    manifest.write_bytes(OTHER.manifest + b" ")
    with pytest.raises(VerificationError, match="not what its name says"):
        resolve(*make(f"oci:{layout}"))
    with pytest.raises(VerificationError):
        resolve(*make(f"oci:{layout}@{OTHER.digest}"))
    manifest.write_bytes(b" " * (5 << 20))
    with pytest.raises(LimitError):
        resolve(*make(f"oci:{layout}"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("oci-layout", '{"imageLayoutVersion": "2.0.0"}'),
        ("oci-layout", "{}"),
        ("oci-layout", "x" * 100_000),
        ("index.json", "[]"),
        ("index.json", '{"manifests": {}}'),
        ("index.json", '{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}'),
        ("index.json", '{"manifests": [], "manifests": []}'),
        ("index.json", "[" * 100_000),
        ("index.json", " " * (5 << 20)),
    ],
)
def test_hostile_documents(tmp_path, make, name, text):
    layout = write_layout(tmp_path / "l", {"latest": OTHER})
    (layout / name).write_text(text)
    with pytest.raises(ImageError):
        resolve(*make(f"oci:{layout}"))


def test_reading_from_the_middle(tmp_path, make):
    layout = write_layout(tmp_path / "l", {"latest": IMAGE})
    archive = write_archive(tmp_path / "a.tar", {"latest": IMAGE})
    for text in (f"oci:{layout}", f"oci-archive:{archive}"):
        transport, reference = make(text)
        descriptor = resolve(transport, reference).manifest.layers[0]
        for offset in (0, 1, 5000, descriptor.size):
            with transport.transport.open_blob(reference, descriptor, offset) as chunks:
                assert b"".join(chunks) == LAYERS[0].blob[offset:]


# --- archives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_archives_plain_and_compressed(tmp_path, make, pack):
    scratch = set(tmp_path.iterdir())
    archive = write_archive(tmp_path / "a.tar", {"latest": IMAGE})
    archive.write_bytes(pack(archive.read_bytes()))
    for text in ("", ":latest", f"@{IMAGE.digest}"):
        image, paths = tree_of(*make(f"oci-archive:{archive}{text}"))
        assert paths == PATHS
        assert str(image.manifest.digest) == IMAGE.digest
    assert set(tmp_path.iterdir()) == scratch | {archive}


def test_archives_that_are_none(tmp_path, make):
    archive = tmp_path / "a.tar"
    with pytest.raises(NotFoundError, match="no file"):
        resolve(*make(f"oci-archive:{archive}"))
    with pytest.raises(NotFoundError, match="directory"):
        resolve(*make(f"oci-archive:{tmp_path}"))
    good = write_archive(archive, {"latest": OTHER}).read_bytes()
    gz = gzip.compress(good)
    twice = tar_bytes([("oci-layout", "{}"), ("oci-layout", Link("x"))])
    for data, message in (
        (b"no tar" * 1000, "not a readable tar"),
        (good[:-20_000], "ends too early"),
        (good[:3000], "ends in the middle"),
        (gz[:-50], "cannot be decompressed"),
        (gz[:500] + b"xxxx" + gz[504:], "cannot be decompressed"),
        (tar_bytes({"x": "y"}), "no oci-layout in it"),
        (twice, "no oci-layout in it"),
        (b"PK\x03\x04" + bytes(2000), "a zip file, not a tar archive"),
        (gzip.compress(b"hsqs" + bytes(2000)), "a squashfs image, not a tar archive"),
        (b"<html>" + bytes(2000), "an HTML page"),
        (raw_header(b"f", b"S", 0) + bytes(1024), "no oci-layout in it"),
        (raw_header(b"f", b"S", 1) + bytes(1024), "map of a sparse file is malformed"),
        (tar_bytes({"../x": "y"}, parents=False), "leaves the tree"),
        (b"", "no oci-layout in it"),
    ):
        archive.write_bytes(data)
        with pytest.raises(ImageError, match=message):
            resolve(*make(f"oci-archive:{archive}"))
    assert list(tmp_path.iterdir()) == [archive]


def test_of_two_members_with_one_name_the_last_counts(tmp_path, make):
    """What an archive that was added to looks like (tar -r)."""
    archive = write_archive(tmp_path / "a.tar", {"latest": IMAGE})
    expected = resolve(*make(f"oci-archive:{archive}")).manifest.digest
    with tarfile.open(archive) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar if member.isfile()]
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for member, data in [(m, b"x" * len(d)) for m, d in members if m.name.endswith("index.json")] + members:
            tar.addfile(member, io.BytesIO(data))
    assert resolve(*make(f"oci-archive:{tmp_path}/twice.tar")).manifest.digest == expected


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")
@pytest.mark.parametrize("form", [["gnu"], ["pax", "--sparse-version=0.0"], ["pax", "--sparse-version=1.0"]])
def test_a_sparse_archive_is_read(tmp_path, make, form):
    """GNU tar's, of blobs with holes in them: `fallocate -d` leaves them in a layer without compression."""
    image = Image([layer({"usr/zero": File(bytes(1 << 20)), "usr/x": "1", "usr/y": File(bytes(1 << 20))}, "none")])
    write_layout(tmp_path / "layout", {"t": image})
    blob = tmp_path / "layout/blobs" / digest(image.layers[0].blob).replace(":", "/")
    data = blob.read_bytes()
    with blob.open("wb") as file:
        for at in range(0, len(data), 4096):
            if any(piece := data[at : at + 4096]):
                file.seek(at)
                file.write(piece)
        file.truncate(len(data))
    words = ["--sparse", f"--format={form[0]}", *form[1:], "-cf", tmp_path / "a.tar", "."]
    done = subprocess.run(["tar", "-C", tmp_path / "layout", *words], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this tar is not GNU's")
    assert (tmp_path / "a.tar").stat().st_size < len(data) // 4
    # Reading a layer to its end compares it with its digests.
    _, paths = tree_of(*make(f"oci-archive:{tmp_path}/a.tar"))
    assert paths == [b"/", b"/usr", b"/usr/x", b"/usr/y", b"/usr/zero"]


def test_docker_save_before_1_10(tmp_path, make):
    parts = {"aa/VERSION": "1.0", "aa/json": '{"id":"aa"}', "aa/layer.tar": "", "repositories": '{"x":{"latest":"aa"}}'}
    (tmp_path / "old.tar").write_bytes(tar_bytes(parts))
    with pytest.raises(ImageError, match=r"before Docker 1\.10") as caught:
        resolve(*make(f"docker-archive:{tmp_path}/old.tar"))
    assert "podman save" in caught.value.hint


def test_the_other_kind_of_archive_is_named(tmp_path, make):
    docker = write_docker_archive(tmp_path / "d.tar", OTHER)
    with pytest.raises(ImageError) as caught:
        resolve(*make(f"oci-archive:{docker}"))
    assert caught.value.hint == f"write docker-archive:{docker}"
    oci = write_archive(tmp_path / "o.tar", {"latest": OTHER})
    with pytest.raises(ImageError) as caught:
        resolve(*make(f"docker-archive:{oci}"))
    assert caught.value.hint == f"write oci-archive:{oci}"


# --- docker archives ----------------------------------------------------------------------------


def test_a_docker_archive(tmp_path, make):
    archive = write_docker_archive(tmp_path / "d.tar", IMAGE, "docker.io/library/x:latest", "quay.io/a/b:1")
    for text in ("", ":x", ":x:latest", ":docker.io/library/x:latest", ":quay.io/a/b:1", ":@0"):
        image, paths = tree_of(*make(f"docker-archive:{archive}{text}"))
        assert paths == PATHS
        assert str(image.config.digest) == digest(IMAGE.config)
        assert [str(each.digest) for each in image.manifest.layers] == [each.diff_id for each in LAYERS]
    pinned = image.manifest.digest
    assert resolve(*make(f"docker-archive:{archive}@{pinned}")).manifest.digest == pinned
    for text in (":y", ":quay.io/a/b", ":@7", f"@{IMAGE.digest}"):
        with pytest.raises(NotFoundError):
            resolve(*make(f"docker-archive:{archive}{text}"))


def docker_archive(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                import io

                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def test_layers_as_docker_lays_them_out(tmp_path, make):
    """Compressed layers (newer docker), and links to layers that several images share (older docker)."""
    image = Image([LAYERS[1], LAYERS[3], LAYERS[1]])
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["blobs/sha256/1", "2/layer.tar", "3/layer.tar"]}]
    members = {
        "manifest.json": json.dumps(manifest).encode(),
        "c.json": image.config,
        "blobs/sha256/1": LAYERS[1].blob,
        "2/layer.tar": LAYERS[3].blob,
        "3/layer.tar": "../blobs/sha256/1",
    }
    archive = docker_archive(tmp_path / "d.tar", members)
    found, _ = tree_of(*make(f"docker-archive:{archive}"))
    assert [each.media_type.rpartition(".")[2] for each in found.manifest.layers] == [
        "tar+gzip",
        "tar+zstd",
        "tar+gzip",
    ]


def test_hostile_docker_archives(tmp_path, make):
    def attempt(manifest, **members):
        given = {"manifest.json": json.dumps(manifest).encode(), "c": OTHER.config, "l": LAYERS[0].tar} | members
        archive = docker_archive(tmp_path / "d.tar", given)
        return tree_of(*make(f"docker-archive:{archive}"))

    image = {"Config": "c", "Layers": ["l"], "RepoTags": ["x:1"]}
    assert attempt([image])
    with pytest.raises(UsageError, match="2 images") as caught:
        attempt([image, image | {"RepoTags": ["y:1"]}])
    assert "x:1, y:1" in caught.value.hint
    for wrong in (
        {},
        [],
        ["x"],
        [image | {"Layers": "l"}],
        [image | {"Layers": [1]}],
        [image | {"Config": None}],
        [image | {"Layers": []}],
        [image | {"Layers": ["l", "l"]}],
        [image | {"Layers": ["none"]}],
        [image | {"Config": "/etc/passwd"}],
        [image | {"Config": "../../etc/passwd"}],
    ):
        with pytest.raises((ImageError, NotFoundError, UsageError)):
            attempt(wrong)
    for name in ("l", "c"):
        with pytest.raises((ImageError, NotFoundError)):
            attempt([image], **{name: "/etc/passwd"})
        with pytest.raises((ImageError, NotFoundError)):
            attempt([image], **{name: name})
    with pytest.raises(VerificationError):
        attempt([image], l=LAYERS[0].tar[:-1] + b"x")


# --- writing ------------------------------------------------------------------------------------


def copy(transport, reference, image, *, stop=False):
    with transport.open_writer(reference) as writer:
        manifest = parse(image)
        for descriptor, data in zip(
            (*manifest.layers, manifest.config), [*(each.blob for each in image.layers), image.config], strict=True
        ):
            if not writer.has_blob(descriptor):
                writer.put_blob(descriptor, [data])
            assert writer.has_blob(descriptor)
        if not stop:
            writer.put_manifest(descriptor_of(image), image.manifest, top=True)


def parse(image):
    from cfs_core.image.manifest import parse_manifest

    return parse_manifest(image.manifest)


def descriptor_of(image):
    from cfs_core.plugin import Descriptor, Digest

    raw = image.manifest
    return Descriptor(media_type=image.media_type, digest=Digest.parse(image.digest), size=len(raw))


@pytest.mark.parametrize("scheme", ["oci", "oci-archive"])
def test_what_is_written_is_read_back(tmp_path, make, scheme):
    copy(*make(f"{scheme}:{tmp_path}/out:v1"), IMAGE)
    found, paths = tree_of(*make(f"{scheme}:{tmp_path}/out:v1"))
    assert paths == PATHS
    assert str(found.manifest.digest) == IMAGE.digest
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_tags_are_added_and_moved(tmp_path, make):
    for tag, image in ((":a", IMAGE), (":b", OTHER), (":a", OTHER), ("", IMAGE), ("", IMAGE)):
        copy(*make(f"oci:{tmp_path}/l{tag}"), image)
    index = json.loads((tmp_path / "l/index.json").read_text())
    found = [(each["digest"], each.get("annotations")) for each in index["manifests"]]
    name = "org.opencontainers.image.ref.name"
    assert found == [(OTHER.digest, {name: "b"}), (OTHER.digest, {name: "a"}), (IMAGE.digest, None)]


def test_unknown_members_of_an_index_stay(tmp_path, make):
    layout = write_layout(tmp_path / "l", {"a": IMAGE})
    index = json.loads((layout / "index.json").read_text())
    index["annotations"] = {"x": "y"}
    index["manifests"][0]["artifactType"] = "z"
    (layout / "index.json").write_text(json.dumps(index))
    copy(*make(f"oci:{layout}:b"), OTHER)
    found = json.loads((layout / "index.json").read_text())
    assert found["annotations"] == {"x": "y"}
    assert found["manifests"][0]["artifactType"] == "z"


@pytest.mark.parametrize("scheme", ["oci", "oci-archive"])
def test_nothing_shows_before_the_end(tmp_path, make, scheme):
    transport, reference = make(f"{scheme}:{tmp_path}/out:v1")
    copy(transport, reference, IMAGE, stop=True)
    assert not (tmp_path / "out/index.json").exists()

    def torn():
        yield LAYERS[0].blob[:10]
        msg = "cut"
        raise TransportError(msg)

    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    with transport.open_writer(reference) as writer:
        descriptor = parse(IMAGE).layers[0]
        with pytest.raises(TransportError):
            writer.put_blob(descriptor, torn())
        assert not writer.has_blob(descriptor)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "oci-layout"] == []


def test_writers_refuse_what_is_not_theirs(tmp_path, make):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").write_text("mine")
    (tmp_path / "old.tar").write_text("mine")
    for text in (f"oci:{tmp_path}/home:a", f"oci-archive:{tmp_path}/old.tar", f"oci:{tmp_path}/n@{IMAGE.digest}"):
        transport, reference = make(text)
        with pytest.raises(RefusedError):
            transport.open_writer(reference)
    transport, reference = make(f"docker-archive:{tmp_path}/new.tar")
    with pytest.raises(RefusedError):
        transport.open_writer(reference)
    transport, reference = make(f"oci:{tmp_path}/old.tar/x:a")
    with pytest.raises(TransportError):
        transport.open_writer(reference)


def test_archives_are_reproducible(tmp_path, make):
    copy(*make(f"oci-archive:{tmp_path}/1:v1"), IMAGE)
    copy(*make(f"oci-archive:{tmp_path}/2:v1"), IMAGE)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


# --- the real world -----------------------------------------------------------------------------

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


def skopeo(*argv):
    done = subprocess.run(["skopeo", "--insecure-policy", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_skopeo
@pytest.mark.judge
def test_skopeo_and_we_agree(tmp_path, make):
    source = write_layout(tmp_path / "l", {"v1": Image(LAYERS[:3])})
    wanted = tree_of(*make(f"oci:{source}:v1"))[1]
    for target in (f"oci:{tmp_path}/copy:t", f"oci-archive:{tmp_path}/o.tar:t", f"docker-archive:{tmp_path}/d.tar:x:t"):
        skopeo("copy", "-q", f"oci:{source}:v1", target)
        assert tree_of(*make(target))[1] == wanted
    skopeo("copy", "-q", "--dest-compress-format=zstd", "--dest-compress",
           f"oci:{source}:v1", f"oci:{tmp_path}/zstd:t")  # fmt: skip
    assert tree_of(*make(f"oci:{tmp_path}/zstd:t"))[1] == wanted


@needs_skopeo
@pytest.mark.judge
def test_skopeo_reads_what_we_write(tmp_path, make):
    image = Image(LAYERS[:4])
    for scheme in ("oci", "oci-archive"):
        copy(*make(f"{scheme}:{tmp_path}/{scheme}:v1"), image)
        document = json.loads(skopeo("inspect", f"{scheme}:{tmp_path}/{scheme}:v1"))
        assert document["Digest"] == image.digest
        skopeo("copy", "-q", f"{scheme}:{tmp_path}/{scheme}:v1", f"dir:{tmp_path}/{scheme}-dir")


def test_unused_blobs_do_no_harm(tmp_path, make):
    layout = write_layout(tmp_path / "l", {"v1": IMAGE})
    write_blob(layout, b"stray")
    (layout / "blobs/sha256/.partial-x").write_text("left over")
    assert OCI in resolve(*make(f"oci:{layout}:v1")).manifest.media_type
