"""One test per fault: the right error with exit status and hint, or recovery; nothing waits beyond its timeout."""

from __future__ import annotations

import email.utils
import json
import time

import pytest

from cfs_core.errors import ImageError
from cfs_core.plugin import (
    ContentTypeError,
    Descriptor,
    Digest,
    ForbiddenError,
    LimitError,
    NotFoundError,
    Platform,
    RateLimitedError,
    ServerError,
    TransferTimeoutError,
    TruncatedError,
    UnauthorizedError,
    UnreachableError,
    VerificationError,
)
from cfs_testkit import faults
from cfs_testkit.images import INDEX_TYPE, build_image, build_index, sha256
from cfs_testkit.registry import RegistryServer

DATA = bytes(range(256)) * 4096  # 1 MiB
MANIFESTS = r"/manifests/"
BLOBS = r"/blobs/"


@pytest.fixture
def image():
    return build_image([{"etc/motd": "hello\n", "usr/lib/os-release": "ID=test\n"}])


@pytest.fixture
def server(registry_server, image):
    image.publish(registry_server, "a/image", "1")
    registry_server.put_blob("a/image", DATA)
    return registry_server


@pytest.fixture
def transport(make_transport):
    return make_transport()


@pytest.fixture
def reference(server, transport):
    return transport.parse(f"docker://{server.host}/a/image:1")


BLOB = Descriptor(media_type="application/octet-stream", digest=Digest.of(DATA), size=len(DATA))


def pull_blob(transport, reference):
    return b"".join(transport.iter_blob(reference, BLOB))


# --- manifests -------------------------------------------------------------------------------


def test_without_faults_manifest_and_blob_arrive(server, transport, reference, image):
    media_type, raw = transport.fetch_manifest(reference)
    assert (media_type, raw) == ("application/vnd.oci.image.manifest.v1+json", image.manifest)
    assert pull_blob(transport, reference) == DATA
    agent = server.requests(MANIFESTS)[0].headers["User-Agent"]
    assert agent.startswith("cfs/0.")


@pytest.mark.parametrize(
    ("status", "error", "code", "hint"),
    [
        (401, UnauthorizedError, "transport.unauthorized", "log in"),
        (403, ForbiddenError, "transport.forbidden", "permissions"),
        (404, NotFoundError, "transport.not-found", "name and tag"),
        (429, RateLimitedError, "transport.rate-limited", "later"),
        (500, ServerError, "transport.server", "later"),
        (503, ServerError, "transport.server", "later"),
    ],
)
def test_a_status_that_stays_is_its_own_error(server, transport, reference, status, error, code, hint):
    body = json.dumps({"errors": [{"code": "SOMETHING", "message": "the registry's own words"}]}).encode()
    server.fault(MANIFESTS, faults.Status(status, body=body), forever=True)
    server.fault(BLOBS, faults.Status(status, body=body), forever=True)
    for action in (lambda: transport.fetch_manifest(reference), lambda: pull_blob(transport, reference)):
        with pytest.raises(error) as caught:
            action()
        assert (caught.value.code, caught.value.exit_status) == (code, 6)
        assert hint in caught.value.hint
        assert "the registry's own words" in str(caught.value)
        assert caught.value.facts["status"] == status
    transient = status in (429, 500, 503)
    assert len(server.requests(MANIFESTS)) == (4 if transient else 1)


def test_500_then_fine(server, transport, reference, image):
    server.fault(MANIFESTS, faults.Status(500), faults.Status(502))
    server.fault(BLOBS, faults.Status(500))
    assert transport.fetch_manifest(reference)[1] == image.manifest
    assert pull_blob(transport, reference) == DATA


def test_429_waits_as_long_as_asked_in_seconds(server, make_transport, image):
    waits = []
    transport = make_transport(waits=waits)
    server.fault(MANIFESTS, faults.Status(429, {"Retry-After": "7"}))
    assert transport.fetch_manifest(transport.parse(f"docker://{server.host}/a/image:1"))[1] == image.manifest
    assert waits == [7.0]


def test_429_waits_as_long_as_asked_by_a_date(server, make_transport, image):
    waits = []
    transport = make_transport(waits=waits)
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.fault(MANIFESTS, faults.Status(429, {"Retry-After": date}))
    assert transport.fetch_manifest(transport.parse(f"docker://{server.host}/a/image:1"))[1] == image.manifest
    assert len(waits) == 1
    assert 27 <= waits[0] <= 31


