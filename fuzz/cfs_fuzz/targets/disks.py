"""What is on a disk: partition table, FAT, ext4 and its journal."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import zlib

from conftest_disk import Tree, partition_of, pattern, quiet_context

from cfs_core.plugin import (
    Architecture,
    CfsError,
    HashAlgorithm,
    LayoutRequest,
    MakeSymlink,
    Region,
    Volume,
    VolumeNeed,
)
from cfs_disk.ext4.filesystem import Ext4Filesystem
from cfs_disk.ext4.read import Ext4Reader
from cfs_disk.gpt.layout import GptLayout
from cfs_disk.vfat.filesystem import VfatFilesystem
from cfs_disk.vfat.read import FatReader
from cfs_fuzz import scratch
from cfs_fuzz.target import target

MIB = 1 << 20
BLOCK, SECTOR, HEADER = 4096, 512, 92
_NUMBERS = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\1\0\0\0",
    b"\0\x10\0\0",
    b"\xff" * 8,
)
_READ_MOST = 1 << 16


@functools.cache
def _context():
    folder = scratch.folder() / "disks"
    folder.mkdir()
    return quiet_context(folder)


def _region(name: str, size: int) -> Region:
    path = scratch.folder() / name
    with path.open("wb") as file:
        file.truncate(size)
    return Region(path=path, offset=0, size=size)


def look_at_everything(reader, path: str = "/", depth: int = 0) -> None:
    """Read what a `FileReader` shows, as far as 2,000 names and 8 directories deep."""
    for name in reader.names(path)[:2000]:
        below = f"{path.rstrip('/')}/{name}"
        kind = reader.kind(below)
        if kind == "directory" and depth < 8:
            look_at_everything(reader, below, depth + 1)
        elif kind == "file":
            reader.size(below)
            reader.verity_digest(below)
            with reader.open(below) as file:
                file.read(_READ_MOST)
        elif kind == "symlink":
            reader.read_link(below)


# --- FAT ------------------------------------------------------------------------------------------------------------


@functools.cache
def _fat() -> tuple[scratch.Overlay, Region]:
    tree = Tree(Volume.ESP)
    for folder in ("/EFI", "/EFI/Linux", "/loader", "/loader/entries"):
        tree.directory(folder)
    tree.file("/EFI/Linux/a rather long name.efi", pattern(20_000))
    tree.file("/loader/loader.conf", b"timeout 5")
    for number in range(6):
        tree.file(f"/loader/entries/bootc_debian-{number}.conf", b"title x\n")
    filesystem = VfatFilesystem(_context())
    region = _region("fat.img", filesystem.bytes_needed(tree.contents))
    filesystem.build(tree.contents, partition_of(region, Volume.ESP), region)
    with FatReader(region) as reader:
        geometry = reader.geometry
        clusters = [reader._lookup(path).cluster for path in ("/EFI", "/EFI/Linux", "/loader", "/loader/entries")]  # noqa: SLF001
    view = [(0, SECTOR), (geometry.fat_start, 256), (geometry.fat_start + 4096, 64)]
    view += [(geometry.offset(cluster), 1024) for cluster in clusters]
    root = geometry.fat_start + 2 * (geometry.offset(2) - geometry.fat_start) // 2
    return scratch.Overlay(region.path, [*view, (root - 16384, 1024)]), region


def fat_seeds() -> list[bytes]:
    """Return no change, and changes of the fields that everything depends on."""
    overlay, _ = _fat()
    return [b"", *(overlay.change(at, b"\0") for at in (11, 13, 14, 16, 17, 22)), overlay.change(0x1C, b"\xff" * 4)]


@target("fat", fat_seeds, _NUMBERS, absent=True, largest=512)
def read_fat(data: bytes) -> None:
    """A FAT filesystem that was changed."""
    overlay, region = _fat()
    overlay.apply(data)
    with FatReader(region) as reader:
        look_at_everything(reader)


# --- ext4 -----------------------------------------------------------------------------------------------------------


def _filled(name: str) -> Region:
    tree = Tree()
    tree.directory("/objects")
    for number in range(12):
        attributes = ((b"user.a", b"b" * 200), (b"security.selinux", b"c\0"))
        tree.file(f"/objects/{number}", pattern(number * 997), HashAlgorithm.SHA256, xattrs=attributes)
    tree.file("/large", pattern(40_000), HashAlgorithm.SHA512)
    tree.add(MakeSymlink, "/link", target="x" * 200)
    tree.add(MakeSymlink, "/short", target="objects/1")
    filesystem = Ext4Filesystem(_context())
    region = _region(name, filesystem.bytes_needed(tree.contents))
    filesystem.build(tree.contents, partition_of(region), region)
    return region


def _metadata(region: Region) -> list[tuple[int, int]]:
    """Return where superblock, descriptors, inodes, directories and attributes are."""
    with Ext4Reader(region) as reader:
        view = {(1024, 1024), (BLOCK, 128)}
        for path, inode in reader.walk():
            group, index = divmod(inode.number - 1, reader.superblock.inodes_per_group)
            view.add((reader._tables[group] * BLOCK + index * 256, 256))  # noqa: SLF001
            if reader.kind(path) == "directory":
                view |= {(physical * BLOCK, 512) for _, _, physical in reader.extents(inode)}
            if inode.xattr_block:
                view.add((inode.xattr_block * BLOCK, 512))
    return sorted(view)


@functools.cache
def _ext4() -> tuple[scratch.Overlay, Region]:
    region = _filled("ext4.img")
    return scratch.Overlay(region.path, _metadata(region)), region


def ext4_seeds() -> list[bytes]:
    """Return no change, and changes of the superblock and of the root's inode."""
    overlay, _ = _ext4()
    return [b"", *(overlay.change(1024 + at, b"\xff") for at in (0, 4, 24, 32, 40, 88, 92, 96, 254))]


