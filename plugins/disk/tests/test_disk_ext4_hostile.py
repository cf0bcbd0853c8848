import random
import shutil
import struct

import pytest
from conftest_disk import Tree, partition_of, pattern

from cfs_core.plugin import DiskError, HashAlgorithm, MakeSymlink, Region
from cfs_disk.ext4.filesystem import Ext4Filesystem
from cfs_disk.ext4.inode import parse_block_xattrs, parse_inode_xattrs, parse_superblock
from cfs_disk.ext4.placement import pack_descriptor, placement
from cfs_disk.ext4.read import Ext4Reader

pytestmark = pytest.mark.skipif(shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin") is None, reason="e2fsprogs")


@pytest.fixture
def small(context, make_region):
    tree = Tree()
    tree.directory("/objects")
    for number in range(40):
        tree.file(f"/objects/{number}", pattern(number * 997), HashAlgorithm.SHA256, xattrs=((b"user.a", b"b" * 200),))
    tree.file("/large", pattern(700_000), HashAlgorithm.SHA512)
    tree.add(MakeSymlink, "/link", target="x" * 200)
    filesystem = Ext4Filesystem(context)
    region = make_region(filesystem.bytes_needed(tree.contents), offset=0)
    filesystem.build(tree.contents, partition_of(region), region)
    return region


def look_at_everything(region):
    with Ext4Reader(region) as reader:
        for path, inode in reader.walk():
            reader.xattrs(inode)
            kind = reader.kind(path)
            if kind == "file":
                with reader.open(path) as file:
                    file.read(1 << 20)
                reader.verity_digest(path)
                reader.verify_verity(path)
            elif kind == "symlink":
                reader.read_link(path)
        list(reader.verity_tree_problems())


def test_everything_can_be_looked_at(small):
    look_at_everything(small)


def test_random_damage_is_only_ever_a_disk_error(small):
    """Overwrites bytes of metadata blocks; whatever that does, no other exception comes out, and it ends."""
    with Ext4Reader(small) as reader:
        used = {1024, 4096}
        for path, inode in reader.walk():
            group, index = divmod(inode.number - 1, reader.superblock.inodes_per_group)
            used.add(reader._tables[group] * 4096 + index * 256)
            if reader.kind(path) == "directory":
                used |= {physical * 4096 for _, _, physical in reader.extents(inode)}
            if inode.xattr_block:
                used.add(inode.xattr_block * 4096)
    places = sorted(used)
    clean = small.path.read_bytes()
    source = random.Random(11)
    refused = 0
    for _ in range(150):
        damaged = bytearray(clean)
        for _ in range(source.choice((1, 5, 40))):
            at = source.choice(places) + source.randrange(256)
            damaged[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
        small.path.write_bytes(damaged)
        try:
            look_at_everything(small)
        except (DiskError, OSError):
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("size", [0, 1000, 1024, 2047, 5000])
def test_truncated_files_are_disk_errors(small, tmp_path, size):
    cut = tmp_path / "cut"
    cut.write_bytes(small.path.read_bytes()[:size])
    with pytest.raises(DiskError), Ext4Reader(Region(path=cut, offset=0, size=size)):
        pass


def test_a_volume_that_ends_early_is_a_disk_error(small):
    with (
        pytest.raises(DiskError, match="values that do not fit"),
        Ext4Reader(Region(path=small.path, offset=0, size=small.size - 4096)),
    ):
        pass
    with small.path.open("r+b") as file:
        file.truncate(1 << 20)
    with pytest.raises(DiskError, match=r"shorter|outside|values"):
        look_at_everything(small)


def superblock(small):
    with small.path.open("rb") as file:
        file.seek(1024)
        return bytearray(file.read(1024))


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, 0xFFFFFFFF),
        (4, 0),
        (20, 5),
        (24, 40),
        (32, 0),
        (40, 0xFFFFFFFF),
        (88, 0),
        (96, 0x10000),
        (254, 7),
    ],
)
def test_impossible_superblocks_are_refused(small, offset, value):
    raw = superblock(small)
    struct.pack_into("<I" if offset not in {88, 254} else "<H", raw, offset, value)
    with pytest.raises(DiskError):
        parse_superblock(bytes(raw), small.size)


def test_unknown_features_are_named(small):
    raw = superblock(small)
    raw[98] |= 0x01
    with pytest.raises(DiskError, match="0x10000"):
        parse_superblock(bytes(raw), small.size)


def patched_inode(small, path, change):
    with Ext4Reader(small) as reader:
        number = reader.lookup(path).number
        group, index = divmod(number - 1, reader.superblock.inodes_per_group)
        at = reader._tables[group] * 4096 + index * 256
    with small.path.open("r+b") as file:
        file.seek(at)
        raw = bytearray(file.read(256))
        change(raw)
        file.seek(at)
        file.write(raw)