@pytest.mark.parametrize("value", ["soon", "-5", "", "9" * 400, "Thu, 99 Foo 2026"])
def test_a_senseless_retry_after_does_no_harm(server, make_transport, value):
    waits = []
    transport = make_transport(waits=waits)
    server.fault(MANIFESTS, faults.Status(429, {"Retry-After": value}))
    reference = transport.parse(f"docker://{server.host}/a/image:1")
    if value.startswith("9"):
        with pytest.raises(RateLimitedError):
            transport.fetch_manifest(reference)
        assert waits == []
    else:
        transport.fetch_manifest(reference)
        assert waits == [0.01]


def test_silence_ends_with_the_timeout(server, make_transport):
    transport = make_transport(read_timeout=0.2)
    reference = transport.parse(f"docker://{server.host}/a/image:1")
    server.fault(MANIFESTS, faults.Silence(), forever=True)
    server.fault(BLOBS, faults.Silence(1000), forever=True)
    begun = time.monotonic()
    with pytest.raises(TransferTimeoutError) as caught:
        transport.fetch_manifest(reference)
    assert (caught.value.code, caught.value.exit_status) == ("transport.timeout", 6)
    with pytest.raises(TransferTimeoutError):
        pull_blob(transport, reference)
    assert time.monotonic() - begun < 4


def test_one_byte_now_and_then_is_not_progress(server, make_transport):
    transport = make_transport(read_timeout=0.3)
    reference = transport.parse(f"docker://{server.host}/a/image:1")
    server.fault(BLOBS, faults.Drip(0.1), forever=True)
    server.fault(MANIFESTS, faults.Drip(0.1), forever=True)
    begun = time.monotonic()
    with pytest.raises(TransferTimeoutError):
        transport.fetch_manifest(reference)
    assert time.monotonic() - begun < 4


def test_silence_then_fine(server, make_transport):
    transport = make_transport(read_timeout=0.2)
    server.fault(BLOBS, faults.Silence(5000))
    assert pull_blob(transport, transport.parse(f"docker://{server.host}/a/image:1")) == DATA
    assert server.requests(BLOBS)[1].headers["Range"] == "bytes=5000-"


def test_nobody_listens(make_transport):
    with RegistryServer() as gone:
        host = gone.host
    transport = make_transport()
    with pytest.raises(UnreachableError) as caught:
        transport.fetch_manifest(transport.parse(f"docker://{host}/a/image:1"))
    assert (caught.value.code, caught.value.exit_status) == ("transport.unreachable", 6)
    assert "refused" in str(caught.value).lower()


@pytest.mark.parametrize("fault", [faults.Endless(), faults.Extra(bytes(5 * 1024 * 1024))])
def test_a_manifest_has_a_limit(server, transport, reference, fault):
    server.fault(MANIFESTS, fault, forever=True)
    with pytest.raises(LimitError) as caught:
        transport.fetch_manifest(reference)
    assert (caught.value.code, caught.value.exit_status) == ("image.limit", 8)


@pytest.mark.parametrize("value", ["text/html", "image/png", "application/vnd.docker.distribution.manifest.v1+json"])
def test_a_login_page_is_not_a_manifest(server, transport, reference, value):
    server.fault(MANIFESTS, faults.ContentType(value, b"<html>log in</html>"), forever=True)
    with pytest.raises(ContentTypeError) as caught:
        transport.fetch_manifest(reference)
    assert (caught.value.code, caught.value.exit_status) == ("transport.content-type", 6)
    assert caught.value.hint
    assert len(server.requests(MANIFESTS)) == 1


@pytest.mark.parametrize("value", [None, "application/json", "text/plain; charset=utf-8"])
def test_a_vague_content_type_leaves_it_to_the_manifest(server, transport, reference, image, value):
    server.fault(MANIFESTS, faults.ContentType(value))
    assert transport.fetch_manifest(reference) == ("", image.manifest)


def test_another_manifest_than_the_stated_digest(server, transport, reference):
    server.fault(MANIFESTS, faults.Corrupt(20))
    with pytest.raises(VerificationError) as caught:
        transport.fetch_manifest(reference)
    assert (caught.value.code, caught.value.exit_status) == ("verification", 7)
    assert len(server.requests(MANIFESTS)) == 1


def test_another_manifest_than_was_asked_for(server, transport, image):
    other = build_image([{"x": "y"}])
    server.manifests["a/image", image.digest] = ("application/vnd.oci.image.manifest.v1+json", other.manifest)
    with pytest.raises(VerificationError):
        transport.fetch_manifest(transport.parse(f"docker://{server.host}/a/image@{image.digest}"))


def test_the_reported_digest_is_the_registrys(server, transport, reference):
    from cfs_core.image.resolve import resolve

    resolved = resolve(transport, reference, Platform("linux", "amd64"))
    assert str(resolved.manifest.digest) == sha256(server.manifests["a/image", "1"][1])


