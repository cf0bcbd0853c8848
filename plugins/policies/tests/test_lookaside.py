"""A web server with signatures that lies or drips: an error in time, never a traceback."""

from __future__ import annotations

import time
import traceback
from types import SimpleNamespace

import pytest

from cfs_core.plugin import ConfigError, Digest, TransferTimeoutError, TransportError, without_secrets
from cfs_policies import lookaside
from cfs_policies.names import Named
from cfs_testkit import faults

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def fetch(registry_server, tmp_path):
    (tmp_path / "x.yaml").write_text(f"default-docker:\n  lookaside: {registry_server.url('/sigs')}\n")
    places = SimpleNamespace(registries_d=tmp_path, lookaside=tmp_path)
    return lambda: list(lookaside.signatures(Named("quay.io/a/b", "1"), Digest.of(b"x"), places))


@pytest.mark.parametrize("fault", [faults.DripHeaders(0.02), faults.Raw([HEAD, *[b"x"] * 10_000], 0.02)])
def test_a_server_that_drips_is_given_up(registry_server, fetch, monkeypatch, fault):
    monkeypatch.setattr(lookaside, "_TIMEOUT_SECONDS", 0.3)
    registry_server.fault("/sigs/", fault, forever=True)
    begun = time.monotonic()
    with pytest.raises(TransferTimeoutError) as caught:
        fetch()
    assert time.monotonic() - begun < 5
    assert registry_server.host in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
    ids=["no HTTP", "too many headers", "a long header"],
)
def test_nonsense_is_an_error_of_the_transport(registry_server, fetch, answer):
    registry_server.fault("/sigs/", faults.Raw([answer]), forever=True)
    with pytest.raises(TransportError):
        fetch()


@pytest.mark.parametrize("location", ["http://[/x", "file:///etc/passwd", "ftp://127.0.0.1:1/x"])
def test_a_redirect_to_something_else_is_an_error_of_the_transport(registry_server, fetch, location):
    registry_server.fault("/sigs/", faults.Redirect(location, 302), forever=True)
    with pytest.raises(TransportError):
        fetch()


@pytest.mark.parametrize(
    "place",
    [
        "http://alice:hidden@HOST/sigs",
        "http://hidden@HOST/sigs",
        "http://HOST/sigs?token=hidden",
        "ftp://alice:hidden@HOST/sigs",
        "'http://alice:hidden@HOST",
        "http://alice:hidden@127.0.0.1:1/sigs",
    ],
)
@pytest.mark.parametrize("fault", [faults.Status(500), faults.Redirect("ftp://alice:hidden@x/?hidden", 302)])
def test_users_passwords_and_queries_of_an_address_are_not_shown(registry_server, tmp_path, place, fault):
    registry_server.fault("/", fault, forever=True)
    host = registry_server.url("").partition("//")[2]
    (tmp_path / "x.yaml").write_text(
        f"default-docker:\n  lookaside: {place.replace('HOST', host).replace('DIR', str(tmp_path / 'x.yaml'))}\n"
    )
    places = SimpleNamespace(registries_d=tmp_path, lookaside=tmp_path)
    with pytest.raises((ConfigError, TransportError)) as caught:
        list(lookaside.signatures(Named("quay.io/a/b", "1"), Digest.of(b"x"), places))
    error = caught.value
    assert "hidden" not in f"{error} {error.hint} {error.facts}"
    assert "hidden" not in without_secrets("".join(traceback.format_exception(error)))
