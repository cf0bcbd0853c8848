"""ext4 on disk: superblock, inodes, extended attributes parsed from bytes (Documentation/filesystems/ext4)."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from cfs_core.plugin import DiskError

FLAG_EXTENTS = 0x80000
FLAG_VERITY = 0x100000
FLAG_INLINE = 0x10000000

# Without 0x4, a journal to be replayed: what is in it is newer than what would be read here.
_INCOMPAT_KNOWN = {
    0x2: "filetype",
    0x4: "needs_recovery",
    0x40: "extent",
    0x80: "64bit",
    0x100: "mmp",
    0x200: "flex_bg",
    0x2000: "metadata_csum_seed",
    0x4000: "large_dir",
}
_INCOMPAT_RECOVER = 0x4
_INCOMPAT_64BIT = 0x80
_MAGIC = 0xEF53
_XATTR_MAGIC = 0xEA020000
_XATTR_PREFIX = {
    0: b"",
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
}
_MAX_LOG_BLOCK = 6
_OLD_INODE = 128

Extent = tuple[int, int, int]
"""Logical block, number of blocks, physical block (0 for blocks that read as zeros)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What is needed to find inodes. Sizes in bytes."""

    block_size: int
    blocks: int
    inodes: int
    free_blocks: int
    free_inodes: int
    blocks_per_group: int
    inodes_per_group: int
    first_data_block: int
    inode_size: int
    descriptor_size: int
    uuid: str
    label: str
    needs_replay: bool = False
    """It was not unmounted: the newest contents of some blocks are in the journal only."""

    journal_inode: int = 0
    """0: none, or on a disk of its own."""

    @property
    def groups(self) -> int:
        """Number of block groups."""
        return -(-(self.blocks - self.first_data_block) // self.blocks_per_group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inode:
    """One inode. Times are (seconds, nanoseconds); ``body`` is the 60 bytes of i_block, ``raw`` everything."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    flags: int
    atime: tuple[int, int]
    ctime: tuple[int, int]
    mtime: tuple[int, int]
    crtime: tuple[int, int]
    xattr_block: int
    body: bytes
    raw: bytes

    @property
    def rdev(self) -> int:
        """Device number as the kernel encodes it in 32 bits (new_encode_dev)."""
        old, new = struct.unpack_from("<II", self.body)
        if not old:
            return int(new)
        return int(old & 0xFFFF)


def parse_superblock(raw: bytes, region_size: int) -> Superblock:
    """Read the 1024 bytes of a superblock.

    Raises:
        DiskError: not ext4, features this reader does not know, or values that do not fit the region.
    """
    if len(raw) < 1024 or struct.unpack_from("<H", raw, 56)[0] != _MAGIC:  # noqa: PLR2004 - size of a superblock
        msg = "no ext4 superblock"
        raise DiskError(msg, hint="this volume does not hold an ext4 filesystem")
    inodes, blocks_low = struct.unpack_from("<II", raw, 0)
    free_low, free_inodes, first_data_block, log_block = struct.unpack_from("<IIII", raw, 12)
    blocks_per_group = struct.unpack_from("<I", raw, 32)[0]
    inodes_per_group = struct.unpack_from("<I", raw, 40)[0]
    inode_size = struct.unpack_from("<H", raw, 88)[0]
    incompat = struct.unpack_from("<I", raw, 96)[0]
    unknown = [f"0x{1 << bit:x}" for bit in range(32) if incompat & 1 << bit and 1 << bit not in _INCOMPAT_KNOWN]
    if unknown:
        msg = f"ext4 features this reader does not know: {', '.join(unknown)}"
        raise DiskError(msg, hint="mount the filesystem to read it, and check it with: e2fsck -fn")
    if log_block > _MAX_LOG_BLOCK:
        msg = f"impossible ext4 block size: 2^{10 + log_block}"
        raise DiskError(msg)
    block_size = 1024 << log_block
    wide = bool(incompat & _INCOMPAT_64BIT)
    blocks_high, _, free_high = struct.unpack_from("<III", raw, 336) if wide else (0, 0, 0)
    result = Superblock(
        block_size=block_size,
        blocks=blocks_low | blocks_high << 32,
        inodes=inodes,
        free_blocks=free_low | free_high << 32,
        free_inodes=free_inodes,
        blocks_per_group=blocks_per_group,
        inodes_per_group=inodes_per_group,
        first_data_block=first_data_block,
        inode_size=inode_size,
        descriptor_size=struct.unpack_from("<H", raw, 254)[0] if wide else 32,
        uuid=str(uuid.UUID(bytes=raw[104:120])),
        label=raw[120:136].partition(b"\0")[0].decode("utf-8", "replace"),
        needs_replay=bool(incompat & _INCOMPAT_RECOVER),
        journal_inode=struct.unpack_from("<I", raw, 224)[0],
    )
    bits = 8 * block_size
    if (
        not 0 < result.blocks * block_size <= region_size
        or not 0 < blocks_per_group <= bits
        or not 0 < inodes_per_group <= bits
        or inode_size not in {128 << shift for shift in range(10)}
        or inode_size > block_size
        or result.descriptor_size not in {32, 64}
        or first_data_block != (block_size == 1024)  # noqa: PLR2004 - the one size where the boot block is separate
        or not 0 < inodes <= result.groups * inodes_per_group
    ):
        msg = "the ext4 superblock has values that do not fit"
        raise DiskError(msg, hint="the filesystem is damaged")
    return result


