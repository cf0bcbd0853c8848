"""Objects that share blocks with the file they come from (btrfs on a loop device), or are copied by the kernel."""

from __future__ import annotations

import contextlib
import os
import time

import pytest
from composefs_builders.mounts import mounted, shared

from cfs_core.plugin import ChangedError, HashAlgorithm, SourceFile
from cfs_storage_composefs.fsverity import VerityUnsupportedError, digest_bytes
from cfs_storage_composefs.objects.names import KernelSealer, object_path
from cfs_storage_composefs.objects.store import ObjectStore

ALGORITHM = HashAlgorithm.SHA256
SIZE = 3 << 20


@pytest.fixture(scope="module", params=["btrfs", "ext4"])
def filesystem(request, tmp_path_factory):
    with mounted(tmp_path_factory.mktemp("mounts"), request.param) as place:
        yield request.param, place


@pytest.fixture
def place(filesystem, tmp_path):
    folder = filesystem[1] / tmp_path.name
    folder.mkdir()
    return folder


@pytest.fixture(params=[None, "sealed"])
def store(filesystem, place, request):
    if request.param and not has_verity(place):
        pytest.skip("no fs-verity here")
    (place / "objects").mkdir()
    fd = os.open(place / "objects", os.O_RDONLY | os.O_DIRECTORY)
    made = ObjectStore(fd, place / "objects", ALGORITHM, KernelSealer(ALGORITHM) if request.param else None)
    yield made
    os.close(fd)


def has_verity(place):
    (place / "probe").write_bytes(b"x")
    fd = os.open(place / "probe", os.O_RDONLY)
    try:
        KernelSealer(ALGORITHM).seal(fd)
    except VerityUnsupportedError:
        return False
    finally:
        os.close(fd)
    return True


def write(path, data):
    """Write a file to disk, and let time pass until its stamp can be trusted."""
    path.write_bytes(data)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    while path.stat().st_ctime > time.time() - 0.15:
        time.sleep(0.02)
    return data


def opened(path):
    return SourceFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def put(store, data, source, created):
    return store.put(data, created, source=source)


def stream(store, data, source, created, *, before_the_end=lambda: None):
    writer = store.writer(source=source)
    for at in range(0, len(data), 1 << 20):
        writer.write(data[at : at + (1 << 20)])
    before_the_end()
    try:
        return writer.finish(created)
    finally:
        writer.abort()


@pytest.mark.parametrize("way", [put, stream])
def test_blocks_are_shared_where_the_filesystem_can(filesystem, place, store, way):
    data = write(place / "source", os.urandom(SIZE))
    created = []
    digest = way(store, data, opened(place / "source"), created)
    path = place / "objects" / object_path(digest)
    assert digest == digest_bytes(data, ALGORITHM)
    assert (created, path.read_bytes()) == ([digest], data)
    assert shared(path) == (filesystem[0] == "btrfs")
    (place / "source").write_bytes(b"other")
    assert path.read_bytes() == data


def test_where_nothing_can_be_shared_the_kernel_copies(place, store):
    data = write(place / "source", os.urandom(SIZE + 5))
    source = opened(place / "source")
    with contextlib.closing(store.temporary()) as temporary:
        assert store.copier.copy(source, temporary.fd, 0, 1000)
        assert store.copier.copy(source, temporary.fd, 1000, SIZE - 995)
        assert os.pread(temporary.fd, SIZE * 2, 0) == data
        assert not store.copier.copy(source, temporary.fd, SIZE, 10), "there are but five bytes left"


@pytest.mark.parametrize("way", [put, stream])
def test_another_filesystem_is_written_as_ever(place, store, way, tmp_path):
    data = write(tmp_path / "source", os.urandom(SIZE))
    digest = way(store, data, opened(tmp_path / "source"), [])
    assert (place / "objects" / object_path(digest)).read_bytes() == data


def test_what_cannot_be_is_not_tried_again(place, store, tmp_path):
    write(tmp_path / "source", b"x" * 100_000)
    source = opened(tmp_path / "source")
    with contextlib.closing(store.temporary()) as temporary:
        assert not store.copier.clone(source, temporary.fd)
    device = os.fstat(source.fd).st_dev
    assert device in store.copier._cannot_clone
    write(place / "source", b"x" * 100_000)
    store.put(b"x" * 100_000, [], source=opened(place / "source"))
    assert store.copier._cannot_copy <= {device}


def test_small_pieces_fall_back_to_what_was_hashed(place, store):
    """The file changes between reading and storing: the object has the bytes that were read."""
    data = write(place / "source", os.urandom(100_000))
    for change in (os.urandom(100_000), b"", os.urandom(200_000)):
        write(place / "source", data)
        source = opened(place / "source")
        (place / "source").write_bytes(change)
        digest = store.put(data, [], source=source)
        assert (place / "objects" / object_path(digest)).read_bytes() == data
        store.remove(digest)


def test_large_ones_are_an_error_and_leave_nothing(place, store):
    for change in (os.urandom(SIZE), os.urandom(SIZE + 1)):
        data = write(place / "source", os.urandom(SIZE))
        source = opened(place / "source")
        (place / "source").write_bytes(change)
        with pytest.raises(ChangedError) as caught:
            stream(store, data, source, [])
        assert caught.value.hint
        assert list(store.names()) == []


def test_of_what_is_gone_the_bytes_that_were_read_are_kept(place, store):
    data = write(place / "source", os.urandom(SIZE))
    source = opened(place / "source")
    os.truncate(place / "source", 5)
    digest = stream(store, data, source, [])
    assert (place / "objects" / object_path(digest)).read_bytes() == data


def test_a_touched_file_is_compared_and_found_right(place, store):
    data = write(place / "source", os.urandom(SIZE))
    digest = stream(store, data, opened(place / "source"), [], before_the_end=(place / "source").touch)
    assert (place / "objects" / object_path(digest)).read_bytes() == data


def test_a_removed_file_is_whole_still(place, store):
    data = write(place / "source", os.urandom(SIZE))
    digest = stream(store, data, opened(place / "source"), [], before_the_end=(place / "source").unlink)
    assert (place / "objects" / object_path(digest)).read_bytes() == data
