"""The registry simulator itself: proper answers, and each fault as it says."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

from cfs_testkit import faults
from cfs_testkit.images import COMPRESSIONS, build_image, compress, layer_tar
from cfs_testkit.registry import Access, RegistryServer

DATA = bytes(range(256)) * 100


@pytest.fixture
def path(registry_server):
    return f"/v2/a/b/blobs/{registry_server.put_blob('a/b', DATA)}"


def ask(server, path, *, method="GET", timeout=5, **headers):
    connection = http.client.HTTPConnection(server.host, timeout=timeout)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)
    finally:
        connection.close()


def test_headers_that_drip_never_end(registry_server, path):
    registry_server.fault("/blobs/", faults.DripHeaders(0.001))
    with socket.create_connection(registry_server.host.split(":"), timeout=5) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        seen = b""
        while len(seen) < 100:
            seen += line.recv(10)
    assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in seen


def test_content_ranges_and_what_is_absent(registry_server, path):
    assert ask(registry_server, path)[:2] == (200, DATA)
    status, body, headers = ask(registry_server, path, Range="bytes=100-")
    assert (status, body, headers["Content-Range"]) == (206, DATA[100:], f"bytes 100-{len(DATA) - 1}/{len(DATA)}")
    assert ask(registry_server, path, Range=f"bytes={len(DATA)}-")[0] == 416
    assert ask(registry_server, "/v2/a/b/manifests/x")[0] == 404
    assert ask(registry_server, "/v2/")[0] == 200
    assert ask(registry_server, path, method="HEAD")[:2] == (200, b"")
    assert [seen.method for seen in registry_server.seen].count("GET") == 5


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (faults.Status(503, {"X": "y"}, b"no"), 503, b"no"),
        (faults.Corrupt(3), 200, DATA[:3] + b"\xfc" + DATA[4:]),
        (faults.Extra(b"zz"), 200, DATA + b"zz"),
        (faults.Truncate(10, chunked=True), 200, DATA[:10]),
        (faults.Redirect("/elsewhere"), 307, b""),
        (faults.ContentType("text/html", b"<html>"), 200, b"<html>"),
        (faults.Drip(0.001, 10_000), 200, DATA),
        (faults.Status(404, body=b"slow", drip_seconds=0.001), 404, b"slow"),
        (faults.Raw([b"HTTP/1.1 201 Raw\r\n", b"\r\n", b"bytes"], 0.001), 201, b"bytes"),
    ],
)
def test_faults_that_are_answers(registry_server, path, fault, status, body):
    registry_server.fault("/blobs/", fault)
    assert ask(registry_server, path)[:2] == (status, body)
    assert ask(registry_server, path)[:2] == (200, DATA)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.Reset(10), ConnectionResetError),
        (faults.Truncate(10), http.client.IncompleteRead),
        (faults.Silence(), TimeoutError),
        (faults.Silence(10), TimeoutError),
    ],
)
def test_faults_that_are_none(registry_server, path, fault, error):
    registry_server.fault("/blobs/", fault)
    with pytest.raises(error):
        ask(registry_server, path, timeout=0.3)


def test_ranges_ignored_or_wrong(registry_server, path):
    registry_server.fault("/blobs/", faults.IgnoreRange(), faults.WrongRange())
    assert ask(registry_server, path, Range="bytes=5-")[:2] == (200, DATA)
    assert ask(registry_server, path, Range="bytes=5-")[2]["Content-Range"].startswith("bytes 0-")


def test_an_endless_body_ends_with_the_server():
    with RegistryServer() as server:
        digest = server.put_blob("a", DATA)
        server.fault("/blobs/", faults.Endless(b"x" * 1000))
        with socket.create_connection(server.host.split(":"), timeout=5) as plain:
            plain.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = 0
            while received < 1_000_000:
                received += len(plain.recv(65536))


def test_faults_come_in_turn_and_the_last_stays(registry_server, path):
    registry_server.fault("/blobs/", faults.Status(500), faults.Fault(), faults.Status(404), forever=True)
    assert [ask(registry_server, path)[0] for _ in range(5)] == [500, 200, 404, 404, 404]


def test_something_happens_between_two_requests(registry_server, path):
    registry_server.fault("/blobs/", faults.Run(registry_server.blobs.clear))
    assert ask(registry_server, path)[0] == 200
    for _ in range(100):
        if not registry_server.blobs:
            break
        time.sleep(0.01)
    assert ask(registry_server, path)[0] == 404


def test_tokens_are_asked_for_and_run_out():
    with RegistryServer(access=Access("token", "u", "p"), token_uses=1) as server:
        path = f"/v2/a/blobs/{server.put_blob('a', DATA)}"
        status, _, headers = ask(server, path)
        assert status == 401
        assert headers["WWW-Authenticate"].startswith(f'Bearer realm="http://{server.host}/token"')
        assert ask(server, "/token")[0] == 401
        token = json.loads(ask(server, "/token", Authorization="Basic dTpw")[1])["token"]
        assert ask(server, path, Authorization=f"Bearer {token}")[0] == 200
        assert ask(server, path, Authorization=f"Bearer {token}")[0] == 401


@pytest.mark.parametrize("how", COMPRESSIONS)
def test_images_are_what_they_say(how):
    import gzip

    import zstandard

    tar = layer_tar({"a/b/c": "x" * 20_000, "link": "-> a"})
    _, data = compress(tar, how)
    if how == "gzip":
        data = gzip.decompress(data)
    elif how.startswith("zstd"):
        out, rest = b"", data
        while rest:
            if rest[:4] == b"\x50\x2a\x4d\x18":
                rest = rest[8 + int.from_bytes(rest[4:8], "little") :]
                continue
            one = zstandard.ZstdDecompressor().decompressobj()
            out += one.decompress(rest)
            rest = one.unused_data
        data = out
    assert data == tar
    image = build_image([{"a": "b"}], compression=how)
    assert len(image.blobs) == 2
