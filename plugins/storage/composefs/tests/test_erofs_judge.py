"""EROFS images against mkcomposefs: seeded random trees and real directories, compared through dump files."""

import contextlib
import io
import os
import subprocess
from pathlib import Path

import pytest
from composefs_builders import judges
from composefs_builders.trees import random_tree

from cfs_core.plugin import FormatVersion, HashAlgorithm
from cfs_storage_composefs.dump.read import read_dump, write_dump
from cfs_storage_composefs.erofs.read import read_erofs
from cfs_storage_composefs.erofs.write import write_erofs
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.trees.scan import scan_directory

pytestmark = judges.needs_mkcomposefs
SHA256 = HashAlgorithm.SHA256
C_VERSIONS = {0: FormatVersion.V0, 1: FormatVersion.V1}


def dump_of(tree):
    out = io.BytesIO()
    write_dump(tree, out, SHA256)
    return out.getvalue()


def compare(tree):
    dump = dump_of(tree)
    for number, version in C_VERSIONS.items():
        image = write_erofs(tree, version, SHA256)
        assert digest_bytes(image, SHA256).hex() == judges.mkcomposefs_digest(dump, number), version
        assert write_erofs(read_dump(io.BytesIO(dump)), version, SHA256) == image
        assert write_erofs(read_erofs(image), version, SHA256) == image


@pytest.mark.parametrize("seed", range(1000, 1006))
def test_random_tree(seed):
    compare(random_tree(seed))


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(10))
def test_five_hundred_random_trees(batch):
    for seed in range(batch * 50, batch * 50 + 50):
        compare(random_tree(seed))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_directories(tmp_path):
    """The whole /usr, over 50,000 files on many machines, by dump file: C's directory mode loses hard links."""
    tree = scan_directory("/usr", SHA256)
    dump = tmp_path / "usr.dump"
    with dump.open("wb") as out:
        write_dump(tree, out, SHA256)
    for number, version in C_VERSIONS.items():
        wanted = tmp_path / "c.image"
        options = [f"--min-version={number}", f"--max-version={number}"]
        subprocess.run([judges.MKCOMPOSEFS, *options, "--from-file", dump, wanted], check=True, timeout=600)
        assert write_erofs(tree, version, SHA256) == wanted.read_bytes()


def test_directory_mode_where_nothing_is_linked(tmp_path):
    """C reads a directory itself: metadata, attributes, inline limit and digests are the same without hard links."""
    root = tmp_path / "root"
    (root / "sub" / "dir").mkdir(parents=True)
    for size in (0, 1, 64, 65, 4096, 4097, 300_000):
        path = root / "sub" / f"file{size}"
        path.write_bytes(bytes(index % 251 for index in range(size)))
        path.chmod(0o640)
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 + size))
    (root / "link").symlink_to("sub/file1")
    os.mkfifo(root / "fifo", 0o600)
    with contextlib.suppress(OSError):
        os.setxattr(root / "sub", "user.test", b"value")
    tree = scan_directory(root, SHA256)
    wanted = judges.run([judges.MKCOMPOSEFS, "--min-version=1", "--print-digest-only", root]).decode().strip()
    assert digest_bytes(write_erofs(tree, FormatVersion.V1, SHA256), SHA256).hex() == wanted


def test_image_is_byte_equal(tmp_path):
    tree = random_tree(7)
    judges.mkcomposefs_image(dump_of(tree), tmp_path / "c.image", 1)
    assert Path(tmp_path / "c.image").read_bytes() == write_erofs(tree, FormatVersion.V1, SHA256)