@target("ext4", ext4_seeds, _NUMBERS, absent=True, largest=512)
def read_ext4(data: bytes) -> None:
    """An ext4 that was changed."""
    overlay, region = _ext4()
    overlay.apply(data)
    _read_ext4(region)


def _read_ext4(region: Region) -> None:
    with Ext4Reader(region) as reader:
        look_at_everything(reader)
        for number, (path, inode) in enumerate(reader.walk()):
            reader.xattrs(inode)
            reader.attributes(path)
            if reader.kind(path) == "file" and inode.size < MIB:
                reader.verify_verity(path)
            if number > 1000:
                break


@functools.cache
def _journal() -> tuple[scratch.Overlay, Region]:
    region = _filled("journal.img")
    with Ext4Reader(region) as reader:
        blocks = [reader.extents(reader.lookup(f"/objects/{number}"))[0][2] for number in (3, 4, 5)]
        ((_, _, start), *_) = reader.extents(reader.inode(8))
    for number in range(2):
        scratch.put(f"new{number}", bytes([65 + number]) * BLOCK)
    new = scratch.folder() / "new"
    lines = [
        "jo",
        f"jw -b {blocks[0]} {new}0",
        f"jw -b {blocks[1]} {new}1",
        f"jw -r {blocks[0]}",
        f"jw -b {blocks[2]} {new}0",
        "jc",
    ]
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin") or "debugfs"
    subprocess.run(  # noqa: S603 - arguments made here
        [debugfs, "-w", "-f", "-", region.path],
        input="\n".join(lines) + "\n",
        text=True,
        capture_output=True,
        check=True,
    )
    view = [(1024, 1024), *((block * BLOCK, 256) for block in range(start, start + 12))]
    return scratch.Overlay(region.path, view), region


def journal_seeds() -> list[bytes]:
    """Return no change, and changes of the journal's superblock and first block."""
    overlay, _ = _journal()
    start = overlay._view[1][0]  # noqa: SLF001
    places = (0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, BLOCK, BLOCK + 4, BLOCK + 8, BLOCK + 12, BLOCK + 16)
    return [b"", *(overlay.change(start + at, b"\xff") for at in places)]


@target("ext4-journal", journal_seeds, (*_NUMBERS, b"\xc0\x3b\x39\x98"), absent=True, largest=512)
def replay(data: bytes) -> None:
    """An ext4 that lost power, with a journal that was changed."""
    overlay, region = _journal()
    overlay.apply(data)
    _read_ext4(region)


# --- partition table ------------------------------------------------------------------------------------------------


@functools.cache
def _table() -> tuple[scratch.Overlay, int]:
    layout = GptLayout()
    needs = (
        VolumeNeed(volume=Volume.BIOS_BOOT, bytes_needed=30_000),
        VolumeNeed(volume=Volume.ESP, bytes_needed=40 * MIB, filesystems=("vfat",)),
        VolumeNeed(volume=Volume.ROOT, bytes_needed=64 * MIB),
    )
    request = LayoutRequest(needs=needs, architecture=Architecture.AMD64, root_filesystem="ext4", seed="s")
    partitions = layout.plan(request)
    region = _region("table.img", layout.disk_bytes(partitions))
    layout.write(region.path, partitions, seed="s")
    heads = [(part.start, BLOCK) for part in partitions]
    end = region.size - SECTOR
    return scratch.Overlay(
        region.path, [(0, SECTOR + HEADER + 420), (2 * SECTOR, 512), *heads, (end, HEADER)]
    ), region.size


def table_seeds() -> list[bytes]:
    """Return no change, and changes of each field of the primary header."""
    overlay, _ = _table()
    return [b"", *(overlay.change(SECTOR + at, b"\xff" * 4) for at in (0, 12, 24, 32, 40, 48, 72, 80, 84, 88))]


@target("gpt", table_seeds, (*_NUMBERS, b"\x53\xef", b"\x55\xaa", b"FAT16   ", b"FAT32   "), largest=512)
def read_table(data: bytes) -> None:
    """A disk whose partition tables were changed, with the checksums as they are and with right ones."""
    overlay, size = _table()
    overlay.apply(data)
    for mend in (False, True):
        for position in (SECTOR, size - SECTOR) if mend else ():
            header = bytearray(overlay.read(position, SECTOR))
            table, count, width = struct.unpack_from("<QII", header, 72)
            if table * SECTOR < size and count * width < MIB:
                struct.pack_into("<I", header, 88, zlib.crc32(overlay.read(table * SECTOR, count * width)))
            length = min(struct.unpack_from("<I", header, 12)[0], SECTOR)
            struct.pack_into("<I", header, 16, 0)
            struct.pack_into("<I", header, 16, zlib.crc32(header[:length]))
            overlay.poke(position, bytes(header))
        GptLayout().check(overlay.path)
        try:
            GptLayout().read(overlay.path)
        except CfsError:
            if mend:
                raise