def test_an_index_without_our_platform(server, transport):
    from cfs_core.image.resolve import resolve

    other = build_image([{"x": "y"}], architecture="riscv64")
    other.publish(server, "a/multi")
    server.put_manifest("a/multi", build_index({"riscv64": other}), tag="1", media_type=INDEX_TYPE)
    with pytest.raises(ImageError) as caught:
        resolve(transport, transport.parse(f"docker://{server.host}/a/multi:1"), Platform("linux", "amd64"))
    assert caught.value.exit_status == 8
    assert "riscv64" in f"{caught.value} {caught.value.hint}"


def test_a_tag_that_moves_between_two_requests_changes_nothing(server, transport):
    from cfs_core.image.resolve import resolve

    old, new = build_image([{"x": "old"}]), build_image([{"x": "new"}])
    for one in (old, new):
        one.publish(server, "a/moving")
    server.put_manifest("a/moving", build_index({"amd64": old}), tag="1", media_type=INDEX_TYPE)

    def move():
        server.put_manifest("a/moving", build_index({"amd64": new}), tag="1", media_type=INDEX_TYPE)

    server.fault("/a/moving/manifests/1", faults.Run(move))
    resolved = resolve(transport, transport.parse(f"docker://{server.host}/a/moving:1"), Platform("linux", "amd64"))
    assert str(resolved.manifest.digest) == old.digest
    layer = resolved.manifest.layers[0]
    assert b"".join(transport.iter_blob(resolved.reference, layer)) == old.blobs[old.layers[0]]
    assert len(server.requests("/manifests/1$")) == 1


# --- blobs -----------------------------------------------------------------------------------


def test_a_reset_in_the_middle_is_resumed_by_range(server, transport, reference):
    server.fault(BLOBS, faults.Reset(600_000), faults.Reset(100_000))
    assert pull_blob(transport, reference) == DATA
    ranges = [seen.headers.get("Range") for seen in server.requests(BLOBS)]
    assert ranges[0] is None
    starts = [int(text.removeprefix("bytes=").removesuffix("-")) for text in ranges[1:]]
    # what was sent right before a reset may or may not have arrived
    assert len(starts) == 2
    assert 0 < starts[0] <= 600_000
    assert starts[0] < starts[1] <= 700_000


@pytest.mark.parametrize("chunked", [False, True])
def test_a_truncated_body_is_resumed(server, transport, reference, chunked):
    server.fault(BLOBS, faults.Truncate(300_000, chunked=chunked))
    assert pull_blob(transport, reference) == DATA
    assert [seen.headers.get("Range") for seen in server.requests(BLOBS)] == [None, "bytes=300000-"]


def test_a_blob_that_is_truncated_at_the_source_is_an_error(server, transport, reference):
    server.blobs["a/image", str(BLOB.digest)] = DATA[:1000]
    with pytest.raises(TruncatedError) as caught:
        pull_blob(transport, reference)
    assert (caught.value.code, caught.value.exit_status) == ("transport.truncated", 6)


@pytest.mark.parametrize("fault", [faults.IgnoreRange(), faults.WrongRange()])
def test_a_range_that_is_ignored_starts_over(server, transport, reference, fault):
    server.fault(BLOBS, faults.Truncate(300_000), fault, faults.IgnoreRange())
    assert pull_blob(transport, reference) == DATA


@pytest.mark.parametrize("fault", [faults.Extra(), faults.Endless(), faults.Corrupt(500_000)])
def test_wrong_content_is_fetched_once_and_refused(server, transport, reference, fault):
    server.fault(BLOBS, fault, forever=True)
    with pytest.raises(VerificationError) as caught:
        pull_blob(transport, reference)
    assert (caught.value.code, caught.value.exit_status) == ("verification", 7)
    assert len(server.requests(BLOBS)) == 1


def test_an_encoding_nobody_asked_for_is_refused(server, transport, reference):
    server.fault(BLOBS, faults.Header("Content-Encoding", "gzip"))
    with pytest.raises(ServerError):
        pull_blob(transport, reference)
    assert server.requests(BLOBS)[0].headers["Accept-Encoding"] == "identity"


def test_redirects_in_circles_end(server, transport, reference):
    server.fault(BLOBS, faults.Redirect(server.url(f"/v2/a/image/blobs/{BLOB.digest}")), forever=True)
    with pytest.raises(ServerError):
        pull_blob(transport, reference)
    assert len(server.requests(BLOBS)) <= 6


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://", "http://[/x"])
def test_redirects_to_nonsense_are_errors_of_the_server(server, transport, reference, location):
    server.fault(BLOBS, faults.Redirect(location), forever=True)
    with pytest.raises((ServerError, UnreachableError)):
        pull_blob(transport, reference)