def test_extent_loops_and_escapes_are_refused(small):
    def escape(raw):
        struct.pack_into("<I", raw, 40 + 12 + 8, 0xFFFFFFF0)

    patched_inode(small, "/large", escape)
    with Ext4Reader(small) as reader, pytest.raises(DiskError, match="leaves the filesystem"):
        reader.open("/large")

    def deep(raw):
        struct.pack_into("<HHHH", raw, 40, 0xF30A, 2, 4, 3)
        struct.pack_into("<IIHH", raw, 52, 0, 1, 0, 0)
        struct.pack_into("<IIHH", raw, 64, 9, 1, 0, 0)

    patched_inode(small, "/large", deep)
    with Ext4Reader(small) as reader, pytest.raises(DiskError, match=r"damaged extent tree|loop"):
        reader.open("/large")


def test_a_directory_inside_itself_ends(small):
    with Ext4Reader(small) as reader:
        root = reader.lookup("/")
        physical = reader.extents(root)[0][2]
        block = bytearray(reader.block(physical))
        number = reader.lookup("/objects").number
    at = block.index(struct.pack("<I", number))
    struct.pack_into("<I", block, at, 2)
    with small.path.open("r+b") as file:
        file.seek(physical * 4096)
        file.write(block)
    with Ext4Reader(small) as reader, pytest.raises(DiskError, match="also elsewhere"):
        list(reader.walk())


def test_a_claimed_size_beyond_everything_is_refused(small):
    patched_inode(small, "/large", lambda raw: struct.pack_into("<I", raw, 108, 0xFFFF))
    with Ext4Reader(small) as reader:
        for ask in (reader.open, reader.size, reader.verity_digest, reader.verify_verity):
            with pytest.raises(DiskError, match="claims to be"):
                ask("/large")
        (problem,) = reader.verity_tree_problems()
        assert problem.where == "/large"


def test_a_sparse_file_with_a_forged_descriptor_does_not_take_forever(small):
    """A hole of terabytes with a descriptor behind it: the tree that would prove it cannot be there."""
    with Ext4Reader(small) as reader:
        block = reader.extents(reader.lookup("/objects/0"))[0][2]
    size = 1 << 33

    def forge(raw):
        struct.pack_into("<I", raw, 4, size & 0xFFFFFFFF)
        struct.pack_into("<I", raw, 108, size >> 32)
        struct.pack_into("<HHHHI", raw, 40, 0xF30A, 1, 4, 0, 0)
        end = placement(size, HashAlgorithm.SHA512).end // 4096
        struct.pack_into("<IHHI", raw, 52, end - 1, 1, 0, block)

    patched_inode(small, "/large", forge)
    with small.path.open("r+b") as file:
        file.seek(block * 4096)
        descriptor = pack_descriptor(size, b"r" * 64, HashAlgorithm.SHA512)
        file.write(descriptor.ljust(4092, b"\0") + (256).to_bytes(4, "little"))
    with Ext4Reader(small) as reader, pytest.raises(DiskError, match="would not fit"):
        reader.verify_verity("/large")


def test_hash_trees_of_directories_are_read_as_the_kernel_leaves_them(context, make_region):
    tree = Tree()
    tree.directory("/big")
    for number in range(3000):
        tree.file(f"/big/{number:0120}", b"")
    filesystem = Ext4Filesystem(context)
    region = make_region(filesystem.bytes_needed(tree.contents), offset=0)
    filesystem.build(tree.contents, partition_of(region), region)
    context.commands.run(["e2fsck", "-fyD", str(region.path)], ok=frozenset({0, 1}))
    with filesystem.reader(region) as reader:
        assert reader.lookup("/big").flags & 0x1000  # EXT4_INDEX_FL
        assert reader.names("/big") == tuple(f"{number:0120}" for number in range(3000))


def test_damaged_attributes_are_refused():
    entry = struct.pack("<BBHII", 3, 1, 60000, 0, 4) + bytes(4) + b"abc\0"
    with pytest.raises(DiskError, match="attribute"):
        parse_block_xattrs((struct.pack("<I", 0xEA020000) + bytes(28) + entry).ljust(4096, b"\0"))
    with pytest.raises(DiskError, match="magic"):
        parse_block_xattrs(bytes(4096))
    assert parse_inode_xattrs(bytes(256)) == {}


def test_paths_follow_the_os_module(small):
    with Ext4Reader(small) as reader:
        assert reader.kind("/none") is None
        assert reader.kind("/large/below") is None
        with pytest.raises(FileNotFoundError):
            reader.names("/none")
        with pytest.raises(NotADirectoryError):
            reader.names("/large")
        with pytest.raises(IsADirectoryError):
            reader.open("/objects")
        with pytest.raises(OSError, match="Invalid"):
            reader.read_link("/large")
        with reader.open("/large") as file:
            file.seek(-10, 2)
            assert file.read() == pattern(700_000)[-10:]
            assert file.seek(5) == 5
            assert file.read(3) == pattern(700_000)[5:8]
