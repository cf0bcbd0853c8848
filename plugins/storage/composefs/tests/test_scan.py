"""Reading directories from disk, and their canonical and bootable forms: by hand, and against composefs-rs."""

import io
import os
import stat
import threading

import pytest
from composefs_builders import judges
from composefs_builders.directories import random_directory

from cfs_core.plugin import (
    Directory,
    FormatVersion,
    HashAlgorithm,
    ImageError,
    RegularFile,
    Special,
    SpecialKind,
    Symlink,
)
from cfs_storage_composefs.dump.read import write_dump
from cfs_storage_composefs.erofs.write import write_erofs
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.trees.canonical import canonicalise, make_bootable
from cfs_storage_composefs.trees.scan import scan_directory

SHA256, SHA512 = HashAlgorithm


class OnDisk:
    """A reader of the files of a directory."""

    def __init__(self, root):
        self.root = root

    def read(self, path, *, limit=0):
        file = self.root / path.strip("/")
        return file.read_bytes() if file.is_file() else None


def test_metadata_contents_and_links(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x" * 64)
    large.write_bytes(b"y" * 65)
    large.chmod(0o4711)
    os.utime(large, ns=(1, 1_600_000_000_123_456_789))
    (tmp_path / "other").hardlink_to(large)
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo", 0o640)
    (tmp_path / "sub").mkdir()
    tree = scan_directory(tmp_path, SHA512)
    entries = tree.entries
    assert entries[b"small"].data == b"x" * 64
    node = entries[b"large"]
    assert (node.data, node.size, node.object) == (None, 65, digest_bytes(b"y" * 65, SHA512).hex())
    assert (node.mode, node.mtime_sec, node.mtime_nsec, node.nlink) == (0o4711, 1_600_000_000, 123_456_789, 0)
    assert (node.uid, node.gid) == (os.getuid(), large.stat().st_gid)
    assert entries[b"other"] is node
    assert isinstance(entries[b"link"], Symlink)
    assert entries[b"link"].target == b"nowhere"
    assert isinstance(entries[b"fifo"], Special)
    assert entries[b"fifo"].kind is SpecialKind.FIFO
    assert isinstance(entries[b"sub"], Directory)


def test_times_before_1970(tmp_path):
    path = tmp_path / "old"
    path.touch()
    os.utime(path, ns=(0, -1_500_000_000))
    node = scan_directory(tmp_path, SHA256).entries[b"old"]
    assert (node.mtime_sec, node.mtime_nsec) == (-2, 500_000_000)


def test_names_that_are_not_text(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\n")).touch()
    assert set(scan_directory(tmp_path, SHA256).entries) == {b"\xff\n"}


def test_large_file(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "large").write_bytes(data)
    assert scan_directory(tmp_path, SHA256).entries[b"large"].object == digest_bytes(data, SHA256).hex()


def test_missing_directory_is_named(tmp_path):
    with pytest.raises(ImageError, match=str(tmp_path / "none")) as caught:
        scan_directory(tmp_path / "none", SHA256)
    assert caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_named(tmp_path):
    path = tmp_path / "sub" / "secret"
    path.parent.mkdir()
    path.touch(mode=0)
    with pytest.raises(ImageError, match=str(path)):
        scan_directory(tmp_path, SHA256)


def scan_often(path):
    for _ in range(50):
        scan_directory(path, SHA256)


def test_file_that_grows_while_it_is_read_is_named(tmp_path):
    """A writer adds to a large file all the time; some scan must notice and name it, none may stop otherwise."""
    path = tmp_path / "log"
    path.write_bytes(bytes(8 << 20))
    stop = threading.Event()

    def grow():
        with path.open("ab") as file:
            while not stop.is_set():
                file.write(b"x" * 1000)
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(ImageError, match="log changed while it was read"):
            scan_often(tmp_path)
    finally:
        stop.set()
        writer.join()


def test_very_deep_directories_are_refused(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(410):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(ImageError, match="directories deep"):
        scan_directory(tmp_path, SHA256)


def system():
    tree = Directory(0)
    usr = Directory(
        0o755, 1, 2, 1000, 5, ((b"security.capability", b"c"), (b"security.selinux", b"l"), (b"user.x", b"1"))
    )
    file = RegularFile(0o644, xattrs=((b"user.y", b"2"), (b"trusted.z", b"3")))
    file.data = b""
    file.nlink = 7
    usr.entries[b"file"] = file
    run, boot, sysroot = (Directory(0o700, 9, 9, 1, 1) for _ in range(3))
    run.entries[b"lock"] = file
    boot.entries[b"vmlinuz"] = RegularFile(0o644)
    tree.entries = {b"usr": usr, b"run": run, b"boot": boot, b"sysroot": sysroot}
    return tree


def metadata(node):
    return node.mode, node.uid, node.gid, node.mtime_sec, node.mtime_nsec


@pytest.mark.parametrize("keep", [False, True])
def test_canonical_form(keep):
    tree = system()
    canonicalise(tree, keep)
    usr, run = tree.entries[b"usr"], tree.entries[b"run"]
    assert metadata(tree) == metadata(usr) == (0o755, 1, 2, 1000, 5)
    kept = ((b"security.capability", b"c"), (b"user.x", b"1")) if keep else ((b"security.capability", b"c"),)
    assert tree.xattrs == usr.xattrs == kept
    assert metadata(run) == (0o700, 9, 9, 1000, 5)
    assert run.entries == {}
    file = usr.entries[b"file"]
    assert file.xattrs == (((b"user.y", b"2"),) if keep else ())
    assert file.nlink == 0
    assert tree.entries[b"boot"].entries


def test_bootable_form(tmp_path):
    tree = system()
    canonicalise(tree, keep_user_xattrs=False)
    make_bootable(tree, OnDisk(tmp_path))
    for name in (b"boot", b"sysroot"):
        assert tree.entries[name].entries == {}
        assert metadata(tree.entries[name]) == (0o700, 9, 9, 1000, 1)  # nanoseconds stay
    make_bootable(tree, OnDisk(tmp_path), nanoseconds=True)
    assert metadata(tree.entries[b"boot"]) == (0o700, 9, 9, 1000, 5)


@pytest.mark.parametrize("name", [b"boot", b"sysroot", b"usr"])
@pytest.mark.parametrize("instead", [None, Symlink(0o777, target=b"x")])
def test_missing_directories_are_named(tmp_path, name, instead):
    tree = system()
    del tree.entries[name]
    if instead is not None:
        tree.entries[name] = instead
    with pytest.raises(ImageError, match=f"/{name.decode()}") as caught:
        make_bootable(tree, OnDisk(tmp_path))
    assert caught.value.hint


def test_run_may_be_missing():
    tree = system()
    del tree.entries[b"run"]
    canonicalise(tree, keep_user_xattrs=False)


@pytest.mark.judge
@pytest.mark.skipif(judges.CFSCTL is None, reason="cfsctl is not installed (see tests/install-judges)")
@pytest.mark.parametrize("algorithm", [SHA256, SHA512])
@pytest.mark.parametrize("seed", range(4))
def test_composefs_rs_reads_the_same(tmp_path, seed, algorithm):
    root = tmp_path / "root"
    random_directory(root, seed)
    dump = io.BytesIO()
    write_dump(scan_directory(root, algorithm), dump, algorithm)
    assert dump.getvalue() == judges.cfsctl_dump(root, algorithm.value, "--no-propagate-usr-to-root")
    forms = {
        ("--no-propagate-usr-to-root",): lambda tree: None,
        (): lambda tree: canonicalise(tree, keep_user_xattrs=False),
        ("--xattrs", "keep-user-xattrs"): lambda tree: canonicalise(tree, keep_user_xattrs=True),
        ("--bootable",): lambda tree: (
            canonicalise(tree, keep_user_xattrs=False),
            make_bootable(tree, OnDisk(root), nanoseconds=True),
        ),
    }
    for options, transform in forms.items():
        tree = scan_directory(root, algorithm)
        transform(tree)
        for number, version in enumerate(FormatVersion):
            found = digest_bytes(write_erofs(tree, version, algorithm), algorithm).hex()
            assert found == judges.cfsctl_id(root, number, algorithm.value, *options), (options, version)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_devices(tmp_path):
    try:
        os.mknod(tmp_path / "dev", 0o600 | stat.S_IFBLK, os.makedev(4095, 1048575))
    except PermissionError:
        pytest.skip("no device nodes here")
    assert scan_directory(tmp_path, SHA256).entries[b"dev"].rdev == 0xFFFFFFFF