def parse_inode(raw: bytes, number: int) -> Inode:
    """Read one inode of 128 bytes or more.

    Raises:
        DiskError: an impossible i_extra_isize.
    """
    (mode, uid_low, size_low, atime, ctime, mtime, _dtime, gid_low, links, _sectors, flags) = struct.unpack_from(
        "<HHIIIIIHHII", raw
    )
    acl_low, size_high = struct.unpack_from("<II", raw, 104)
    acl_high, uid_high, gid_high = struct.unpack_from("<HHH", raw, 118)
    ctime_extra = mtime_extra = atime_extra = crtime = crtime_extra = 0
    if len(raw) > _OLD_INODE:
        extra = struct.unpack_from("<H", raw, 128)[0]
        if extra % 4 or _OLD_INODE + extra > len(raw):
            msg = f"inode {number} has an impossible extra size {extra}"
            raise DiskError(msg, hint="the filesystem is damaged")
        fields = struct.unpack_from("<HIIIII", raw.ljust(156, b"\0"), 130)[1:] if extra >= 24 else (0,) * 5  # noqa: PLR2004
        ctime_extra, mtime_extra, atime_extra, crtime, crtime_extra = fields
    return Inode(
        number=number,
        mode=mode,
        uid=uid_low | uid_high << 16,
        gid=gid_low | gid_high << 16,
        size=size_low | size_high << 32,
        links=links,
        flags=flags,
        atime=_time(atime, atime_extra),
        ctime=_time(ctime, ctime_extra),
        mtime=_time(mtime, mtime_extra),
        crtime=_time(crtime, crtime_extra),
        xattr_block=acl_low | acl_high << 32,
        body=raw[40:100],
        raw=raw,
    )


def _time(seconds: int, extra: int) -> tuple[int, int]:
    signed = seconds - (1 << 32) if seconds & 1 << 31 else seconds
    return signed + ((extra & 3) << 32), extra >> 2


def parse_inode_xattrs(raw: bytes) -> dict[bytes, bytes]:
    """Read attributes kept inside an inode.

    Raises:
        DiskError: damaged.
    """
    if len(raw) <= _OLD_INODE:
        return {}
    start = _OLD_INODE + struct.unpack_from("<H", raw, 128)[0]
    if start + 4 > len(raw) or struct.unpack_from("<I", raw, start)[0] != _XATTR_MAGIC:
        return {}
    return _xattr_entries(raw[start + 4 :], 0)


def parse_block_xattrs(block: bytes) -> dict[bytes, bytes]:
    """Read attributes kept in a block of their own.

    Raises:
        DiskError: damaged.
    """
    if struct.unpack_from("<I", block)[0] != _XATTR_MAGIC:
        msg = "an attribute block has no magic number"
        raise DiskError(msg, hint="the filesystem is damaged")
    return _xattr_entries(block, 32)


def _xattr_entries(area: bytes, at: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    damaged = DiskError("an extended attribute is damaged", hint="the filesystem is damaged")
    while at + 4 <= len(area) and area[at : at + 4] != bytes(4):
        if at + 16 > len(area):
            raise damaged
        name_length, index, value_at, value_inode, value_size = struct.unpack_from("<BBHII", area, at)
        name = area[at + 16 : at + 16 + name_length]
        if len(name) != name_length or index not in _XATTR_PREFIX or value_inode or value_at + value_size > len(area):
            raise damaged
        value = area[value_at : value_at + value_size]
        full = _XATTR_PREFIX[index] + name
        found[full] = _acl_to_xattr(value) if full.startswith(b"system.posix_acl_") else value
        at += 16 + -(-name_length // 4) * 4
    return found


def _acl_to_xattr(value: bytes) -> bytes:
    """Turn ext4's short form of an access control list into the one getxattr(2) shows (fs/ext4/acl.c)."""
    damaged = DiskError("an access control list is damaged", hint="the filesystem is damaged")
    if len(value) < 4:  # noqa: PLR2004 - the version word
        raise damaged
    out = [struct.pack("<I", 2)]
    at = 4
    while at < len(value):
        if at + 4 > len(value):
            raise damaged
        tag, permissions = struct.unpack_from("<HH", value, at)
        at += 4
        who = 0xFFFFFFFF
        if tag in {2, 8}:
            if at + 4 > len(value):
                raise damaged
            who = struct.unpack_from("<I", value, at)[0]
            at += 4
        out.append(struct.pack("<HHI", tag, permissions, who))
    return b"".join(out)
