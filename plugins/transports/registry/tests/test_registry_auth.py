"""Credentials: found where other tools keep them, sent where they belong and nowhere else, never shown."""

from __future__ import annotations

import base64
import json
import stat
import threading

import pytest

from cfs_core.plugin import ConfigError, Descriptor, Digest, RateLimitedError, ServerError, UnauthorizedError
from cfs_testkit import faults
from cfs_testkit.context import RecordedLog
from cfs_testkit.images import build_image
from cfs_testkit.registry import Access, RegistryServer
from cfs_transport_registry.credentials import Credentials, CredentialStore
from cfs_transport_registry.reference import Repository
from cfs_transport_registry.settings import Settings

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
    for client in transport._clients._clients.values():
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


# --- where credentials are found -------------------------------------------------------------


class Places:
    """A root with files in it, and a store that looks there."""

    def __init__(self, tmp_path):
        self.root = tmp_path
        self.helpers = tmp_path / "bin"
        self.settings = {"root": tmp_path, "uid": 1000}

    def put(self, path, content):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content if isinstance(content, str) else json.dumps(content))
        return target

    def helper(self, name, script):
        path = self.put(f"bin/docker-credential-{name}", f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def user(self, name, **settings):
        from cfs_core.system.command import HostCommands

        made = Settings(**{**self.settings, **settings})
        store = CredentialStore(made, HostCommands({"PATH": str(self.helpers)}), RecordedLog())
        found = store.find(Repository.of(name))
        return None if found is None else found.user or f"token {found.identity_token}"


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path)


def auths(**keys):
    return {"auths": {key: entry(user) for key, user in keys.items()}}


def test_files_are_read_in_podmans_order(places):
    order = [
        ("run-user/containers/auth.json", {"runtime_dir": places.root / "run-user"}),
        ("run/containers/1000/auth.json", {}),
        ("home/.config/containers/auth.json", {"config_home": places.root / "home/.config"}),
        ("home/.docker/config.json", {"home": places.root / "home"}),
        ("etc/ostree/auth.json", {}),
    ]
    everything = {key: value for _, settings in order for key, value in settings.items()}
    assert places.user("quay.io/a/b") is None
    for path, _ in reversed(order):
        places.put(path, auths(**{"quay.io": path}))
        assert places.user("quay.io/a/b", **everything) == path
    assert (
        places.user("quay.io/a/b", **everything, docker_config=places.put("d/config.json", "{}").parent) == order[0][0]
    )
    named = places.put("named.json", auths(**{"quay.io": "named"}))
    assert places.user("quay.io/a/b", **everything, authfile=named) == "named"
    assert places.user("other.io/a", **everything, authfile=named) is None


def test_the_longest_matching_namespace_wins(places):
    keys = {"quay.io": "host", "quay.io/org": "org", "quay.io/org/app": "app", "quay.io/or": "no"}
    places.put("etc/ostree/auth.json", auths(**keys))
    assert places.user("quay.io/other/app") == "host"
    assert places.user("quay.io/org/other") == "org"
    assert places.user("quay.io/org/app") == "app"
    assert places.user("quay.io/org/app/sub") == "app"
    assert places.user("quay.io/organic") == "host"
    assert places.user("evil-quay.io/org/app") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://docker.io"])
def test_docker_hub_has_several_names(places, key):
    places.put("etc/ostree/auth.json", auths(**{key: "hub"}))
    assert places.user("docker.io/library/fedora") == "hub"


@pytest.mark.parametrize("key", ["https://quay.io", "http://quay.io/", "quay.io/v1/", "https://quay.io/v2/"])
def test_urls_as_keys_of_old_files(places, key):
    places.put("etc/ostree/auth.json", auths(**{key: "old"}))
    assert places.user("quay.io/a") == "old"


def test_helpers_are_asked_for_their_registries(places):
    places.helper("one", 'read server; echo "{\\"Username\\": \\"$server-user\\", \\"Secret\\": \\"x\\"}"')
    places.helper("tok", 'echo \'{"Username": "<token>", "Secret": "refresh"}\'')
    places.put("etc/ostree/auth.json", {"credHelpers": {"quay.io": "one", "azurecr.io": "tok", "docker.io": "one"}})
    assert places.user("quay.io/a") == "quay.io-user"
    assert places.user("azurecr.io/a") == "token refresh"
    assert places.user("docker.io/library/a") == "https://index.docker.io/v1/-user"
    assert places.user("other.io/a") is None


def test_the_store_is_asked_last_and_may_know_nothing(places):
    places.helper(
        "store",
        'read s; [ "$s" = quay.io ] || { echo credentials not found; exit 1; }; echo \'{"Username":"s","Secret":"x"}\'',
    )
    places.put("etc/ostree/auth.json", {"credsStore": "store", **auths(**{"own.io": "own"})})
    assert places.user("own.io/a") == "own"
    assert places.user("quay.io/a") == "s"
    assert places.user("other.io/a") is None


@pytest.mark.parametrize(
    ("content", "script"),
    [
        ("not json", None),
        ("[]", None),
        ({"auths": []}, None),
        ({"auths": {"quay.io": "x"}}, None),
        ({"auths": {"quay.io": {"auth": "%%%"}}}, None),
        ({"auths": {"quay.io": {"auth": base64.b64encode(b"nocolon").decode()}}}, None),
        ({"credHelpers": {"quay.io": "../../evil"}}, None),
        ({"credHelpers": {"quay.io": "missing"}}, None),
        ({"credHelpers": {"quay.io": "broken"}}, "exit 7"),
        ({"credHelpers": {"quay.io": "broken"}}, "echo hello"),
        ("[" * 100_000, None),
    ],
)
def test_a_broken_file_or_helper_is_an_error_of_the_configuration(places, content, script):
    places.put("etc/ostree/auth.json", content)
    if script:
        places.helper("broken", script)
    with pytest.raises(ConfigError) as caught:
        places.user("quay.io/a")
    assert caught.value.exit_status == 3


def test_a_named_file_that_is_missing_is_an_error(make_transport, tmp_path):
    with pytest.raises(ConfigError) as caught:
        make_transport(authfile=str(tmp_path / "absent.json"))
    assert "absent.json" in str(caught.value)
    with pytest.raises(ConfigError):
        make_transport(environ={"REGISTRY_AUTH_FILE": str(tmp_path / "absent.json")})
    with pytest.raises(ConfigError):
        make_transport(no_such_setting=1)
