"""Layers imported by worker processes: the same bytes, errors and ends as in one process, and nothing left over."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from cfs_core.image.limits import ImageLimits
from cfs_core.image.pull import merged_tree, pull_layers
from cfs_core.image.resolve import resolve
from cfs_core.image.workers.pool import worker_count
from cfs_core.interfaces import block_hashing
from cfs_core.plugin import CfsError, Fetcher, HostError, TransportError
from cfs_storage_composefs.plugin import cfs_register_storage_formats
from cfs_testkit import faults
from cfs_testkit.context import CountedProgress, plugin_context
from cfs_testkit.images import build_image, sha256
from cfs_transport_oci_dir.layout import LayoutTransport

FOLDERS = dict.fromkeys(["boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "var", "usr"])
CFS = Path(sys.executable).with_name("cfs")
SOON = 15
"""Seconds; what is waited for takes a hundred."""


def noise(seed, size):
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def image():
    """Small files, large ones, one in two layers, each compression."""
    shared = noise(0, 70_000)
    contents = [{**FOLDERS, "usr/base": "x", "usr/shared": shared}]
    contents += [{f"usr/{n}/{m}": noise(n * 100 + m, 3_000 * m) for m in range(12)} for n in range(1, 5)]
    contents += [{"usr/large": noise(9, 3_000_000), "usr/again": shared}]
    return build_image(contents, compression=["gzip", "none", "zstd", "zstd:chunked", "none", "gzip"])


def layout(image, path, blobs=None):
    """Write *image* as an OCI layout."""
    folder = path / "blobs" / "sha256"
    folder.mkdir(parents=True)
    for digest, data in {**image.blobs, **(blobs or {}), sha256(image.manifest): image.manifest}.items():
        (folder / digest.removeprefix("sha256:")).write_bytes(data)
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [image.descriptor()]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{path}"


@pytest.fixture
def storage(tmp_path):
    (provider,) = cfs_register_storage_formats()
    return provider.factory(plugin_context(tmp_path))


def contents(folder):
    """Return what a repository holds: files by name with their bytes, links with their targets."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def pull(storage, path, text, workers, **options):
    """Pull and commit; return the identity, events and progress."""
    events, progress = [], CountedProgress()
    transport = Fetcher(LayoutTransport())
    found = resolve(transport, transport.parse(text))
    with storage.open(path, create=True) as repository:
        pull_layers(transport, found, repository, progress=progress, emit=events.append, workers=workers, **options)
        committed = repository.commit(merged_tree(repository, found), found, name="x")
        assert not list(repository.fsck())
    return committed, events, progress


def children():
    """Return the processes that this one has started and not waited for."""
    return {
        int(pid) for thread in Path("/proc/self/task").iterdir() for pid in (thread / "children").read_text().split()
    }


