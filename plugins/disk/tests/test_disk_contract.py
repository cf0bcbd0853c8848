"""The partition table, ext4 and FAT keep their contracts."""

from cfs_core.plugin import Volume
from cfs_testkit.contracts import FilesystemContract, LayoutContract


class TestGpt(LayoutContract):
    provider = "gpt"
    settings = {"boot_volume_mib": 40}  # noqa: RUF012 - small: disks are compared byte by byte


class TestExt4(FilesystemContract):
    provider = "ext4"


class TestVfat(FilesystemContract):
    provider = "vfat"
    posix = False
    volume = Volume.ESP
