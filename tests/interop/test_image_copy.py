"""Copying between any two transports that can be written: digests stay, nothing half-done shows."""

from __future__ import annotations

import itertools
import json

import pytest

from cfs_core.image.copy import copy_image
from cfs_core.plugin import (
    Descriptor,
    Digest,
    Fetcher,
    ForbiddenError,
    NotFoundError,
    Platform,
    RefusedError,
    RetryPolicy,
    TransportError,
    VerificationError,
)
from cfs_testkit import faults
from cfs_testkit.context import CountedProgress, plugin_context
from cfs_testkit.images import INDEX_TYPE, build_image, build_index, sha256
from cfs_testkit.registry import RegistryServer
from cfs_transport_oci_dir.plugin import cfs_register_transports as oci_providers
from cfs_transport_registry.plugin import cfs_register_transports as registry_providers


@pytest.fixture
def open_transport(tmp_path):
    made = []
    providers = {p.schemes[0]: p for p in [*oci_providers(), *registry_providers()]}
    registries = tmp_path / "registries.conf"
    registries.write_text("")

    def opener(text):
        scheme = text.partition(":")[0]
        settings = {}
        if scheme == "docker":
            settings = {"tls-verify": False, "registries-conf": str(registries), "read-timeout": 2}
        context = plugin_context(tmp_path, settings=settings)
        transport = Fetcher(providers[scheme].factory(context), context.retrier)
        transport.retrier.policy = RetryPolicy(first_wait_seconds=0.01)
        made.append(transport)
        return transport, transport.parse(text)

    yield opener
    for transport in made:
        transport.close()


@pytest.fixture
def copy(open_transport):
    def run(source, target, **options):
        events = []
        result = copy_image(
            *open_transport(source), *open_transport(target), progress=CountedProgress(), emit=events.append, **options
        )
        assert [event.name for event in events] == ["image.copied"]
        return str(result)

    return run


@pytest.fixture
def image():
    layers = [{"a": "x" * 100_000}, {"b": "y"}, {"a": "x" * 100_000}]
    return build_image(layers, compression=["gzip", "zstd:chunked", "none"])


def test_round_trip_through_all_of_them(registry_server, copy, open_transport, image, tmp_path):
    image.publish(registry_server, "app", "1")
    steps = [
        f"docker://{registry_server.host}/app:1",
        f"oci:{tmp_path}/layout:t",
        f"oci-archive:{tmp_path}/image.tar:t",
        f"docker://{registry_server.host}/other/place:2",
    ]
    for source, target in itertools.pairwise(steps):
        assert copy(source, target) == image.digest
        transport, reference = open_transport(target)
        assert transport.fetch_manifest(reference)[1] == image.manifest
    for digest, data in image.blobs.items():
        assert registry_server.blobs["other/place", digest] == data


def test_an_index_is_copied_whole_or_for_one_platform(registry_server, copy, open_transport, tmp_path):
    images = {name: build_image([{"arch": name}], architecture=name) for name in ("amd64", "arm64")}
    for one in images.values():
        one.publish(registry_server, "multi")
    index = build_index(images)
    registry_server.put_manifest("multi", index, tag="1", media_type=INDEX_TYPE)
    source = f"docker://{registry_server.host}/multi:1"
    assert copy(source, f"oci:{tmp_path}/whole:t") == sha256(index)
    for one in images.values():
        for digest in [*one.blobs, one.digest]:
            assert (tmp_path / "whole/blobs/sha256" / digest.partition(":")[2]).is_file()
    one = copy(source, f"oci:{tmp_path}/one:t", platform=Platform("linux", "arm64"))
    assert one == images["arm64"].digest
    assert not (tmp_path / "one/blobs/sha256" / images["amd64"].digest.partition(":")[2]).exists()


def test_what_is_there_is_not_sent_again(registry_server, copy, image):
    image.publish(registry_server, "app", "1")
    for _ in range(2):
        copy(f"docker://{registry_server.host}/app:1", f"docker://{registry_server.host}/copy:1")
    assert len(registry_server.requests("/copy/blobs/uploads/", "PUT")) == len(image.blobs)


def test_an_upload_that_breaks_is_tried_again(registry_server, copy, image):
    image.publish(registry_server, "app", "1")
    registry_server.fault("/uploads/", faults.Status(503), faults.Status(502), method="PUT")
    assert copy(f"docker://{registry_server.host}/app:1", f"docker://{registry_server.host}/copy:1") == image.digest