def open_files():
    """Return how many files this process has open, without those that nobody will use again."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_gives_the_same(storage, tmp_path, image, workers):
    text = layout(image, tmp_path / "layout")
    before, descriptors = children(), open_files()
    alone, events, progress = pull(storage, tmp_path / "alone", text, 1)
    together, more, counted = pull(storage, tmp_path / "together", text, workers)
    assert together == alone
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    assert sorted(map(str, more)) == sorted(map(str, events))
    assert (counted.done, counted.finished) == (progress.done, progress.finished)
    assert children() == before
    assert open_files() == descriptors


def test_what_is_wrong_with_a_media_type_is_told(storage, tmp_path):
    image = build_image([FOLDERS, {"usr/a": "x"}], compression=["gzip", "none"])
    manifest = image.manifest.replace(b'tar"', b'tar+zstd"')
    image = dataclasses.replace(image, manifest=manifest, digest=sha256(manifest))
    text = layout(image, tmp_path / "layout")
    _, events, _ = pull(storage, tmp_path / "alone", text, 1)
    _, more, _ = pull(storage, tmp_path / "together", text, 2)
    assert sorted(map(str, more)) == sorted(map(str, events))
    assert [event.name for event in more].count("layer.media-type-wrong") == 1


def damaged(kind, image):
    """Return the image with one layer damaged, and blobs that are not what their names say."""
    victim = image.layers[5]
    data = image.blobs[victim]
    if kind == "another blob":
        return image, {victim: data[:-1] + bytes([data[-1] ^ 1])}
    if kind == "shorter blob":
        return image, {victim: data[:-1]}
    changed = {"truncated": data[:-5000], "no gzip": data[:9000] + bytes(len(data) - 9000)}.get(kind)
    if changed is not None:
        manifest = image.manifest.replace(victim.encode(), sha256(changed).encode())
        manifest = manifest.replace(b'"size": %d' % len(data), b'"size": %d' % len(changed))
        blobs = {**image.blobs, sha256(changed): changed}
        return dataclasses.replace(image, manifest=manifest, digest=sha256(manifest), blobs=blobs), {}
    config = next(data for data in image.blobs.values() if data.startswith(b'{"architecture"'))
    wrong = config.replace(image.diff_ids[5].encode(), b"sha256:" + b"1" * 64)
    manifest = image.manifest.replace(sha256(config).encode(), sha256(wrong).encode())
    blobs = {**image.blobs, sha256(wrong): wrong}
    return dataclasses.replace(image, manifest=manifest, digest=sha256(manifest), blobs=blobs), {}


def failed(storage, path, text, workers, **options):
    with pytest.raises(CfsError) as caught:
        pull(storage, path, text, workers, **options)
    error = caught.value
    return type(error), error.code, error.message, error.hint, error.facts


@pytest.mark.parametrize("kind", ["another blob", "shorter blob", "truncated", "no gzip", "another diff-id"])
def test_a_damaged_layer_fails_as_in_one_process(storage, tmp_path, image, kind):
    text = layout(*damaged(kind, image)[:1], tmp_path / "layout", damaged(kind, image)[1])
    alone = failed(storage, tmp_path / "alone", text, 1)
    assert failed(storage, tmp_path / "together", text, 3) == alone
    with storage.open(tmp_path / "together") as repository:
        assert not list(repository.fsck())
    large = [path for path in (tmp_path / "together/objects").rglob("*") if path.stat().st_size == 3_000_000]
    assert not large, "a failed layer's objects go with it"


def test_a_limit_is_told_as_in_one_process(storage, tmp_path, image):
    text = layout(image, tmp_path / "layout")
    limits = ImageLimits()
    limits = dataclasses.replace(
        limits, layer=dataclasses.replace(limits.layer, tar=dataclasses.replace(limits.layer.tar, file_bytes=1_000_000))
    )
    alone = failed(storage, tmp_path / "alone", text, 1, limits=limits)
    assert alone[1] == "image.limit"
    assert failed(storage, tmp_path / "together", text, 2, limits=limits) == alone


def test_no_room_is_told_as_in_one_process(tmp_path, image):
    text = layout(image, tmp_path / "layout")
    ends = []
    for workers in (1, 3):
        env = {"PATH": os.environ["PATH"], "CFS_PULL_WORKERS": str(workers), "HOME": str(tmp_path)}
        command = ["prlimit", "--fsize=1000000", CFS, "--no-progress", "image", "pull", text]
        command += ["--repo", tmp_path / "repo"]
        done = subprocess.run(command, env=env, text=True, capture_output=True, check=False)
        ends.append((done.returncode, done.stderr))
    assert ends[0] == ends[1]
    assert "[storage.full]" in ends[1][1]


def endless(image, server):
    """Have the registry send three layers, and of the others a thousand bytes."""
    image.publish(server, "app", "1")
    for digest in image.layers[2:5]:
        server.fault(f"/blobs/{digest}", faults.Silence(1000), forever=True)
    return f"docker://{server.host}/app:1"


@pytest.fixture
def hanging(registry_server, image, tmp_path):
    """Return a running pull with four workers, and the workers, while it waits for the registry."""
    (tmp_path / "registries.conf").write_text(f'[[registry]]\nlocation="{registry_server.host}"\ninsecure=true\n')
    text = endless(image, registry_server)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "CFS_PULL_WORKERS": "4"}
    env |= {"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf"), "A_SECRET": "s3cret-token"}
    command = [CFS, "--no-progress", "image", "pull", text, "--repo", tmp_path / "repo", "--architecture", "amd64"]
    process = subprocess.Popen(
        command, env=env, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        while len(list((tmp_path / "repo/streams").glob("oci-layer-*"))) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(0.3)
        yield process, list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))
    finally:
        process.kill()
        process.communicate()


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def all_gone(pids):
    deadline = time.monotonic() + SOON
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return all(map(gone, pids))


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_workers_too(hanging, storage, tmp_path, number, group):
    process, workers = hanging
    assert len(workers) == 4
    begun = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - begun < SOON
    assert (process.returncode, stderr.strip()) == (130, "interrupted")
    assert all_gone(workers)
    with storage.open(tmp_path / "repo") as repository:
        assert not list(repository.fsck())
    assert not list((tmp_path / "repo").rglob(".tmp*"))
    assert len(list((tmp_path / "repo/streams").glob("oci-layer-*"))) == 3, "complete layers stay"


def test_workers_end_with_a_parent_that_is_killed(hanging, storage, tmp_path):
    process, workers = hanging
    process.kill()
    process.communicate()
    assert all_gone(workers)
    with storage.open(tmp_path / "repo") as repository:
        repository.collect_garbage()  # nobody else has the lock
        assert not list(repository.fsck())
    assert not list((tmp_path / "repo").rglob(".tmp*"))


def test_workers_know_no_secrets(hanging):
    _, workers = hanging
    for worker in workers:
        told = Path(f"/proc/{worker}/environ").read_bytes() + Path(f"/proc/{worker}/cmdline").read_bytes()
        assert b"s3cret" not in told
        assert b"registries" not in told


class Killing(LayoutTransport):
    """Kills the workers when the largest layer is opened."""

    def open_blob(self, reference, descriptor, offset):
        opened = super().open_blob(reference, descriptor, offset)
        if descriptor.size > 2_000_000:
            for worker in children() - self.before:
                os.kill(worker, signal.SIGKILL)
        return opened


def test_a_killed_worker_is_told_and_nothing_of_its_layer_published(storage, tmp_path, image):
    text = layout(image, tmp_path / "layout")
    layouts = Killing()
    layouts.before = children()
    transport = Fetcher(layouts)
    found = resolve(transport, transport.parse(text))
    with storage.open(tmp_path / "repo", create=True) as repository:
        with pytest.raises(HostError, match="a worker process that imported a layer was ended by signal 9") as caught:
            pull_layers(transport, found, repository, progress=CountedProgress(), emit=lambda _: None, workers=2)
        assert "pull.workers = 1" in caught.value.hint
        assert not repository.has_layer(found.config.diff_ids[5])
        assert not list(repository.fsck())
    assert children() == layouts.before
    pull(storage, tmp_path / "repo", text, 2)


def test_faults_of_workers_show_where(storage, tmp_path, image):
    """What is logged of an error in a worker has the traceback of the worker."""
    text = layout(*damaged("truncated", image)[:1], tmp_path / "layout")
    with pytest.raises(CfsError) as caught:
        pull(storage, tmp_path / "repo", text, 2)
    assert "decompress.py" in str(caught.value.__cause__)


def test_a_pull_in_a_thread_of_its_own(storage, tmp_path, image):
    """The kernel ends workers with the thread that started them, not with the process."""
    text = layout(image, tmp_path / "layout")
    found = []
    thread = threading.Thread(target=lambda: found.append(pull(storage, tmp_path / "repo", text, 2)[0]))
    thread.start()
    thread.join()
    assert found[0].id == pull(storage, tmp_path / "alone", text, 1)[0].id


def test_how_many_workers(monkeypatch):
    mib = 1 << 20
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert worker_count([100 * mib] * 12, None) == 4
    assert worker_count([100 * mib] * 3, None) == 3
    assert worker_count([100_000] * 12, None) == 0, "not worth it"
    assert worker_count([100 * mib] * 12, 1) == 0
    assert worker_count([100_000] * 12, 7) == 7, "as asked for"
    assert worker_count([], None) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert worker_count([100 * mib] * 12, None) == 0, "one processor: no workers, no cost"


class Refused(LayoutTransport):
    def open_blob(self, reference, descriptor, offset):
        if descriptor.size > 2_000_000:
            msg = "not today"
            raise TransportError(msg)
        return super().open_blob(reference, descriptor, offset)


def test_a_source_that_fails_ends_the_pull(storage, tmp_path, image):
    text = layout(image, tmp_path / "layout")
    transport = Fetcher(Refused())
    found = resolve(transport, transport.parse(text))
    before = children()
    with storage.open(tmp_path / "repo", create=True) as repository, pytest.raises(TransportError, match="not today"):
        pull_layers(transport, found, repository, progress=CountedProgress(), emit=lambda _: None, workers=2)
    assert children() == before


def test_where_none_can_be_started_this_process_does_it(storage, tmp_path, image, monkeypatch):
    """Who runs a Python that he may not start again; only an explicit wish for workers is refused then."""
    text = layout(image, tmp_path / "oci")
    monkeypatch.setattr("cfs_core.image.workers.pool._WORTH_BYTES", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(sys, "executable", str(tmp_path))
    committed, _, _ = pull(storage, tmp_path / "repository", text, None)
    assert committed.id == pull(storage, tmp_path / "one", text, 1)[0].id
    with pytest.raises(HostError, match="cannot be started"):
        pull(storage, tmp_path / "two", text, 2)


HASHER = """
import hashlib, os
from cfs_core.plugin import BlockHasher

