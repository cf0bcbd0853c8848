"""Fixtures of the disk plugin's tests."""

from __future__ import annotations

import pytest
from conftest_disk import Tree, pattern, quiet_context

from cfs_core.plugin import (
    Attributes,
    HashAlgorithm,
    MakeSpecial,
    MakeSymlink,
    Region,
    SpecialKind,
    WriteFile,
)

ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.fixture
def context(tmp_path):
    return quiet_context(tmp_path)


@pytest.fixture
def make_region(tmp_path):
    def make(size: int, *, name: str = "disk.img", offset: int = 3 << 20) -> Region:
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(offset + size + (1 << 20))
        return Region(path=path, offset=offset, size=size)

    return make


@pytest.fixture
def odd_tree():
    """Everything a root filesystem may hold, with the names and numbers that break tools."""
    tree = Tree()
    tree.directory("/", mode=0o751, uid=5, gid=6, mtime_sec=1_600_000_000, mtime_nsec=5)
    tree.directory("/d", mode=0o1777, uid=70_000, gid=4_000_000_000, mtime_sec=1_800_000_000, mtime_nsec=999_999_999)
    for size in (0, 1, 4095, 4096, 4097, 64_500, 65_100, 65535, 65536, 65537, 600_000):
        for verity in (None, HashAlgorithm.SHA256, HashAlgorithm.SHA512):
            tree.file(f"/d/pattern-{size}-{verity}", pattern(size), verity)
            tree.file(f"/d/zeros-{size}-{verity}", bytes(size), verity)
    everything = (
        (b"security.capability", CAPABILITY),
        (b"security.selinux", b"system_u:object_r:etc_t:s0\0"),
        (b"system.posix_acl_access", ACL),
        (b"trusted.overlay.opaque", b"y"),
        (b"user.all", bytes(range(256))),
    )
    tree.add(
        WriteFile,
        "/d/ \"odd' \n -name\udcff\udcfe\\ é",
        data=b"odd",
        attributes=Attributes(mode=0o4755, uid=1, gid=2, mtime_sec=-1, mtime_nsec=1, xattrs=everything),
    )
    big = ((b"security.selinux", b"abc"), (b"user.big", b"x" * 3000))
    tree.file('/d/-dash "q" x', b"v" * 5000, HashAlgorithm.SHA512, xattrs=big)
    for length in (1, 59, 60, 1024, 4000):
        tree.add(MakeSymlink, f"/d/link-{length}", target="/x" * (length // 2) + "y" * (length % 2))
    tree.add(
        MakeSymlink,
        "/d/link-raw",
        target="\udcff\n ",
        attributes=Attributes(uid=9, mtime_sec=5, xattrs=((b"security.selinux", b"l"),)),
    )
    tree.add(MakeSpecial, "/d/null", kind=SpecialKind.CHAR, rdev=0x103, attributes=Attributes(mode=0o666))
    tree.add(MakeSpecial, "/d/big dev", kind=SpecialKind.BLOCK, rdev=0xFA012 | 0x12300 << 12)
    tree.add(MakeSpecial, "/d/fifo", kind=SpecialKind.FIFO, attributes=Attributes(mode=0o600))
    tree.link("/d/hard", "/d/pattern-1-None")
    tree.link("/d/hard2", "/d/hard")
    tree.link("/d/hard-symlink", "/d/link-1")
    tree.link("/d/hard-null", "/d/null")
    tree.link("/d/hard-verity", "/d/pattern-600000-sha512")
    tree.directory("/lost+found", mode=0o755, uid=3)
    tree.directory("/many")
    for number in range(700):
        tree.file(f"/many/file with a rather long name {number:050}", b"")
    tree.directory("/" + "n" * 255)
    return tree
