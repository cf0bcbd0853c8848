"""A signal, or the first final error, ends a pull or copy at once, whatever its other threads are waiting for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cfs_core.plugin import Fetcher, NotFoundError, RetryPolicy
from cfs_testkit import faults
from cfs_testkit.images import build_image

FOLDERS = dict.fromkeys(["boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "var", "usr"])
CFS = Path(sys.executable).with_name("cfs")
SOON = 15
"""Seconds; what is waited for takes a hundred."""

WAIT = faults.Status(429, {"Retry-After": "100"})


@pytest.fixture
def image():
    return build_image([{**FOLDERS, "usr/a": os.urandom(50_000)}, {"usr/b": os.urandom(50_000)}])


@pytest.fixture
def server(registry_server, image):
    image.publish(registry_server, "app", "1")
    return registry_server


@pytest.fixture
def start(tmp_path, server):
    """Return a function that starts ``cfs`` with patience; what still runs at the end is killed."""
    running = []

    def run(*argv):
        (tmp_path / "registries.conf").write_text(f'[[registry]]\nlocation="{server.host}"\ninsecure=true\n')
        (tmp_path / "cfs.toml").write_text("[transport.registry]\nread-timeout = 200\nconnect-timeout = 200\n")
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        env["CONTAINERS_REGISTRIES_CONF"] = str(tmp_path / "registries.conf")
        command = [CFS, "--config", tmp_path / "cfs.toml", *argv]
        running.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


def interrupt(process, number, reached):
    while not reached():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(0.3)  # into the wait
    begun = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - begun < SOON
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr


def files(folder):
    return {path.name for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "fault",
    [WAIT, faults.Silence(), faults.Silence(20_000), faults.Drip(0.05), faults.DripHeaders()],
    ids=["retry-after", "no answer", "silence in the body", "slow body", "slow headers"],
)
def test_a_signal_ends_a_pull(start, server, image, tmp_path, fault, number):
    for digest in image.layers:
        server.fault(f"/blobs/{digest}", fault, forever=True)
    process = start(
        *("image", "pull", f"docker://{server.host}/app:1", "--repo", tmp_path / "repo", "--architecture", "amd64")
    )
    interrupt(process, number, lambda: all(server.requests(f"/blobs/{digest}") for digest in image.layers))
    assert files(tmp_path / "repo") <= {"meta.json"}


@pytest.mark.parametrize("fault", [WAIT, faults.Silence()], ids=["retry-after", "silence"])
def test_a_signal_ends_a_copy_from_a_registry(start, server, tmp_path, fault):
    server.fault("/app/blobs/", fault, forever=True)
    process = start("image", "copy", f"docker://{server.host}/app:1", f"oci:{tmp_path}/layout:t")
    interrupt(process, signal.SIGINT, lambda: len(server.requests("/app/blobs/")) >= 3)
    assert not (tmp_path / "layout").exists()


@pytest.mark.parametrize("fault", [WAIT, faults.Silence()], ids=["retry-after", "silence"])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
def test_a_signal_ends_a_copy_to_a_registry(start, server, fault, method):
    server.fault("/copy/blobs/", fault, method=method, forever=True)
    process = start("image", "copy", f"docker://{server.host}/app:1", f"docker://{server.host}/copy:1")
    interrupt(process, signal.SIGINT, lambda: len(server.requests("/copy/blobs/", method)) >= 3)
    assert ("copy", "1") not in server.manifests


# --- the first final error -------------------------------------------------------------------


@pytest.fixture
def open_transport(tmp_path):
    from cfs_testkit.context import plugin_context
    from cfs_transport_oci_dir.plugin import cfs_register_transports as oci_providers
    from cfs_transport_registry.plugin import cfs_register_transports as registry_providers

    (tmp_path / "registries.conf").write_text("")
    settings = {"tls-verify": False, "registries-conf": str(tmp_path / "registries.conf"), "read-timeout": 100}
    providers = {p.schemes[0]: p for p in [*oci_providers(), *registry_providers()]}
    made = []

    def opener(text):
        scheme = text.partition(":")[0]
        context = plugin_context(tmp_path, settings=settings if scheme == "docker" else {})
        made.append(Fetcher(providers[scheme].factory(context), context.retrier))
        made[-1].retrier.policy = RetryPolicy(first_wait_seconds=0.01)
        return made[-1], made[-1].parse(text)

    yield opener
    for transport in made:
        transport.close()


class AbsentOnce:
    """An answer 404 that comes when something is so."""

    def __init__(self, ready):
        self.ready = ready

    def __iter__(self):
        while not self.ready():
            time.sleep(0.01)
        yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("fault", [WAIT, faults.Silence(), faults.Silence(20_000)])
@pytest.mark.parametrize("action", ["pull", "copy"])
def test_the_first_final_error_does_not_wait_for_the_others(server, image, open_transport, tmp_path, action, fault):
    from cfs_core.image.copy import copy_image
    from cfs_core.image.pull import pull_layers
    from cfs_core.image.resolve import resolve
    from cfs_storage_composefs.plugin import cfs_register_storage_formats
    from cfs_testkit.context import CountedProgress, plugin_context

    waiting, absent = image.layers
    server.fault(f"/blobs/{waiting}", fault, forever=True)

    server.fault(f"/blobs/{absent}", faults.Raw(AbsentOnce(lambda: server.requests(f"/blobs/{waiting}"))), forever=True)
    transport, reference = open_transport(f"docker://{server.host}/app:1")
    options = {"progress": CountedProgress(), "emit": lambda _: None}
    begun = time.monotonic()
    if action == "copy":
        target = open_transport(f"oci:{tmp_path}/layout:t")
        with pytest.raises(NotFoundError):
            copy_image(transport, reference, *target, **options)
    else:
        (provider,) = cfs_register_storage_formats()
        storage = provider.factory(plugin_context(tmp_path))
        found = resolve(transport, reference)
        with storage.open(tmp_path / "repo", create=True) as repository, pytest.raises(NotFoundError):
            pull_layers(transport, found, repository, **options)
    assert time.monotonic() - begun < SOON
    server._scripts.clear()
    assert transport.fetch_manifest(reference)[1] == image.manifest, "the transport can be used again"
