"""Registries that offer several ways to log in, and those that offer none that is one."""

from __future__ import annotations

import json

import pytest

from cfs_core.plugin import Descriptor, Digest, ServerError, UnauthorizedError
from cfs_testkit import faults
from cfs_testkit.images import build_image
from cfs_testkit.registry import Access, RegistryServer
from cfs_transport_registry.challenges import choose, parse_challenges

DATA = bytes(10_000)
BLOB = Descriptor(media_type="", digest=Digest.of(DATA), size=len(DATA))
AUTH = "YWxpY2U6czNjcmV0"  # alice:s3cret
BOTH = [
    ("{basic}", "{bearer}"),
    ("{bearer}", "{basic}"),
    ("{basic}, {bearer}",),
    ("{bearer}, {basic}",),
    ("Negotiate", "{bearer}"),
    ("Negotiate YII=, {basic}, {bearer}",),
]


def filled(server):
    build_image([{"x": "y"}]).publish(server, "a/image", "1")
    server.put_blob("a/image", DATA)
    return server


def fetch(transport, server):
    reference = transport.parse(f"docker://{server.host}/a/image:1")
    transport.fetch_manifest(reference)
    return b"".join(transport.iter_blob(reference, BLOB))


def authfile(tmp_path, server):
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {server.host: {"auth": AUTH}}}))
    return str(path)


@pytest.mark.parametrize("offers", BOTH)
def test_a_token_is_taken_without_credentials(make_transport, offers):
    with RegistryServer(access=Access("either", offers=offers)) as server:
        assert fetch(make_transport(), filled(server)) == DATA
        assert len(server.requests("/token")) == 1


@pytest.mark.parametrize("offers", BOTH)
def test_a_token_is_taken_with_credentials(make_transport, tmp_path, offers):
    with RegistryServer(access=Access("either", "alice", "s3cret", offers=offers)) as server:
        assert fetch(make_transport(authfile=authfile(tmp_path, server)), filled(server)) == DATA
        assert len(server.requests("/token")) == 1
        sent = [seen.headers.get("Authorization", "") for seen in server.seen if not seen.path.startswith("/token")]
        assert not [each for each in sent if each.startswith("Basic")]


@pytest.mark.parametrize("offers", [("Negotiate", "{basic}"), ("Digest nonce=x, {basic}",), ("basic Realm=none",)])
def test_a_password_is_taken_where_there_is_one(make_transport, tmp_path, offers):
    with RegistryServer(access=Access("basic", "alice", "s3cret", offers=offers)) as server:
        assert fetch(make_transport(authfile=authfile(tmp_path, server)), filled(server)) == DATA
        with pytest.raises(UnauthorizedError) as caught:
            fetch(make_transport(), server)
        assert "--authfile" in caught.value.hint


@pytest.mark.parametrize("offers", [("Negotiate",), ("Digest nonce=x, qop=y",), (",;=",)])
def test_only_other_ways_are_named(make_transport, tmp_path, offers):
    with RegistryServer(access=Access("basic", "alice", "s3cret", offers=offers)) as server:
        with pytest.raises(UnauthorizedError) as caught:
            fetch(make_transport(authfile=authfile(tmp_path, server)), filled(server))
        assert offers[0][:6].lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    "realm", ["/token", "https://", "https:///token", "ftp://x/token", "http://[/x", "http://x:y/"]
)
def test_a_realm_without_a_host_is_said(make_transport, realm):
    with RegistryServer(access=Access("token", offers=(f'Bearer realm="{realm}",service="s"',))) as server:
        with pytest.raises(ServerError) as caught:
            fetch(make_transport(), filled(server))
        assert realm in str(caught.value)
        assert "no web address with a host" in str(caught.value)
        assert "realm" in caught.value.hint


def test_a_manifest_that_comes_compressed_is_said(make_transport):
    with RegistryServer() as server:
        server.fault("/manifests/", faults.Header("Content-Encoding", "gzip"))
        with pytest.raises(ServerError) as caught:
            fetch(make_transport(), filled(server))
        assert "Content-Encoding 'gzip'" in str(caught.value)
        assert "proxy" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        (
            'Bearer realm="a, b",scope="c\\"d" , service = e',
            [("bearer", {"realm": "a, b", "scope": 'c"d', "service": "e"})],
        ),
        ("Basic realm=x, Bearer realm=y", [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ('Negotiate dG9rZW4=, BEARER Realm="z"', [("negotiate", {}), ("bearer", {"realm": "z"})]),
        ("Negotiate,Basic,,", [("negotiate", {}), ("basic", {})]),
        ('Bearer realm="open', [("bearer", {})]),
        ("realm=x", [("realm", {})]),
    ],
)
def test_challenges(text, expected):
    assert [(each.scheme, dict(each.parameters)) for each in parse_challenges(text)] == expected


def test_the_choice():
    both = parse_challenges("Basic realm=x, Bearer realm=y")
    assert choose(both, basic=True).scheme == "bearer"
    assert choose(both[:1], basic=True).scheme == "basic"
    assert choose(both[:1], basic=False) is None
    assert choose((), basic=True) is None
