"""Secure repositories: every object is sealed with fs-verity before it gets its name.

The kernel is played by `Kernel`, which holds callers to its rules: read-only descriptor, no writer anywhere. Where the
machine's own kernel and filesystem have fs-verity, CFS_VERITY_DIR (a directory there) makes the last tests use them.
"""

import os
import stat
import threading
from pathlib import Path

import pytest
from composefs_builders.repositories import open_repository, pull

from cfs_core.plugin import HashAlgorithm, StorageError
from cfs_storage_composefs.errors import DamagedError
from cfs_storage_composefs.fsverity import VerityBusyError, digest_bytes, digest_file
from cfs_storage_composefs.objects.names import object_path
from cfs_storage_composefs.objects.store import ObjectStore
from cfs_testkit.builders.oci import Dir, File, Image, layer

ALGORITHM = HashAlgorithm.SHA512


class Kernel:
    """fs-verity of a filesystem that has it."""

    def __init__(self):
        self.sealed: dict[tuple[int, int], bytes] = {}
        self.busy = 0
        self.corrupt = False

    def seal(self, fd):
        flags = int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0], 8)
        assert flags & os.O_ACCMODE == os.O_RDONLY
        here = self._inode(fd)
        for other in Path("/proc/self/fd").iterdir():
            try:
                same = self._inode(int(other.name)) == here
                info = Path(f"/proc/self/fdinfo/{other.name}").read_text()
            except OSError:
                continue
            writable = int(info.split("flags:")[1].split()[0], 8) & os.O_ACCMODE != os.O_RDONLY
            assert not (same and writable), "sealed while open for writing"
        if self.busy:
            self.busy -= 1
            msg = "open for writing"
            raise VerityBusyError(msg)
        self.sealed[here] = bytes(64) if self.corrupt else digest_file(fd, ALGORITHM)

    def measure(self, fd):
        return self.sealed.get(self._inode(fd))

    @staticmethod
    def _inode(fd):
        found = os.fstat(fd)
        return found.st_dev, found.st_ino


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def store(tmp_path, kernel):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield ObjectStore(fd, tmp_path, ALGORITHM, kernel)
    os.close(fd)


def measured(kernel, path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return kernel.measure(fd)
    finally:
        os.close(fd)


def test_small_and_large_objects_are_sealed(store, kernel, tmp_path):
    created = []
    small = store.put(b"s" * 100, created)
    writer = store.writer()
    for _ in range(3):
        writer.write(b"l" * 100_000)
    large = writer.finish(created)
    writer.abort()
    assert created == [small, large]
    for digest in created:
        assert measured(kernel, tmp_path / object_path(digest)) == digest
    assert stat.S_IMODE((tmp_path / object_path(small)).stat().st_mode) == 0o644
    again = []
    assert store.put(b"s" * 100, again) == small
    assert again == []


def test_busy_is_tried_again(store, kernel):
    kernel.busy = 3
    assert store.put(b"x" * 100, []) in store
    kernel.busy = 1000
    with pytest.raises(StorageError) as caught:
        store.put(b"y" * 100, [])
    assert caught.value.code == "storage.verity-busy"


def test_nothing_gets_a_name_with_the_wrong_seal(store, kernel, tmp_path):
    kernel.corrupt = True
    with pytest.raises(DamagedError):
        store.put(b"x" * 100, [])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_unsealed_object_from_before_is_replaced(store, kernel, tmp_path):
    digest = digest_bytes(b"x" * 100, ALGORITHM)
    path = tmp_path / object_path(digest)
    path.parent.mkdir()
    path.write_bytes(b"x" * 100)
    created = []
    store.put(b"x" * 100, created)
    assert created == [digest]
    assert measured(kernel, path) == digest
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_threads_that_store_the_same_agree(store, tmp_path):
    contents = [bytes([number]) * 5000 for number in range(100)]
    lists = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda created=created: [store.put(data, created) for data in contents])
        for created in lists
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(digest for created in lists for digest in created) == sorted(store.names())
    assert len(list(store.names())) == 100


def test_named_temporary_files_where_there_are_no_unnamed_ones(tmp_path, store):
    store._unnamed = False
    created = []
    digest = store.put(b"x" * 100, created)
    writer = store.writer()
    writer.write(b"y" * 5000)
    assert [path.name[:12] for path in tmp_path.iterdir() if path.is_file()] == [".tmp-object-"]
    writer.abort()
    writer = store.writer()
    writer.write(b"z" * 5000)
    other = writer.finish(created)
    assert created == [digest, other]
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
    assert (tmp_path / object_path(other)).read_bytes() == b"z" * 5000


# --- with a real kernel -----------------------------------------------------------------------

needs_verity = pytest.mark.skipif("CFS_VERITY_DIR" not in os.environ, reason="CFS_VERITY_DIR names no directory")


@needs_verity
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_repository_on_a_filesystem_with_verity(algorithm):
    import tempfile

    image = Image(
        [layer({"usr/a": File(b"a" * 500_000), "usr/b": File(b"b" * 3_000_000), "boot/": Dir(), "sysroot/": Dir()})]
    )
    with tempfile.TemporaryDirectory(dir=os.environ["CFS_VERITY_DIR"]) as below:
        path = Path(below) / "r"
        with open_repository(path, None, algorithm, sealed=True) as repository:
            assert repository._directory.secure
            committed = pull(repository, image, name="x")
            assert list(repository.fsck()) == []
            assert repository.open_tree(committed.id)
        victim = max(path.glob("objects/*/*"), key=lambda file: file.stat().st_size)
        data = victim.read_bytes()
        victim.unlink()
        victim.write_bytes(data)
        with open_repository(path, None, None) as repository:
            assert [problem.code for problem in repository.fsck()] == ["object.unsealed"]
            pull(repository, image, name="x")
            assert list(repository.fsck()) == []
        with pytest.raises(PermissionError):
            victim.open("r+b")
