"""Credentials: sent where they belong and nowhere else, never shown."""

from __future__ import annotations

import base64
import json
import threading
import traceback

import pytest

from cfs_core.plugin import (
    Descriptor,
    Digest,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    TransportError,
    UnauthorizedError,
    without_secrets,
)
from cfs_testkit import faults
from cfs_testkit.images import build_image
from cfs_testkit.registry import Access, RegistryServer
from cfs_transport_registry.credentials import Credentials

SECRET = "s3cret-Passw0rd"
TOKEN_ACCESS = Access("token", "alice", SECRET)
DATA = bytes(100_000)
BLOB = Descriptor(media_type="", digest=Digest.of(DATA), size=len(DATA))


def entry(user="alice", password=SECRET):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def authfile(path, host, **extra):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: entry()}, **extra}))
    return path


@pytest.fixture(params=["basic", "token"])
def server(request):
    with RegistryServer(access=Access(request.param, "alice", SECRET)) as made:
        yield filled(made)


@pytest.fixture
def token_server():
    with RegistryServer(access=TOKEN_ACCESS) as made:
        yield filled(made)


def filled(server):
    build_image([{"x": "y"}]).publish(server, "a/image", "1")
    server.put_blob("a/image", DATA)
    return server


def fetch(transport, server):
    reference = transport.parse(f"docker://{server.host}/a/image:1")
    transport.fetch_manifest(reference)
    return b"".join(transport.iter_blob(reference, BLOB))


def test_401_then_credentials(server, make_transport, tmp_path):
    transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", server.host)))
    assert fetch(transport, server) == DATA
    assert len(server.requests("/v2/a/image/")) == 3  # one challenge, then manifest and blob


def test_an_anonymous_token(make_transport):
    with RegistryServer(access=Access("token")) as server:
        assert fetch(make_transport(), filled(server)) == DATA


@pytest.mark.parametrize("password", [None, "wrong"])
def test_no_or_wrong_credentials_are_unauthorized(server, make_transport, tmp_path, password):
    settings = {}
    if password:
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {server.host: entry(password=password)}}))
        settings["authfile"] = str(tmp_path / "auth.json")
    with pytest.raises(UnauthorizedError) as caught:
        fetch(make_transport(**settings), server)
    assert (caught.value.code, caught.value.exit_status) == ("transport.unauthorized", 6)
    assert "--authfile" in caught.value.hint
    assert len(server.seen) <= 4


def test_a_token_that_expires_is_renewed(make_transport, tmp_path):
    with RegistryServer(access=TOKEN_ACCESS, token_uses=1) as server:
        transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", server.host)))
        assert fetch(transport, filled(server)) == DATA
        assert len(server.requests("/token")) == 2


def test_an_identity_token_is_exchanged(make_transport, tmp_path):
    with RegistryServer(access=Access("token", "alice", SECRET, identity_token="refresh-1")) as server:
        path = tmp_path / "auth.json"
        path.write_text(json.dumps({"auths": {server.host: {"identitytoken": "refresh-1"}}}))
        assert fetch(make_transport(authfile=str(path)), filled(server)) == DATA


def test_a_token_server_with_a_problem(token_server, make_transport, tmp_path):
    transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", token_server.host)))
    token_server.fault("/token", faults.Status(503), faults.Status(429, {"Retry-After": "0"}))
    assert fetch(transport, token_server) == DATA
    busy = make_transport(authfile=str(tmp_path / "auth.json"))
    token_server.fault("/token", faults.Status(429), forever=True)
    with pytest.raises(RateLimitedError):
        fetch(busy, token_server)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"token": 5}', b'{"token": "a\\nb"}', b"{}", bytes(300_000)])
def test_a_token_server_that_gives_no_token(token_server, make_transport, tmp_path, body):
    transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", token_server.host)))
    token_server.fault("/token", faults.Status(200, body=body), forever=True)
    with pytest.raises(ServerError):
        fetch(transport, token_server)


def test_a_redirect_to_another_host_gets_no_credentials(server, make_transport, tmp_path):
    with RegistryServer() as elsewhere:
        elsewhere.put_blob("cdn", DATA)
        server.fault(r"/blobs/", faults.Redirect(elsewhere.url(f"/v2/cdn/blobs/{BLOB.digest}")), forever=True)
        transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", server.host)))
        assert fetch(transport, server) == DATA
        assert len(elsewhere.seen) == 1
        assert "Authorization" not in elsewhere.seen[0].headers
    assert "Authorization" in server.requests(r"/blobs/")[0].headers


def test_a_redirect_keeps_the_range(token_server, make_transport, tmp_path):
    with RegistryServer() as elsewhere:
        elsewhere.put_blob("cdn", DATA)
        elsewhere.fault("/cdn/", faults.Truncate(40_000))
        token_server.fault(r"/blobs/", faults.Redirect(elsewhere.url(f"/v2/cdn/blobs/{BLOB.digest}")), forever=True)
        transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", token_server.host)))
        assert fetch(transport, token_server) == DATA
        assert elsewhere.seen[1].headers["Range"] == "bytes=40000-"


