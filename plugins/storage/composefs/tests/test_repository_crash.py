"""Killed, out of space, out of rights: the old state or the new one, nothing in between, and the next run works."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from composefs_builders.repositories import layer_stream, open_repository, pull

from cfs_core.plugin import Digest, StorageError
from cfs_testkit.builders.oci import Dir, File, Image, layer
from cfs_testkit.full_disk import files_no_larger_than, fill, small_filesystem


def big_image(count: int = 400) -> Image:
    rng = random.Random(7)
    tree = {f"usr/share/{number}": File(rng.randbytes(rng.randrange(100, 20_000))) for number in range(count)}
    tree |= {"usr/big": File(rng.randbytes(3_000_000)), "boot/": Dir(), "sysroot/": Dir()}
    return Image([layer(tree, "none"), layer({"usr/top": File(rng.randbytes(9000))}, "none")])


CHILD = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from composefs_builders.repositories import open_repository, pull
    from test_repository_crash import big_image
    image = big_image()
    print("ready", flush=True)
    with open_repository(Path(sys.argv[2])) as repository:
        pull(repository, image, name="x")
    print("done", flush=True)
    """
)


COLLECTING_CHILD = CHILD.replace(
    'pull(repository, image, name="x")',
    """
        for number in range(100):
            pull(repository, image, name="x")
            repository.remove("x")
            print("collecting", flush=True)
            repository.collect_garbage()
    """.strip(),
)


def command(path: Path, program: str = CHILD) -> list[str]:
    return [sys.executable, "-c", program, str(Path(__file__).parent), str(path)]


def objects(path: Path) -> int:
    return sum(1 for _ in path.glob("objects/*/*"))


def kill_with(path: Path, count: int) -> bool:
    """Kill an import when the repository has *count* objects; return whether that came before its end."""
    child = subprocess.Popen(command(path), stdout=subprocess.PIPE, text=True)
    assert child.stdout
    with child:
        assert child.stdout.readline() == "ready\n"
        while child.poll() is None and objects(path) < count:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        return "done" not in child.stdout.read()


def kill_collecting(path: Path, seconds: float) -> int:
    """Kill a run that fills and empties a repository *seconds* after a collection began; return the exit status."""
    child = subprocess.Popen(command(path, COLLECTING_CHILD), stdout=subprocess.PIPE, text=True)
    assert child.stdout
    with child:
        for line in child.stdout:
            if line == "collecting\n":
                break
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
    return child.returncode


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_killed_at_random_moments(tmp_path):
    image = big_image()
    rng = random.Random(int(os.environ.get("CFS_SEED", "1")))
    path = tmp_path / "r"
    interrupted = 0
    for _ in range(8):  # 402 files of different content are objects, and manifest, config, image
        stopped = kill_with(path, rng.randrange(1, 400))
        interrupted += stopped
        with open_repository(path) as repository:
            assert list(repository.fsck()) == []
            whole = [repository.has_layer(Digest.parse(each.diff_id)) for each in image.layers]
            assert all(whole) or not repository.images()
            assert repository.images() or stopped
            assert objects(path) > 0
            repository.remove("x") if repository.images() else None
            repository.collect_garbage()
            assert objects(path) == 0  # so that the next run has everything to do
    assert interrupted >= 4
    with open_repository(path) as repository:
        pull(repository, image, name="x")
        assert list(repository.fsck()) == []
        repository.collect_garbage()
        assert [stored.name for stored in repository.images()] == ["x"]
        repository.remove("x")
        assert repository.collect_garbage().objects_kept == 0
    assert not list(path.glob("objects/*/*"))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_collection_killed_at_random_moments(tmp_path):
    rng = random.Random(int(os.environ.get("CFS_SEED", "1")))
    path = tmp_path / "r"
    kept = Image([layer({"usr/kept": File(b"k" * 5000), "boot/": Dir(), "sysroot/": Dir()})])
    with open_repository(path) as repository:
        pull(repository, kept, name="kept")
    for _ in range(6):
        assert kill_collecting(path, rng.uniform(0, 0.03)) == -signal.SIGKILL
        with open_repository(path) as repository:
            assert list(repository.fsck()) == []
            assert "kept" in {stored.name for stored in repository.images()}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_order_of_what_must_survive_a_power_failure(tmp_path):
    log = tmp_path / "calls"
    calls = "linkat,link,symlink,symlinkat,rename,renameat,renameat2,syncfs"
    argv = ["strace", "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={calls}", *command(tmp_path / "r")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip("strace is not allowed here")
    assert "done" in done.stdout, done.stderr
    order = []
    for line in log.read_text().splitlines():
        if "syncfs(" in line:
            kind = "sync"
        elif "streams/refs/" in line:
            kind = "tag"
        elif "/streams>" in line:
            kind = "stream"
        elif "/images>" in line:
            kind = "image"
        elif "linkat(" in line and " = 0" in line and "meta" not in line:
            kind = "object"
        else:
            continue
        if not order or order[-1] != kind:
            order.append(kind)
    layers = ["object", "sync", "stream"] * 2
    assert order == [*layers, "object", "sync", "image", "stream", "sync", "tag", "sync"]


def listing(path: Path) -> set[str]:
    return {str(each.relative_to(path)) for each in path.rglob("*") if not each.is_dir()}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_full_disk(tmp_path):
    image = big_image()
    with small_filesystem(tmp_path / "small", 4 << 20) as where, open_repository(where / "r") as repository:
        small = Image([layer({"usr/x": File(b"x" * 5000), "boot/": Dir(), "sysroot/": Dir()})])
        pull(repository, small, name="small")
        before = listing(where)
        with pytest.raises(StorageError) as caught:
            pull(repository, image, name="big")
        assert caught.value.code == "storage.full"
        assert caught.value.hint
        assert listing(where) == before
        assert list(repository.fsck()) == []
        assert [stored.name for stored in repository.images()] == ["small"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_full_while_committing(tmp_path):
    image = big_image()
    with small_filesystem(tmp_path / "small", 12 << 20) as where, open_repository(where / "r") as repository:
        for each in image.layers:
            repository.import_layer(layer_stream(each))
        before = listing(where)
        filler = where / "filler"
        fill(filler)
        with pytest.raises(StorageError) as caught:
            pull(repository, image, name="big")
        assert caught.value.code == "storage.full"
        assert listing(where) == before | {"filler"}
        filler.unlink()
        pull(repository, image, name="big")
        assert list(repository.fsck()) == []


def test_limit_of_file_sizes(tmp_path):
    image = big_image(10)
    with open_repository(tmp_path / "r") as repository:
        before = listing(tmp_path)
        with files_no_larger_than(1_000_000):  # noqa: SIM117 - the limit must end before pytest writes
            with pytest.raises(StorageError) as caught:
                pull(repository, image)
        assert caught.value.code == "storage.full"
        assert listing(tmp_path) == before
        pull(repository, image)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting read-only needs root")
def test_read_only_filesystem(tmp_path):
    image = big_image(10)
    with small_filesystem(tmp_path / "ro", 20 << 20) as where:
        with open_repository(where / "r") as repository:
            committed = pull(repository, image, name="x")
        subprocess.run(["mount", "-o", "remount,ro", where], check=True)
        with open_repository(where / "r", create=False) as repository:
            assert list(repository.fsck()) == []
            repository.open_tree(committed.id)
            with pytest.raises(StorageError) as caught:
                repository.import_layer(layer_stream(layer({"usr/new": File(b"n" * 500)})))
            assert caught.value.code == "storage.read-only"
            with pytest.raises(StorageError):
                repository.remove("x")