@pytest.mark.parametrize(
    ("fault", "error"), [(faults.Corrupt(5), VerificationError), (faults.Status(404), NotFoundError)]
)
@pytest.mark.parametrize("target", ["layout", "archive", "registry"])
def test_a_bad_source_leaves_nothing_visible(
    registry_server, copy, open_transport, image, tmp_path, fault, error, target
):
    image.publish(registry_server, "app", "1")
    registry_server.fault("/app/blobs/", fault, forever=True)
    texts = {
        "layout": f"oci:{tmp_path}/layout:t",
        "archive": f"oci-archive:{tmp_path}/image.tar",
        "registry": f"docker://{registry_server.host}/copy:1",
    }
    with pytest.raises(error):
        copy(f"docker://{registry_server.host}/app:1", texts[target])
    transport, reference = open_transport(texts[target])
    with pytest.raises(TransportError):
        transport.fetch_manifest(reference)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"registries.conf"}
    wrong = [
        digest for (name, digest), data in registry_server.blobs.items() if name == "copy" and sha256(data) != digest
    ]
    assert wrong == []


def test_a_failed_copy_removes_only_what_it_began(registry_server, copy, image, tmp_path):
    image.publish(registry_server, "app", "1")
    source = f"docker://{registry_server.host}/app:1"
    registry_server.fault(f"/app/blobs/{image.layers[0]}", faults.Corrupt(5), forever=True)
    with pytest.raises(VerificationError):
        copy(source, f"oci:{tmp_path}/new/parents/layout:t")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(VerificationError):
        copy(source, f"oci:{tmp_path}/empty:t")
    assert list((tmp_path / "empty").iterdir()) == []
    other = build_image([{"o": "ther"}])
    other.publish(registry_server, "other", "1")
    copy(f"docker://{registry_server.host}/other:1", f"oci:{tmp_path}/there:o")
    before = {path for path in (tmp_path / "there").rglob("*") if path.is_file()}
    with pytest.raises(VerificationError):
        copy(source, f"oci:{tmp_path}/there:t")
    assert before <= {path for path in (tmp_path / "there").rglob("*") if path.is_file()}


def test_a_failed_copy_leaves_a_layout_that_another_run_uses(open_transport, tmp_path):
    transport, reference = open_transport(f"oci:{tmp_path}/layout:t")
    data = Descriptor(media_type="", digest=Digest.of(b"data"), size=4)
    with transport.open_writer(reference) as first:
        first.put_blob(data, [b"data"])
        with transport.open_writer(reference) as second:
            assert second.has_blob(data)
            first.close()
            assert second.has_blob(data)
    assert (tmp_path / "layout").exists(), "the second one did not begin it"


def test_a_refused_target_is_asked_once(copy, image):
    with RegistryServer() as server:
        image.publish(server, "app", "1")
        server.fault("/copy/", faults.Status(403), method="POST", forever=True)
        with pytest.raises(ForbiddenError):
            copy(f"docker://{server.host}/app:1", f"docker://{server.host}/copy:1")


def test_a_source_that_keeps_failing_is_not_tried_sixteen_times(registry_server, copy, tmp_path):
    image = build_image([{"a": "b"}])
    image.publish(registry_server, "app", "1")
    registry_server.fault("/app/blobs/" + image.layers[0], faults.Status(503), forever=True)
    with pytest.raises(TransportError):
        copy(f"docker://{registry_server.host}/app:1", f"oci:{tmp_path}/layout:t")
    assert len(registry_server.requests("/app/blobs/" + image.layers[0])) == 4


def test_docker_archives_are_not_written(registry_server, copy, image, tmp_path):
    image.publish(registry_server, "app", "1")
    with pytest.raises(RefusedError):
        copy(f"docker://{registry_server.host}/app:1", f"docker-archive:{tmp_path}/x.tar")


def test_artifacts_are_copied_too(registry_server, copy, tmp_path):
    registry_server.put_blob("art", b"{}")
    registry_server.put_blob("art", b"payload")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/example",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
            "layers": [{"mediaType": "text/plain", "digest": sha256(b"payload"), "size": 7}],
        }
    ).encode()
    registry_server.put_manifest("art", raw, tag="1")
    copied = copy(f"docker://{registry_server.host}/art:1", f"oci:{tmp_path}/layout:t")
    assert copied == sha256(raw)