def test_a_redirect_of_the_token_request_gets_no_credentials(token_server, make_transport, tmp_path):
    with RegistryServer(access=Access("token")) as elsewhere:
        token_server.fault("/token", faults.Redirect(elsewhere.url("/token")), forever=True)
        transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", token_server.host)))
        with pytest.raises(UnauthorizedError):
            fetch(transport, token_server)
        assert elsewhere.seen
        assert all("Authorization" not in seen.headers for seen in elsewhere.seen)


def test_netrc_and_urls_are_not_sources_of_credentials(server, make_transport, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login alice password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with pytest.raises(UnauthorizedError):
        fetch(make_transport(), server)


def test_nothing_secret_is_kept_shown_or_logged(server, make_transport, tmp_path, log):
    transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", server.host)))
    fetch(transport, server)
    tokens = [*server.tokens, SECRET, entry()["auth"]]
    for client in transport.transport._clients._clients.values():
        assert "Authorization" not in client._session.headers
        assert client._registry.headers == {}
    server.fault(r"/manifests/", faults.Status(500), forever=True)
    with pytest.raises(ServerError) as caught:
        transport.fetch_manifest(transport.parse(f"docker://{server.host}/a/image:1"))
    shown = f"{caught.value!r} {caught.value.facts} {log.records} {Credentials(user='alice', password=SECRET)!r}"
    assert not [token for token in tokens if token in shown]


def test_many_threads_share_one_token(token_server, make_transport, tmp_path):
    transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", token_server.host)))
    reference = transport.parse(f"docker://{token_server.host}/a/image:1")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(b"".join(transport.iter_blob(reference, BLOB))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DATA] * 8
    assert len(token_server.requests("/token")) == 1


def test_cookies_are_not_kept(make_transport):
    with RegistryServer() as server:
        server.fault("/manifests/", faults.Header("Set-Cookie", "session=1; Path=/"), forever=True)
        transport = make_transport()
        fetch(transport, filled(server))
        assert not [seen for seen in server.seen if "Cookie" in seen.headers]


def test_the_token_server_sees_our_user_agent(token_server, make_transport, tmp_path):
    fetch(make_transport(authfile=str(authfile(tmp_path / "auth.json", token_server.host))), token_server)
    (asked,) = token_server.requests("/token")
    assert asked.headers["User-Agent"].startswith("cfs/")


def test_an_error_does_not_show_what_a_redirect_puts_before_the_host(token_server, make_transport, tmp_path):
    transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", token_server.host)))
    with RegistryServer() as elsewhere:
        location = elsewhere.url("/absent").replace("//", "//user:hidden@")
        token_server.fault(r"/blobs/", faults.Redirect(location), forever=True)
        with pytest.raises(NotFoundError) as caught:
            fetch(transport, token_server)
        assert elsewhere.host in str(caught.value)
    assert "hidden" not in f"{caught.value} {caught.value.hint} {caught.value.facts}"


@pytest.mark.parametrize("words", ["{password}", "bad login alice:{password} ({auth})", "token={token}"])
def test_an_error_does_not_repeat_what_the_registry_repeats(server, make_transport, tmp_path, words):
    transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", server.host)))
    fetch(transport, server)
    said = words.format(password=SECRET, auth=entry()["auth"], token="".join(list(server.tokens)[:1]) or "x" * 9)
    body = json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode()
    server.fault("/manifests/", faults.Status(403, body=body), forever=True)
    server.fault("/token", faults.Status(403, body=body), forever=True)
    fresh = make_transport(authfile=str(tmp_path / "auth.json"))
    for each in (transport, fresh):
        with pytest.raises(ForbiddenError) as caught:
            fetch(each, server)
        shown = f"{caught.value!r} {caught.value.hint} {caught.value.facts}"
        assert "DENIED" in shown
        sent = [
            seen.headers["Authorization"].partition(" ")[2] for seen in server.seen if "Authorization" in seen.headers
        ]
        assert not [secret for secret in sent if secret in shown]


def test_an_error_does_not_show_a_presigned_address(server, make_transport, tmp_path):
    transport = make_transport(authfile=str(authfile(tmp_path / "auth.json", server.host)))
    location = "http://127.0.0.1:1/bucket/blob?X-Amz-Credential=AKIA&X-Amz-Signature=hidden-signature"
    server.fault("/blobs/", faults.Redirect(location), forever=True)
    with pytest.raises(TransportError) as caught:
        fetch(transport, server)
    shown = without_secrets("".join(traceback.format_exception(caught.value)))
    assert "127.0.0.1" in shown
    assert "hidden-signature" not in shown
    assert "hidden-signature" not in f"{caught.value} {caught.value.hint} {caught.value.facts}"
