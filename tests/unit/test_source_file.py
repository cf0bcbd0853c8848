"""Files that layers are read from: whose they are, and whether they can have changed."""

from __future__ import annotations

import itertools
import os
import time

import pytest

from cfs_core.image.layers import VerifiedLayer
from cfs_core.interfaces.source_file import FileBytes, SourceFile
from cfs_core.model.digest import Digest
from cfs_testkit.builders.oci import File, layer


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def opened(path):
    return SourceFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def settle(path):
    """Wait until nobody can write to the file with the time stamp it has."""
    while path.stat().st_ctime > time.time() - 0.15:
        time.sleep(0.02)


def test_of_a_file_that_was_just_written_nobody_can_tell(path):
    assert not opened(path).unchanged()


def test_of_an_older_one_it_can_be_told(path):
    settle(path)
    source = opened(path)
    assert (source.size, source.unchanged()) == (7, True)
    os.utime(path, (1, 1))
    assert not source.unchanged()


@pytest.mark.parametrize("change", ["write", "truncate", "unlink"])
def test_changes_show_even_with_the_old_modification_time(path, change):
    settle(path)
    status = path.stat()
    source = opened(path)
    if change == "write":
        path.write_bytes(b"CONTENT")
    elif change == "truncate":
        os.truncate(path, 3)
    if change != "unlink":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        path.unlink()
    assert not source.unchanged()


def test_the_descriptor_lives_as_long_as_a_chunk_that_names_it(path):
    chunk = FileBytes.of(b"content", opened(path))
    number = chunk.source.fd
    assert b"".join([chunk]) == b"content"
    os.fstat(number)
    del chunk
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def stream(tmp_path, *, cut_at_file=True, size=70_000):
    """Return a layer whose file of *size* bytes comes with its source, and that file."""
    data = os.urandom(size)
    tar = layer({"usr/a": File("small"), "usr/big": File(data), "usr/c": File("x" * 700)}).tar
    (tmp_path / "big").write_bytes(data)
    at = tar.index(data)
    source = opened(tmp_path / "big")
    cuts = [0, at, at + 5000, at + size, len(tar)] if cut_at_file else [0, at - 1, at + size, len(tar)]
    chunks = [tar[start:end] for start, end in itertools.pairwise(cuts)]
    chunks[1] = FileBytes.of(chunks[1], source)
    return VerifiedLayer(iter(chunks), Digest.of(tar)), source


def test_the_member_that_begins_there_has_the_source(tmp_path):
    made, source = stream(tmp_path)
    found = {}
    for member in made.members():
        if member.size:
            found[member.entry.path] = made.source()
            assert len(b"".join(made.content())) == member.size
            assert made.source() is None
    assert list(made.trailer()) is not None
    assert found == {b"/usr/a": None, b"/usr/big": source, b"/usr/c": None}


def test_a_source_that_begins_elsewhere_or_has_another_size_is_none(tmp_path):
    for made, _ in (stream(tmp_path, cut_at_file=False),):
        assert [made.source() for member in made.members() if member.size] == [None, None, None]
    made, source = stream(tmp_path)
    os.truncate(tmp_path / "big", 10)
    source.size = 10
    assert [made.source() for member in made.members() if member.size] == [None, None, None]


def test_who_asks_for_no_source_reads_the_same(tmp_path):
    made, _ = stream(tmp_path)
    assert [len(b"".join(made.content())) for member in made.members() if member.size] == [5, 70_000, 700]
