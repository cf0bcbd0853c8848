"""Layers in parallel: same result, first error wins and ends the rest, complete layers are not fetched again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cfs_core.image.pull import merged_tree, pull_layers
from cfs_core.image.resolve import resolve
from cfs_core.plugin import Fetcher, RetryPolicy, VerificationError
from cfs_storage_composefs.plugin import cfs_register_storage_formats
from cfs_testkit import faults
from cfs_testkit.context import CountedProgress, plugin_context
from cfs_testkit.images import build_image
from cfs_testkit.registry import RegistryServer
from cfs_transport_registry.settings import Settings
from cfs_transport_registry.transport import RegistryTransport

FOLDERS = dict.fromkeys(["boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "var", "usr"])


def noise(seed, size):
    return random.Random(seed).randbytes(size)


def make_image(layers=6, size=300_000):
    contents = [{**FOLDERS, "usr/base": "x"}]
    contents += [{f"usr/{n}/{m}": noise(n * 100 + m, size // 10) for m in range(10)} for n in range(1, layers)]
    return build_image(contents, compression=["gzip", "none", "zstd", "zstd:chunked", "none", "gzip"][:layers])


@pytest.fixture
def image():
    return make_image()


@pytest.fixture
def transport(tmp_path):
    (tmp_path / "registries.conf").write_text("")
    settings = Settings(tls_verify=False, registries_conf=tmp_path / "registries.conf", root=tmp_path, read_timeout=30)
    context = plugin_context(tmp_path)
    made = Fetcher(RegistryTransport(context, settings), context.retrier)
    made.retrier.policy = RetryPolicy(first_wait_seconds=0.01)
    yield made
    made.close()


@pytest.fixture
def storage(tmp_path):
    (provider,) = cfs_register_storage_formats()
    return provider.factory(plugin_context(tmp_path))


def pull(transport, storage, path, text, parallel):
    events = []
    image = resolve(transport, transport.parse(text))
    with storage.open(path, create=True) as repository:
        progress = CountedProgress()
        count = pull_layers(transport, image, repository, progress=progress, emit=events.append, parallel=parallel)
        committed = repository.commit(merged_tree(repository, image), image, name="x")
        assert not list(repository.fsck())
    assert len(events) == count
    return committed, count


@pytest.mark.parametrize("parallel", [1, 2, 6])
def test_any_number_at_a_time_gives_the_same(transport, storage, tmp_path, registry_server, image, parallel):
    image.publish(registry_server, "app", "1")
    text = f"docker://{registry_server.host}/app:1"
    alone, count = pull(transport, storage, tmp_path / "alone", text, 1)
    together, again = pull(transport, storage, tmp_path / "together", text, parallel)
    assert (alone.id, count) == (together.id, again) == (together.id, 6)
    assert pull(transport, storage, tmp_path / "together", text, parallel)[1] == 0


def test_the_largest_comes_first(transport, storage, tmp_path, registry_server):
    image = build_image([{**FOLDERS, "usr/a": "x"}, {"usr/b": noise(1, 50_000)}, {"usr/c": noise(2, 9_000)}])
    image.publish(registry_server, "app", "1")
    pull(transport, storage, tmp_path / "repo", f"docker://{registry_server.host}/app:1", 1)
    fetched = [seen.path.rpartition("/")[2] for seen in registry_server.requests("/blobs/")][1:]
    assert fetched == sorted(image.layers, key=lambda digest: -len(image.blobs[digest]))


def test_the_first_error_is_raised_and_ends_the_rest(transport, storage, tmp_path, registry_server, image):
    image.publish(registry_server, "app", "1")
    registry_server.fault(f"/blobs/{image.layers[1]}", faults.Corrupt(1000), forever=True)
    registry_server.fault(f"/blobs/{image.layers[2]}", faults.Drip(0.002), forever=True)
    begun = time.monotonic()
    with pytest.raises(VerificationError):
        pull(transport, storage, tmp_path / "repo", f"docker://{registry_server.host}/app:1", 3)
    assert time.monotonic() - begun < 20
    with storage.open(tmp_path / "repo") as repository:
        assert not list(repository.fsck())
    assert not list((tmp_path / "repo").rglob(".tmp*"))


def test_faults_on_the_way_are_survived(transport, storage, tmp_path, registry_server, image):
    image.publish(registry_server, "app", "1")
    for digest in image.layers:
        registry_server.fault(f"/blobs/{digest}", faults.Reset(5000), faults.Status(503), faults.Truncate(20_000))
    assert pull(transport, storage, tmp_path / "repo", f"docker://{registry_server.host}/app:1", 3)[1] == 6


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from cfs_core.plugin import Fetcher
from cfs_testkit.context import plugin_context
from cfs_storage_composefs.plugin import cfs_register_storage_formats
from cfs_transport_registry.settings import Settings
from cfs_transport_registry.transport import RegistryTransport
from test_pull_parallel import pull
root = Path(sys.argv[2])
settings = Settings(tls_verify=False, registries_conf=root / "registries.conf", root=root)
context = plugin_context(root)
transport = Fetcher(RegistryTransport(context, settings), context.retrier)
(provider,) = cfs_register_storage_formats()
print("begin", flush=True)
committed, count = pull(transport, provider.factory(plugin_context(root)), root / "repo", sys.argv[3], 3)
transport.close()
print(committed.id, count, flush=True)
"""


@pytest.mark.slow
def test_killed_at_ten_random_moments_nothing_complete_is_fetched_twice(tmp_path, transport, storage):
    """Issue: killed and started again, no complete layer is fetched twice, no object is lost or wrong."""
    contents = [{f"usr/{n}/{m}": noise(n * 10 + m, 100_000 + n * 1_000) for m in range(5)} for n in range(1, 41)]
    image = build_image([FOLDERS, *contents], compression="none")
    with RegistryServer() as server:
        image.publish(server, "app", "1")
        text = f"docker://{server.host}/app:1"
        truth, _ = pull(transport, storage, tmp_path / "truth", text, 3)
        server.fault(r"/blobs/", faults.Drip(0.01, 65536), forever=True)
        (tmp_path / "registries.conf").write_text("")
        argv = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path), text]
        moments = random.Random(4711)
        complete = set()
        states = []
        for _ in range(10):
            server.seen.clear()
            child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
            child.stdout.readline()
            while child.poll() is None and len(server.requests(r"/blobs/")) < 2:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.15, 0.45))
            child.send_signal(signal.SIGKILL)
            out, _ = child.communicate()
            fetched = {seen.path.rpartition("/")[2] for seen in server.requests("/blobs/")}
            assert not fetched & complete
            repository = tmp_path / "repo"
            if (repository / "meta.json").exists():
                with storage.open(repository) as opened:
                    from cfs_core.plugin import Digest

                    pairs = zip(image.layers, image.diff_ids, strict=True)
                    complete = {layer for layer, diff_id in pairs if opened.has_layer(Digest.parse(diff_id))}
                    assert not list(opened.fsck())
            states.append(len(complete) if not out else None)
        server.seen.clear()
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert done.stdout.split()[1:] == [str(truth.id), str(len(image.layers) - len(complete))]
        fetched = {seen.path.rpartition("/")[2] for seen in server.requests("/blobs/")}
        assert not fetched & complete
        assert len({state for state in states if state}) > 1, states
