"""Parts of the store reader: references, storage.conf, tar-split, locks, staying below a directory."""

from __future__ import annotations

import base64
import fcntl
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from cfs_core.plugin import (
    ChangedError,
    ConfigError,
    FileBytes,
    NotFoundError,
    StorageError,
    TransportError,
    UsageError,
)
from cfs_transport_containers_storage.beneath import Beneath
from cfs_transport_containers_storage.locks import SharedLock
from cfs_transport_containers_storage.lookup import find_image, parse
from cfs_transport_containers_storage.places import Places
from cfs_transport_containers_storage.store import ImageRecord, Store
from cfs_transport_containers_storage.tarsplit import (
    CHUNK,
    SOURCE_BYTES,
    Payload,
    Segment,
    assemble,
    read_tar_split,
)

ID = "ab" * 32
DIGEST = "sha256:" + "1" * 64


# --- references ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("containers-storage:localhost/t:1", "localhost/t", "1"),
        ("containers-storage:t", "t", "latest"),
        ("containers-storage:localhost:5000/a/b:x", "localhost:5000/a/b", "x"),
        (f"containers-storage:{ID}", f"@{ID}", None),
        (f"containers-storage:sha256:{ID}", f"@{ID}", None),
        (f"containers-storage:@{ID}", f"@{ID}", None),
        ("containers-storage:sha256:abcdef0", "@abcdef0", None),
        ("containers-storage:@abcdef012", "@abcdef012", None),
        (f"containers-storage:localhost/t@{ID}", f"localhost/t@{ID}", None),
        (f"containers-storage:localhost/t@{DIGEST}", "localhost/t", None),
        (f"containers-storage:[overlay@/g+/r]t:1@{DIGEST}", "[overlay@/g+/r]t", "1"),
        (f"containers-storage:[/g]{ID}", f"[/g]@{ID}", None),
    ],
)
def test_references(text, name, tag):
    reference = parse(text)
    assert (reference.name, reference.tag, reference.text) == (name, tag, text)
    assert (str(reference.digest) == DIGEST) == (DIGEST in text)


@pytest.mark.parametrize("rest", ["[x", "[]", "a b", ":1", "t:", "t:a b", "t@nonsense", "../x", "t@sha256:12", "@xyz"])
def test_nonsense_is_refused(rest):
    with pytest.raises(UsageError):
        parse(f"containers-storage:{rest}")


def record(image_id, *names, manifest=None):
    digests = {"manifest": manifest} if manifest else {}
    return ImageRecord(id=image_id * 32, names=names, top_layer=None, digests=digests, store=None)


IMAGES = [
    record("aa", "localhost/t:1", "quay.io/x/t:2", manifest=DIGEST),
    record("ab", "docker.io/library/fedora:40"),
    record("ac", "quay.io/y/app:1"),
    record("ad", "quay.io/z/app:1"),
]


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("localhost/t:1", "aa"),
        ("t:1", "aa"),
        ("x/t:2", "aa"),
        ("fedora:40", "ab"),
        ("docker.io/fedora:40", "ab"),
        ("aa" * 32, "aa"),
        ("@" + "ab" * 5, "ab"),
        ("aa" * 4, "aa"),
        (f"t@{DIGEST}", "aa"),
        (f"quay.io/x/t@{DIGEST}", "aa"),
        ("y/app:1", "ac"),
    ],
)
def test_lookup(rest, found):
    assert find_image(IMAGES, parse(f"containers-storage:{rest}")).image.id == found * 32


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("x/t:2", "quay.io/x/t"),
        ("t:1", "localhost/t"),
        ("docker.io/fedora:40", "docker.io/library/fedora"),
        (f"x/t@{DIGEST}", "quay.io/x/t"),
        (f"t@{'aa' * 32}", "localhost/t"),
        ("aa" * 32, None),
        ("aa" * 4, None),
    ],
)
def test_the_full_name_is_that_of_the_record(rest, name):
    assert find_image(IMAGES, parse(f"containers-storage:{rest}")).name == name


def test_a_short_name_that_one_image_has_twice_is_not_clear():
    """Which of them a policy judges would be chance."""
    both = [record("ae", "quay.io/evil/app:1", "quay.io/good/app:1")]
    with pytest.raises(UsageError):
        find_image(both, parse("containers-storage:app:1"))
    assert find_image(both, parse("containers-storage:evil/app:1")).name == "quay.io/evil/app"


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        ("t", NotFoundError),
        ("localhost/other:1", NotFoundError),
        (f"fedora@{DIGEST}", NotFoundError),
        ("@" + "ff" * 32, NotFoundError),
        ("localhost/t@" + "ab" * 32, NotFoundError),
        ("app:1", UsageError),
    ],
)
def test_lookup_of_what_is_not_there_or_not_clear(rest, error):
    with pytest.raises(error) as caught:
        find_image(IMAGES, parse(f"containers-storage:{rest}"))
    assert caught.value.hint


