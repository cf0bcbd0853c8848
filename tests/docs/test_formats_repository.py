"""The worked examples of the page on repositories: meta.json, a splitstream, what a repository with one image holds."""

import io
import re
import tarfile

import pytest
from builders.format_pages import ROW, layer, section, texts
from composefs_builders.repositories import layer_stream, open_repository, pull

from cfs_core.plugin import Digest, HashAlgorithm
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.repository.metadata import Metadata
from cfs_storage_composefs.streams.splitstream import CONFIG, SplitStream, single_object_stream
from cfs_testkit.builders.oci import Image
from cfs_testkit.builders.oci import layer as oci_layer

PAGE = "d-repository.md"
SHA256 = HashAlgorithm.SHA256
CHUNK = re.compile(r"^\| (-?\d+) \| (?:header|content|412)", re.MULTILINE)
REFERENCE = re.compile(r"^\| (config|manifest) \| `(.+?)` \| (.+?) \|$", re.MULTILINE)


def stream_at(path, name):
    return SplitStream.open((path / "streams" / name).open("rb"), SHA256, name)


def test_meta_json_is_written_like_this():
    shown = re.search(r"```json\n(.*?)```", section(PAGE, "D.3"), re.DOTALL)[1]
    assert Metadata().to_bytes().decode() == shown


def test_bytes_of_the_splitstream_are_those_that_are_written():
    json = digest_bytes(b"x" * 100, SHA256)
    named = {"sha256:aa": b"\x11" * 32, "composefs.image.v1": b"\x22" * 32}
    data = single_object_stream(CONFIG, SHA256, json, 100, named)
    rows = ROW.findall(section(PAGE, "D.9"))
    assert len(rows) == 10
    for offset, text in rows:
        expected = bytes.fromhex(text)
        assert data[int(offset) : int(offset) + len(expected)] == expected, offset
    with SplitStream.open(io.BytesIO(data), SHA256, "the example") as stream:
        assert stream.named_refs == named
        assert list(stream.chunks()) == [0]


def test_a_layer_is_these_chunks(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in (("a", b"hello\n"), ("big", b"x" * 100)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    diff_id = Digest.of(out.getvalue())
    with open_repository(tmp_path / "repository", "v1", "sha256") as repository:
        repository.import_layer(layer_stream(out.getvalue()))
    found, total = [], 0
    with stream_at(tmp_path / "repository", f"oci-layer-{diff_id}") as stream:
        while (number := stream.next_chunk()) is not None:
            found.append(number)
            total += len(stream.inline(-number)) if number < 0 else 100
    assert found == [int(number) for number in CHUNK.findall(section(PAGE, "D.9"))]
    assert total == len(out.getvalue()) == 10240


@pytest.fixture
def image():
    return Image([oci_layer(layer(number), "none") for number in (1, 2)])


def in_full(text, image):
    """Put the digests of *image* in the place of the page's words for them."""
    digests = {"CONFIG": Digest.of(image.config).hex, "MANIFEST": Digest.of(image.manifest).hex}
    digests |= {f"LAYER{number}": Digest.of(each.tar).hex for number, each in enumerate(image.layers, 1)}
    return re.sub(r"\b(CONFIG|MANIFEST|LAYER[12])\b", lambda word: digests[word[0]], text)


def test_a_repository_with_the_image_has_these_links_and_objects(image, tmp_path):
    path = tmp_path / "repository"
    with open_repository(path, "v1", "sha256") as repository:
        pull(repository, image)
    found = []
    for link in path.rglob("*"):
        if link.is_symlink():
            target = str(link.readlink())
            arrow = "" if target.startswith("../objects/") else f" -> {target}"
            found.append(f"{link.relative_to(path)}{arrow}\n")
    (shown,) = texts(PAGE, "D.10")
    assert sorted(found) == sorted(in_full(shown, image).splitlines(keepends=True))
    assert len(list(path.glob("objects/??/*"))) == 10
    assert "There are ten objects" in section(PAGE, "D.10")


def test_config_and_manifest_name_what_they_need(image, tmp_path):
    path = tmp_path / "repository"
    with open_repository(path, "v1", "sha256") as repository:
        pull(repository, image)

    def linked(name):
        return "".join((path / "streams" / name).resolve().parts[-2:])

    layers = {each.diff_id: linked(f"oci-layer-{each.diff_id}") for each in image.layers}
    config = f"oci-config-{Digest.of(image.config)}"
    targets = {"the config's stream": linked(config)}
    targets |= zip(("the first layer's stream", "the second layer's"), layers.values(), strict=True)
    rows = REFERENCE.findall(in_full(section(PAGE, "D.10"), image))
    for kind, name in (("config", config), ("manifest", f"oci-manifest-{image.digest}")):
        with stream_at(path, name) as stream:
            named = {key: value.hex() for key, value in stream.named_refs.items()}
        expected = {key: targets.get(leads, leads.strip("`…")) for which, key, leads in rows if which == kind}
        assert named.keys() == expected.keys()
        assert all(named[key].startswith(start) for key, start in expected.items())