class Remembering(BlockHasher):
    '''Faster than hashlib where it is measured, since that is always the same data; says where it was asked.'''

    def __init__(self, told):
        self.told, self.known = told, {}

    def __reduce__(self):
        return Remembering, (self.told,)

    def hash_blocks(self, data, size, algorithm):
        with open(self.told, "a") as out:
            out.write(f"{os.getpid()}\\n")
        key = bytes(data), size, algorithm
        if key not in self.known:
            new = getattr(hashlib, algorithm.value)
            hashes = (new(data[at : at + size]).digest() for at in range(0, len(data), size))
            self.known[key] = b"".join(hashes)
        return self.known[key]
"""


@pytest.fixture
def remembering(tmp_path, monkeypatch):
    """A hasher in a module of its own, which workers find as this process does, and the file it tells its calls in."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/remembering_hasher.py").write_text(HASHER)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield importlib.import_module("remembering_hasher").Remembering, tmp_path / "told"
    sys.modules.pop("remembering_hasher")
    block_hashing.offer(tuple)


def test_workers_hash_with_what_plugins_offer(storage, tmp_path, image, remembering):
    made, told = remembering
    text = layout(image, tmp_path / "layout")
    alone, *_ = pull(storage, tmp_path / "alone", text, 1)
    block_hashing.offer(lambda: [block_hashing.Offer("remembering", lambda: made(str(told)))])
    together, *_ = pull(storage, tmp_path / "together", text, 2)
    assert together == alone
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    by_process = Counter(map(int, told.read_text().split()))
    by_process.pop(os.getpid(), None)
    assert len(by_process) == 2
    proving = 22 + 3  # counts and sizes that are proven, rounds that are measured
    assert all(times > proving for times in by_process.values())


def test_workers_do_without_what_cannot_be_sent(storage, tmp_path, image, remembering, monkeypatch):
    made, told = remembering
    monkeypatch.setattr(made, "__reduce__", lambda self: (open, (self, lambda: None)))
    text = layout(image, tmp_path / "layout")
    block_hashing.offer(lambda: [block_hashing.Offer("remembering", lambda: made(str(told)))])
    together, *_ = pull(storage, tmp_path / "together", text, 2)
    assert set(map(int, told.read_text().split())) <= {os.getpid()}
    block_hashing.offer(tuple)
    assert pull(storage, tmp_path / "alone", text, 1)[0] == together
