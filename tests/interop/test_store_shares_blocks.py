"""From a container store to a repository on the same btrfs: large files are not written a second time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from composefs_builders.mounts import mounted, shared

from cfs_core.image.pull import merged_tree, pull_layers
from cfs_core.image.resolve import resolve
from cfs_core.interfaces.fetcher import Fetcher
from cfs_core.system.command import HostCommands
from cfs_storage_composefs.plugin import cfs_register_storage_formats
from cfs_testkit.containers import ContainerStore
from cfs_testkit.context import CountedProgress, plugin_context
from cfs_testkit.images import build_image
from cfs_transport_containers_storage.places import Places
from cfs_transport_containers_storage.transport import StorageTransport

LARGE = {f"usr/share/large/{number}": os.urandom(size) for number, size in enumerate((65_536, 300_001, 5 << 20))}
SMALL = {f"usr/share/small/{number}": os.urandom(size) for number, size in enumerate((10, 65, 4096, 65_535))}
FOLDERS = dict.fromkeys(["boot", "dev", "etc", "proc", "root", "run", "sys", "sysroot", "tmp", "var"])


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory):
    with mounted(tmp_path_factory.mktemp("btrfs"), "btrfs") as place:
        yield place


@pytest.fixture(scope="module")
def graph(btrfs):
    root = btrfs / "graph"
    store = ContainerStore(root)
    store.add(build_image([{**FOLDERS, **LARGE}, SMALL]), "localhost/x:1")
    os.sync()
    time.sleep(0.2)  # stamps that can be trusted
    return root


def pull(graph, path, folder):
    (storage,) = cfs_register_storage_formats()
    places = Places(roots=(graph,), graph=graph)
    transport = Fetcher(StorageTransport(places, HostCommands(os.environ)))
    image = resolve(transport, transport.parse("containers-storage:localhost/x:1"))
    with storage.factory(plugin_context(folder)).open(path, create=True) as repository:
        pull_layers(transport, image, repository, progress=CountedProgress(), emit=lambda _: None)
        committed = repository.commit(merged_tree(repository, image), image, name="x")
        assert list(repository.fsck()) == []
    return committed.id


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_large_files_share_their_blocks(btrfs, graph, tmp_path):
    before = open_files()
    identity = pull(graph, btrfs / "repo", tmp_path)
    assert open_files() <= before
    objects = {path.read_bytes(): path for path in (btrfs / "repo/objects").glob("*/*")}
    assert [shared(objects[data]) for data in LARGE.values()] == [True] * len(LARGE)
    assert pull(graph, tmp_path / "elsewhere", tmp_path) == identity