# --- where the store is ----------------------------------------------------------------------


def places(root, uid=0, section=None, **environ):
    return Places.of(section or {}, {"HOME": str(root / "home"), **environ}, uid, root)


def conf(root, path, text):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return str(target)


def test_defaults_of_root_and_of_others(tmp_path):
    assert places(tmp_path).roots == (tmp_path / "var/lib/containers/storage",)
    assert places(tmp_path, 1000).roots == (tmp_path / "home/.local/share/containers/storage",)
    assert places(tmp_path, 1000, XDG_DATA_HOME="/d").roots[0].as_posix() == "/d/containers/storage"


def test_files_in_their_order(tmp_path):
    conf(tmp_path, "usr/share/containers/storage.conf", '[storage]\ngraphroot="/vendor"\ndriver="overlay2"\n')
    assert places(tmp_path).roots[0].as_posix() == "/vendor"
    assert places(tmp_path).driver == "overlay"
    assert places(tmp_path, 1000).roots == (tmp_path / "home/.local/share/containers/storage",)
    text = '[storage]\ngraphroot="/etc-root"\nrootless_storage_path="$HOME/x/${NAME}"\n'
    text += '[storage.options]\nadditionalimagestores=["/more"]\n'
    conf(tmp_path, "etc/containers/storage.conf", text)
    assert [root.as_posix() for root in places(tmp_path).roots] == ["/etc-root", "/more"]
    assert places(tmp_path, 1000, NAME="n").roots[0] == tmp_path / "home/x/n"
    conf(tmp_path, "home/.config/containers/storage.conf", '[storage]\ndriver="vfs"\ngraphroot="/mine"\n')
    assert (places(tmp_path, 1000).roots[0].as_posix(), places(tmp_path, 1000).driver) == ("/mine", "vfs")
    assert places(tmp_path).roots[0].as_posix() == "/etc-root"
    named = conf(tmp_path, "other.conf", '[storage]\ngraphroot="/named"\nimagestore="/images"\n')
    found = places(tmp_path, CONTAINERS_STORAGE_CONF=named).roots
    assert [root.as_posix() for root in found] == ["/images", "/named"]
    assert places(tmp_path, section={"root": "/r", "driver": "vfs"}).roots[0].as_posix() == "/r"


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "storage = 1",
        "[storage]\ndriver=5",
        '[storage]\ndriver="zfs"',
        "[storage.options]\nadditionalimagestores=1",
    ],
)
def test_mistakes_in_storage_conf(tmp_path, text):
    named = conf(tmp_path, "s.conf", text)
    with pytest.raises(ConfigError):
        places(tmp_path, CONTAINERS_STORAGE_CONF=named)


