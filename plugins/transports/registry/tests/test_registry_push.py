"""Pushing, and what refers to an image."""

from __future__ import annotations

import json

import pytest

from cfs_core.plugin import (
    Descriptor,
    Digest,
    ForbiddenError,
    ImageError,
    LimitError,
    ServerError,
    UnauthorizedError,
    VerificationError,
)
from cfs_testkit import faults
from cfs_testkit.images import build_image, sha256
from cfs_testkit.registry import Access, RegistryServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def image():
    return build_image([{"a": "b"}, {"c": "d"}])


def descriptor(data, media_type="application/octet-stream"):
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


def push(transport, server, image):
    with transport.open_writer(transport.parse(f"docker://{server.host}/new/app:1")) as writer:
        for data in image.blobs.values():
            if not writer.has_blob(descriptor(data)):
                writer.put_blob(descriptor(data), iter([data[:50], data[50:]]))
        writer.put_manifest(descriptor(image.manifest, MANIFEST), image.manifest, top=True)


@pytest.mark.parametrize("kind", ["basic", "token", None])
def test_what_is_pushed_is_there(make_transport, image, tmp_path, kind):
    access = Access(kind, "alice", "pw") if kind else None
    with RegistryServer(access=access) as server:
        path = tmp_path / "auth.json"
        path.write_text(f'{{"auths": {{"{server.host}": {{"auth": "YWxpY2U6cHc="}}}}}}')
        transport = make_transport(authfile=str(path))
        push(transport, server, image)
        assert transport.fetch_manifest(transport.parse(f"docker://{server.host}/new/app:1"))[1] == image.manifest
        for digest, data in image.blobs.items():
            assert server.blobs["new/app", digest] == data
        push(transport, server, image)
        assert len(server.requests("/uploads/", "PUT")) == len(image.blobs)


@pytest.mark.parametrize(
    ("method", "path", "fault", "error"),
    [
        ("POST", "/uploads/", faults.Status(403), ForbiddenError),
        ("POST", "/uploads/", faults.Status(401), UnauthorizedError),
        ("POST", "/uploads/", faults.Status(202), ServerError),
        ("PUT", "/uploads/", faults.Status(500), ServerError),
        ("PUT", "/manifests/", faults.Status(400), ServerError),
        ("PUT", "/manifests/", faults.Status(201, {"Docker-Content-Digest": "sha256:" + "0" * 64}), VerificationError),
        ("HEAD", "/blobs/", faults.Status(500), ServerError),
    ],
)
def test_a_refused_push_is_an_error(registry_server, make_transport, image, method, path, fault, error):
    registry_server.fault(path, fault, method=method, forever=True)
    with pytest.raises(error):
        push(make_transport(), registry_server, image)
    assert ("new/app", "1") not in registry_server.manifests


def signature(subject, kind):
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
            "layers": [],
            "subject": {"mediaType": MANIFEST, "digest": subject.digest, "size": len(subject.manifest)},
        }
    ).encode()
    return raw, sha256(raw)


def test_referrers_by_the_api(registry_server, make_transport, image):
    image.publish(registry_server, "app", "1")
    found = {}
    for kind in ("application/x.sig", "application/x.sbom"):
        raw, found[kind] = signature(image, kind)
        registry_server.put_manifest("app", raw)
    transport = make_transport()
    reference = transport.parse(f"docker://{registry_server.host}/app:1")
    listed = transport.referrers(reference, Digest.parse(image.digest))
    assert {str(one.digest) for one in listed} == set(found.values())
    only = transport.referrers(reference, Digest.parse(image.digest), "application/x.sig")
    assert [str(one.digest) for one in only] == [found["application/x.sig"]]
    assert transport.referrers(reference, Digest.of(b"unknown")) == ()


def test_referrers_by_the_tag_where_there_is_no_api(make_transport, image):
    with RegistryServer(referrers=False) as server:
        image.publish(server, "app", "1")
        raw, digest = signature(image, "application/x.sig")
        server.put_manifest("app", raw)
        entry = {"mediaType": MANIFEST, "digest": digest, "size": len(raw), "artifactType": "application/x.sig"}
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
        server.put_manifest("app", json.dumps(index).encode(), tag=image.digest.replace(":", "-"))
        transport = make_transport()
        reference = transport.parse(f"docker://{server.host}/app:1")
        listed = transport.referrers(reference, Digest.parse(image.digest), "application/x.sig")
        assert [str(one.digest) for one in listed] == [digest]
        assert transport.referrers(reference, Digest.of(b"unknown")) == ()


def test_pages_of_referrers_are_followed_at_home_only(registry_server, make_transport, image):
    raw, digest = signature(image, "a/b")
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(raw), "artifactType": "a/b"}
    page = json.dumps({"manifests": [entry]}).encode()
    path = f"/v2/app/referrers/{image.digest}"
    registry_server.fault(
        "/referrers/",
        faults.Status(200, {"Link": f'<{path}?page=2>; rel="next"'}, page),
        faults.Status(200, {"Link": '<http://elsewhere.example/x>; rel="next"'}, page),
    )
    transport = make_transport()
    reference = transport.parse(f"docker://{registry_server.host}/app:1")
    assert len(transport.referrers(reference, Digest.parse(image.digest))) == 2


@pytest.mark.parametrize("link", ["http://[/x", "/v2/?next=http://elsewhere.example/x", "ftp://[::1/x"])
def test_a_senseless_next_page_does_no_harm(registry_server, make_transport, image, link):
    page = json.dumps({"manifests": []}).encode()
    registry_server.fault("/referrers/", faults.Status(200, {"Link": f'<{link}>; rel="next"'}, page))
    transport = make_transport()
    reference = transport.parse(f"docker://{registry_server.host}/app:1")
    assert transport.referrers(reference, Digest.parse(image.digest)) == ()


@pytest.mark.parametrize("size", ["Infinity", "NaN", '"many"', "null", "1e999"])
def test_a_senseless_size_of_a_referrer_is_an_error_of_the_image(registry_server, make_transport, image, size):
    page = f'{{"manifests": [{{"mediaType": "a/b", "digest": "{image.digest}", "size": {size}}}]}}'.encode()
    registry_server.fault("/referrers/", faults.Status(200, {}, page))
    transport = make_transport()
    with pytest.raises(ImageError):
        transport.referrers(transport.parse(f"docker://{registry_server.host}/app:1"), Digest.parse(image.digest))


def test_referrers_have_a_limit(registry_server, make_transport, image):
    entry = {"mediaType": "a/b", "digest": image.digest, "size": 1}
    page = json.dumps({"manifests": [entry] * 5000}).encode()
    path = f"/v2/app/referrers/{image.digest}"
    registry_server.fault("/referrers/", faults.Status(200, {"Link": f'<{path}>; rel="next"'}, page), forever=True)
    transport = make_transport()
    with pytest.raises(LimitError):
        transport.referrers(transport.parse(f"docker://{registry_server.host}/app:1"), Digest.parse(image.digest))
    assert len(registry_server.requests("/referrers/")) == 3


@pytest.mark.parametrize("location", ["http://[/x", "ftp://127.0.0.1/x"])
def test_an_upload_to_nowhere_is_an_error_of_the_server(registry_server, make_transport, location):
    registry_server.fault("/uploads/", faults.Status(202, {"Location": location}), method="POST", forever=True)
    transport = make_transport()
    reference = transport.parse(f"docker://{registry_server.host}/app:1")
    with transport.open_writer(reference) as writer, pytest.raises(ServerError):
        writer.put_blob(descriptor(b"data"), [b"data"])
