"""A registry that drips holds nobody longer than the timeout, and the stop signal ends what it keeps waiting."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time

import pytest

from cfs_core.plugin import (
    Descriptor,
    Digest,
    NotFoundError,
    RetryPolicy,
    ServerError,
    StoppedError,
    TransferTimeoutError,
    TransportError,
)
from cfs_testkit import faults
from cfs_testkit.images import build_image
from cfs_testkit.registry import Access, RegistryServer

DATA = bytes(100_000)
BLOB = Descriptor(media_type="", digest=Digest.of(DATA), size=len(DATA))
DRIP = 0.02
TIMEOUT = 0.3
SOON = 5
"""Seconds; far above the timeout for a busy machine, far below what the faults take."""

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


class Endless:
    """Parts of an answer, the last of them for ever."""

    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return itertools.chain(self.parts[:-1], itertools.repeat(self.parts[-1]))


@pytest.fixture
def server():
    with RegistryServer() as made:
        build_image([{"x": "y"}]).publish(made, "app", "1")
        made.put_blob("app", DATA)
        yield made


@pytest.fixture
def impatient(make_transport):
    transport = make_transport(read_timeout=TIMEOUT, connect_timeout=1)
    transport.retrier.policy = RetryPolicy(attempts=1)
    return transport


def app(transport, server):
    return transport.parse(f"docker://{server.host}/app:1")


@contextlib.contextmanager
def soon():
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < SOON


# --- dripping --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.DripHeaders(DRIP),
        faults.Drip(DRIP),
        faults.Raw(Endless(b"HTTP/1.1 100 Continue\r\n\r\n"), DRIP),
        faults.Raw(Endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"), DRIP),
        faults.Raw(Endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: more\r\n"), DRIP),
    ],
    ids=["headers", "body", "continue", "chunk size", "trailers"],
)
@pytest.mark.parametrize("part", ["manifests", "blobs", "referrers"])
def test_an_answer_that_drips_is_given_up(server, impatient, part, fault):
    server.put_manifest("app", json.dumps({"subject": {"digest": str(BLOB.digest)}}).encode())
    server.fault(f"/{part}/", fault, forever=True)
    reference = app(impatient, server)
    ask = {
        "manifests": lambda: impatient.fetch_manifest(reference),
        "blobs": lambda: list(impatient.iter_blob(reference, BLOB)),
        "referrers": lambda: impatient.referrers(reference, BLOB.digest),
    }
    with soon(), pytest.raises(TransferTimeoutError):
        ask[part]()


def test_a_fast_endless_trailer_is_given_up(server, impatient):
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    server.fault("/blobs/", faults.Raw(Endless(head, b"X-Trailer: more\r\n" * 1000)), forever=True)
    with soon(), pytest.raises(TransferTimeoutError):
        list(impatient.iter_blob(app(impatient, server), BLOB))


def test_an_error_whose_body_drips_is_that_error(server, impatient):
    server.fault("/manifests/", faults.Status(404, body=b" " * 10_000, drip_seconds=DRIP), forever=True)
    with soon(), pytest.raises(NotFoundError):
        impatient.fetch_manifest(app(impatient, server))


@pytest.mark.parametrize("status", [200, 403])
def test_a_token_answer_that_drips_is_given_up(impatient, status):
    with RegistryServer(access=Access("token")) as server:
        server.fault("/token", faults.Status(status, body=b" " * 10_000, drip_seconds=DRIP), forever=True)
        with soon(), pytest.raises(TransportError) as caught:
            impatient.fetch_manifest(app(impatient, server))
        assert caught.value.facts.get("status") == (403 if status == 403 else None)


def test_a_refused_token_has_a_bounded_body(impatient):
    parts = Endless(b"HTTP/1.1 500 No\r\n\r\n", bytes(65536))
    with RegistryServer(access=Access("token")) as server:
        server.fault("/token", faults.Raw(parts), forever=True)
        with soon(), pytest.raises(ServerError):
            impatient.fetch_manifest(app(impatient, server))


def test_the_body_of_a_redirect_is_not_read(server, impatient):
    target = f"Location: /v2/app/blobs/{BLOB.digest}?x=1\r\n\r\n".encode()
    server.fault(r"/blobs/[^?]*$", faults.Raw(Endless(b"HTTP/1.1 307 Go\r\n" + target, bytes(65536))), forever=True)
    with soon():
        assert b"".join(impatient.iter_blob(app(impatient, server), BLOB)) == DATA


def test_a_slow_but_steady_transfer_takes_longer_than_the_timeout(server, impatient):
    server.fault("/blobs/", faults.Drip(0.05, 10_000))
    assert b"".join(impatient.iter_blob(app(impatient, server), BLOB)) == DATA


def test_a_transfer_that_would_take_for_ever_is_given_up_and_not_tried_again(server, make_transport):
    server.fault("/blobs/", faults.Drip(0.02, 200), forever=True)  # far above the silence that ends it, 10 kB/s
    slow = make_transport(read_timeout=TIMEOUT, minimum_rate=1_000_000)
    with soon(), pytest.raises(TransferTimeoutError) as caught:
        b"".join(slow.iter_blob(app(slow, server), BLOB))
    assert not caught.value.transient
    assert "transport.registry.minimum-rate" in caught.value.hint
    assert len(server.requests("/blobs/")) == 1


def test_no_minimum_rate_waits(server, make_transport):
    server.fault("/blobs/", faults.Drip(0.01, 1000), forever=True)
    slow = make_transport(read_timeout=TIMEOUT, minimum_rate=0)
    assert b"".join(slow.iter_blob(app(slow, server), BLOB)) == DATA


# --- stopping --------------------------------------------------------------------------------


@pytest.fixture
def patient(make_transport):
    """Wait much longer for everything than these tests take."""

    def make(**settings):
        transport = make_transport(read_timeout=300, connect_timeout=300, **settings)
        transport.retrier.pause = transport.stop.wait
        return transport

    return make


def stopped(transport, action, reached):
    """Run *action* in a thread, stop it once *reached*, and return what it raised."""
    raised = []

    def run():
        try:
            action()
        except TransportError as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not reached():
        assert thread.is_alive()
        time.sleep(0.005)
    time.sleep(0.05)  # into the blocked call
    with soon():
        transport.stop.stop()
        thread.join(60)
    return raised


@pytest.mark.parametrize(
    "fault",
    [
        faults.Silence(),
        faults.Silence(1000),
        faults.Status(429, {"Retry-After": "100"}),
        faults.Drip(0.01),
        faults.DripHeaders(0.01),
    ],
    ids=["no answer", "silence in the body", "waiting to try again", "slow body", "slow headers"],
)
def test_the_stop_signal_ends_waiting_for_a_registry(server, patient, fault):
    transport = patient()
    server.fault("/blobs/", fault, forever=True)
    reference = app(transport, server)
    (error,) = stopped(
        transport, lambda: list(transport.iter_blob(reference, BLOB)), lambda: server.requests("/blobs/")
    )
    assert isinstance(error, StoppedError)
    assert len(server.requests("/blobs/")) == 1
    transport.stop.clear()
    server._scripts.clear()
    assert b"".join(transport.iter_blob(reference, BLOB)) == DATA


def test_the_stop_signal_ends_connecting(patient):
    transport = patient()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(4):  # until nobody is let in any more
            line = stack.enter_context(socket.socket())
            line.settimeout(0)
            line.connect_ex(full.getsockname())
        reference = transport.parse(f"docker://127.0.0.1:{full.getsockname()[1]}/app:1")
        (error,) = stopped(transport, lambda: transport.fetch_manifest(reference), lambda: transport.stop._endings)
        assert isinstance(error, StoppedError)


def test_the_stop_signal_ends_a_tls_handshake(patient):
    transport = patient(tls_verify=None)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        reference = transport.parse(f"docker://127.0.0.1:{mute.getsockname()[1]}/app:1")
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(mute.accept()), daemon=True)
        thread.start()
        (error,) = stopped(transport, lambda: transport.fetch_manifest(reference), lambda: accepted)
        thread.join()
        accepted[0][0].close()
        assert isinstance(error, StoppedError)


def test_the_stop_signal_ends_an_upload(server, patient):
    transport = patient()
    server.fault("/uploads/", faults.Silence(), method="PUT", forever=True)
    with transport.open_writer(transport.parse(f"docker://{server.host}/new:1")) as writer:
        (error,) = stopped(
            transport, lambda: writer.put_blob(BLOB, [DATA]), lambda: server.requests("/uploads/", "PUT")
        )
    assert isinstance(error, TransportError)


def test_connections_leave_no_descriptors_behind(server, make_transport):
    transport = make_transport()
    for _ in range(5):
        transport.fetch_manifest(app(transport, server))
        assert b"".join(transport.iter_blob(app(transport, server), BLOB)) == DATA
    assert len(transport.stop._endings) == 1  # the connection that is kept for the next request
    transport.close()
    assert not transport.stop._endings