def test_the_graph_root_that_policies_name(tmp_path):
    """As containers/image: links in storage.conf are followed, what was typed stays, additional stores don't count."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    text = f'[storage]\ngraphroot="{tmp_path}/link"\nimagestore="/images"\n[storage.options]\n'
    named = conf(tmp_path, "other.conf", text + 'additionalimagestores=["/more"]\n')
    found = places(tmp_path, CONTAINERS_STORAGE_CONF=named)
    assert found.graph == tmp_path / "real"
    assert found.narrowed(f"[overlay@{tmp_path}/./link/+/run]").graph == tmp_path / "link"


def test_options_of_a_driver_add_stores(tmp_path):
    found = places(tmp_path).narrowed("[overlay@/graph+/run:overlay.additionalimagestore=/more,x=y,imagestore=/images]")
    assert [root.as_posix() for root in found.roots] == ["/graph", "/more", "/images"]
    named = conf(tmp_path, "s.conf", '[storage]\ngraphroot="/g"\n')
    found = places(tmp_path, CONTAINERS_STORAGE_CONF=named, STORAGE_OPTS="overlay.additionalimagestore=/env,size=1")
    assert [root.as_posix() for root in found.roots] == ["/g", "/env"]


@pytest.mark.parametrize(
    ("entry", "diff_id", "partial"),
    [
        ({"diff-digest": "sha256:a"}, "sha256:a", False),
        ({"toc-digest": "sha256:t"}, None, True),
        ({"toc-digest": "sha256:t", "flags": {"expected-layer-diffid": "sha256:a"}}, "sha256:a", True),
        ({"flags": None}, None, False),
    ],
)
def test_layers_that_were_pulled_in_part(tmp_path, entry, diff_id, partial):
    (tmp_path / "overlay-layers").mkdir()
    text = json.dumps([{"id": "a" * 64, **entry}])
    (tmp_path / "overlay-layers/layers.json").write_text(text)
    (layer,) = Store(tmp_path, "overlay").layers().values()
    assert (layer.diff_id, layer.partial) == (diff_id, partial)


def test_missing_or_unknown_settings(tmp_path):
    with pytest.raises(ConfigError):
        places(tmp_path, CONTAINERS_STORAGE_CONF=str(tmp_path / "absent"))
    with pytest.raises(ConfigError):
        places(tmp_path, section={"nope": "x"})
    with pytest.raises(UsageError):
        places(tmp_path).narrowed("[relative/path]")
    assert places(tmp_path).narrowed("[vfs@/a+/b:x=y]").driver == "vfs"


# --- tar-split -------------------------------------------------------------------------------


def write_split(path, entries):
    path.write_bytes(gzip.compress(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)))
    return path


def segment(data, position=0):
    return {"type": 2, "payload": base64.b64encode(data).decode(), "position": position}


def test_parts_are_read_in_order(tmp_path):
    path = write_split(
        tmp_path / "x.gz",
        [
            segment(b"head"),
            {"type": 1, "name": "dir/", "payload": None, "position": 1},
            {"type": 1, "name": "a", "size": 3, "payload": "x", "position": 2},
            {"type": 1, "name_raw": base64.b64encode(b"\xff").decode(), "size": 4, "payload": "x", "position": 3},
            segment(b""),
        ],
    )
    assert list(read_tar_split(path)) == [Segment(b"head"), Payload(b"a", 3), Payload(b"\xff", 4)]


@pytest.mark.parametrize(
    "data",
    [
        b"not gzip",
        gzip.compress(b"not json\n", mtime=0),
        gzip.compress(b'{"type":1}\n[]\n', mtime=0),
        gzip.compress(b'{"type":3,"payload":""}\n', mtime=0),
        gzip.compress(b'{"type":2,"payload":"***"}\n', mtime=0),
        gzip.compress(b'{"type":2,"payload":5}\n', mtime=0),
        gzip.compress(b'{"type":1,"size":"x"}\n', mtime=0),
        gzip.compress(b'{"type":2,"payload":"aGk="}\n' * 100, mtime=0)[:-20],
        gzip.compress(b'{"type":2,"payload":"aGk="}\n' * 100, mtime=0)[:20],
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, data):
    path = tmp_path / "x.gz"
    path.write_bytes(data)
    with pytest.raises(StorageError) as caught:
        list(read_tar_split(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("sizes", [[0], [1, 2, 3], [1 << 20], [(1 << 20) - 1, 5, 3 << 20, 7], [100] * 3000])
def test_assembling_is_exact_whatever_the_sizes(tmp_path, sizes):
    parts, expected = [], io.BytesIO()
    for number, size in enumerate(sizes):
        data = os.urandom(size)
        (tmp_path / str(number)).write_bytes(data)
        head = os.urandom(number % 700)
        parts += [Segment(head), *([Payload(str(number).encode(), size)] if size else [])]
        expected.write(head + data)
    parts.append(Segment(bytes(3 << 20)))
    expected.write(bytes(3 << 20))
    with Beneath(tmp_path) as files:
        chunks = list(assemble(parts, files, "here"))
    assert b"".join(chunks) == expected.getvalue()
    files_of_their_own = sum(size >= SOURCE_BYTES for size in sizes)
    assert len(chunks) <= len(expected.getvalue()) // CHUNK + 2 * files_of_their_own + 3
    sources = [chunk.source for chunk in chunks if isinstance(chunk, FileBytes)]
    assert [source.size for source in sources] == [size for size in sizes if size >= SOURCE_BYTES]


def test_a_source_is_the_file_that_the_bytes_come_from_and_closes_itself(tmp_path):
    data = os.urandom(3 * CHUNK + 5)
    (tmp_path / "f").write_bytes(data)
    before = open_files()
    with Beneath(tmp_path) as files:
        chunks = list(assemble([Segment(b"head"), Payload(b"f", len(data)), Segment(b"tail")], files, "here"))
        assert [type(chunk) for chunk in chunks] == [bytes, FileBytes, bytes, bytes, bytes, bytes]
        source = chunks[1].source
        del chunks
        assert os.pread(source.fd, source.size + 1, 0) == data
        del source
    assert open_files() == before


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("size", [10, SOURCE_BYTES])
@pytest.mark.parametrize("change", ["shorter", "longer", "gone", "fifo", "directory", "link"])
def test_a_changed_file_is_noticed(tmp_path, change, size):
    path = tmp_path / "f"
    path.write_bytes(bytes(size))
    if change == "shorter":
        path.write_bytes(bytes(size - 1))
    elif change == "longer":
        path.write_bytes(bytes(size + 1))
    else:
        path.unlink()
    if change == "fifo":
        os.mkfifo(path)
    elif change == "directory":
        path.mkdir()
    elif change == "link":
        (tmp_path / "g").write_bytes(bytes(size))
        path.symlink_to("g")
    with Beneath(tmp_path) as files, pytest.raises(ChangedError) as caught:
        list(assemble([Payload(b"f", size)], files, "layer x"))
    assert caught.value.exit_status == 6


# --- staying below ---------------------------------------------------------------------------


@pytest.fixture(params=["openat2", "walk"])
def tree(request, tmp_path):
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "usr/bin/sh").write_text("inside")
    (root / "etc/passwd").write_text("inside")
    (root / "bin").symlink_to("usr/bin")
    (root / "abs").symlink_to("/usr")
    (root / "up").symlink_to("../../..")
    (root / "loop").symlink_to("loop")
    (root / "out").symlink_to("/etc/passwd")
    (tmp_path / "outside").write_text("outside")
    with Beneath(root) as files:
        files._has_openat2 = request.param == "openat2"
        yield files


@pytest.mark.parametrize(
    "name",
    [
        b"usr/bin/sh",
        b"/usr/bin/sh",
        b"./usr/./bin//sh",
        b"bin/sh",
        b"abs/bin/sh",
        b"up/usr/bin/sh",
        b"../../usr/bin/sh",
        b"usr/../../bin/sh",
        b"etc/passwd",
        b"up/etc/passwd",
    ],
)
def test_names_resolve_below_the_root(tree, name):
    handle = tree.open(name)
    with os.fdopen(handle, "rb") as file:
        assert file.read() == b"inside"


@pytest.mark.parametrize("name", [b"outside", b"../outside", b"loop/x", b"loop", b"out", b"absent", b"etc/passwd/x"])
def test_nothing_else_can_be_opened(tree, name):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError):  # noqa: PT011 - which one differs
        tree.open(name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- locks -----------------------------------------------------------------------------------

WRITER = """
import fcntl, sys, struct, os
f = open(sys.argv[1], "r+")
fcntl.lockf(f, fcntl.LOCK_EX if sys.argv[2] == "wait" else fcntl.LOCK_EX | fcntl.LOCK_NB)
print("locked", flush=True)
sys.stdin.read()
"""


def writer(path, how):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def ended(process):
    out, _ = process.communicate("", timeout=20)
    return out.strip()


@pytest.fixture
def lockfile(tmp_path):
    path = tmp_path / "layers.lock"
    path.write_text("")
    return path


def test_writers_wait_while_it_is_held_and_not_after(lockfile):
    lock = SharedLock(lockfile)
    with lock.held(), lock.held():
        with lockfile.open() as other:
            other.read()
        assert ended(writer(lockfile, "now")) == ""
    assert ended(writer(lockfile, "now")) == "locked"


def test_readers_do_not_disturb_each_other(lockfile):
    with SharedLock(lockfile).held(), SharedLock(lockfile, 0.1).held(), lockfile.open() as other:
        fcntl.lockf(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_writer_is_waited_for_and_then_given_up(lockfile):
    process = writer(lockfile, "wait")
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(TransportError) as caught, SharedLock(lockfile, 0.2).held():
        pass
    assert "locked" in str(caught.value)
    threading.Timer(0.3, process.stdin.close).start()
    with SharedLock(lockfile, 10).held():
        pass
    process.wait(10)
    process.stdout.close()


def test_a_store_without_lock_files_is_read(tmp_path):
    with SharedLock(tmp_path / "absent").held():
        pass


def test_the_flock_structure_fits(lockfile):
    assert len(struct.pack("hhqqi4x", 0, 0, 0, 0, 0)) == 32
    assert tarfile.BLOCKSIZE == 512
