"""Reading images back: round trips, everything undone, damaged and hostile images."""

import contextlib
import io
import mmap
import random
import struct
import time

import pytest
from composefs_builders.trees import random_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from cfs_core.plugin import (
    Directory,
    FormatVersion,
    HashAlgorithm,
    ImageError,
    ObjectId,
    RegularFile,
    Special,
    SpecialKind,
    StorageError,
    Symlink,
    walk,
)
from cfs_storage_composefs.dump.read import read_dump, write_dump
from cfs_storage_composefs.erofs.read import read_erofs, read_header, referenced_objects
from cfs_storage_composefs.erofs.write import write_erofs

SHA256, SHA512 = HashAlgorithm
VERSIONS = list(FormatVersion)


def dump_of(tree, algorithm=SHA256):
    out = io.BytesIO()
    write_dump(tree, out, algorithm)
    return out.getvalue()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(20))
def test_read_and_written_again(seed, version):
    algorithm = SHA512 if seed % 2 else SHA256
    tree = random_tree(seed, hash_size=algorithm.size, strict=True)
    image = write_erofs(tree, version, algorithm)
    again = read_erofs(image)
    assert write_erofs(again, version, algorithm) == image
    if version is not FormatVersion.V2:  # V2 has no nanoseconds
        assert dump_of(again, algorithm) == dump_of(tree, algorithm)
    stored = {node.object for _, node in walk(tree) if isinstance(node, RegularFile) and node.object}
    assert referenced_objects(image) == stored


def test_overlay_additions_are_undone():
    tree = Directory(0o755, 1, 2, 3, 4, ((b"security.selinux", b"root_t"), (b"trusted.overlay.origin", b"mine")))
    folder = Directory(0o700, xattrs=((b"trusted.overlay.redirect", b"/x"),))
    folder.entries[b"gone"] = Special(0o600, xattrs=((b"user.a", b"b"),), kind=SpecialKind.CHAR)
    tree.entries = {
        b"d": folder,
        b"7f": Special(0o644, 1, 2, 3, 4, tree.xattrs[:1], SpecialKind.CHAR),
        b"ff": Symlink(0o777, target=b"x"),
    }
    image = write_erofs(tree, FormatVersion.V1, SHA256)
    again = read_erofs(image)
    assert set(again.entries) == {b"d", b"7f", b"ff"}
    assert again.xattrs == tree.xattrs
    assert again.entries[b"d"].xattrs == folder.xattrs
    gone = again.entries[b"d"].entries[b"gone"]
    assert isinstance(gone, Special)
    assert gone.kind is SpecialKind.CHAR
    assert gone.xattrs == ((b"user.a", b"b"),)


@pytest.mark.parametrize("version", VERSIONS)
def test_header(version):
    header = read_header(write_erofs(Directory(0o755, mtime_sec=-5, mtime_nsec=6), version, SHA256))
    assert header.version is version
    assert (header.build_sec, header.build_nsec) == ((0, 0) if version is FormatVersion.V2 else (-5, 6))
    assert header.inodes == (1 if version is FormatVersion.V2 else 257)


def test_mapped_files_and_views(tmp_path):
    image = write_erofs(random_tree(3), FormatVersion.V1, SHA256)
    path = tmp_path / "image"
    path.write_bytes(image)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert dump_of(read_erofs(mapped)) == dump_of(read_erofs(memoryview(image)))
        assert referenced_objects(mapped) == referenced_objects(image)


@pytest.mark.parametrize("length", [0, 1, 31, 1024, 1151, 1152, 4095, 8192])
def test_truncated(length):
    image = write_erofs(random_tree(3), FormatVersion.V1, SHA256)
    with pytest.raises(StorageError) as caught:
        read_erofs(image[:length])
    assert caught.value.hint


def test_unknown_version():
    image = bytearray(write_erofs(Directory(0o755), FormatVersion.V1, SHA256))
    image[12] = 3
    with pytest.raises(StorageError, match="version 3"):
        read_header(bytes(image))


@pytest.mark.parametrize("version", VERSIONS)
def test_altered_anywhere(version):
    """Whatever a byte becomes, the answer is a tree or one clear error, in time linear in the size."""
    image = write_erofs(random_tree(11, entries=20, strict=True), version, SHA256)
    chooser = random.Random(5)
    refused = 0
    for _ in range(150):
        altered = bytearray(image)
        for _ in range(chooser.choice([1, 1, 2, 8])):
            altered[chooser.randrange(1024, len(image))] = chooser.choice(
                [0, 1, 0x7F, 0x80, 0xFF, chooser.randrange(256)]
            )
        begun = time.monotonic()
        try:
            read_erofs(bytes(altered))
            referenced_objects(bytes(altered))
        except StorageError:
            refused += 1
        assert time.monotonic() - begun < 10
    assert refused


def many_directories_with_one_block(count):
    """Return an image in which *count* directories claim the same block of names."""
    tree = Directory(0o755)
    for number in range(count):
        tree.entries[b"dir%d" % number] = Directory(0o755)
    big = tree.entries[b"dir0"]
    big.entries = {b"name%0200d" % number: Special(0o600) for number in range(400)}
    return write_erofs(tree, FormatVersion.V2, SHA256)


def test_shared_blocks_do_not_multiply():
    image = bytearray(many_directories_with_one_block(3000))
    donor = next(
        offset
        for offset in range(1152, len(image), 32)
        if struct.unpack_from("<H", image, offset)[0] in {1, 5}
        and struct.unpack_from("<Q", image, offset + 8)[0] > 70_000
    )
    wanted = image[donor : donor + 64]
    struct.pack_into("<H", wanted, 0, 1)  # no tail
    struct.pack_into("<Q", wanted, 8, struct.unpack_from("<Q", wanted, 8)[0] // 4096 * 4096)
    for offset in range(1152, 1152 + 3000 * 96, 32):
        form, _, mode = struct.unpack_from("<HHH", image, offset)
        if form == 5 and mode == 0o40755 and struct.unpack_from("<Q", image, offset + 8)[0] < 100:
            image[offset : offset + 64] = wanted
    with pytest.raises(StorageError, match="overlap"):
        read_erofs(bytes(image))


def test_directory_loop():
    tree = Directory(0o755)
    inner = Directory(0o755)
    inner.entries[b"loop"] = RegularFile(0o644)
    inner.entries[b"loop"].data = b""
    tree.entries[b"a"] = inner
    image = bytearray(write_erofs(tree, FormatVersion.V2, SHA256))
    at = image.index(b"...loop") - 3 * 12
    struct.pack_into("<Q", image, at + 24, 36)
    with pytest.raises(StorageError, match="two names"):
        read_erofs(bytes(image))
    assert referenced_objects(bytes(image)) == set()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 4096))
def test_any_bytes_at_all(noise, at):
    image = bytearray(write_erofs(Directory(0o755), FormatVersion.V2, SHA256))
    image[at : at + len(noise)] = noise
    with contextlib.suppress(StorageError):
        read_erofs(bytes(image))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"/",
                b"/a",
                b"/a/b",
                b"0",
                b"40755",
                b"100644",
                b"@100644",
                b"1",
                b"0.0",
                b"-",
                b" ",
                b"\n",
                b"\\",
                b"x=y",
            ]
        )
        | st.binary(max_size=5)
    )
)
def test_any_text_as_dump_file(parts):
    with contextlib.suppress(ImageError):
        assert isinstance(read_dump(io.BytesIO(b"/ 0 40755 2 0 0 0 0.0 - - -\n" + b" ".join(parts))), Directory)


def tree_with(**entries):
    tree = Directory(0o755)
    tree.entries = {name.encode(): node for name, node in entries.items()}
    return tree


def file_with(data):
    file = RegularFile(0o644)
    file.data = data
    file.size = len(data)
    return file


def stored(name, size=100):
    file = RegularFile(0o644)
    file.object = ObjectId(name)
    file.size = size
    return file


BAD = [
    (tree_with(x=stored("ab" * 64)), FormatVersion.V1, "sha256 identity"),
    (tree_with(x=stored("AB" * 32)), FormatVersion.V1, "sha256 identity"),
    (tree_with(x=file_with(b"x" * 513)), FormatVersion.V2, "513 bytes of inline content"),
    (tree_with(x=Symlink(0o777)), FormatVersion.V1, "target of 0 bytes"),
    (tree_with(x=Symlink(0o777, target=b"x" * 1025)), FormatVersion.V2, "target of 1025 bytes"),
    (tree_with(x=Symlink(0o777, target=b"x" * 4096)), FormatVersion.V1, "target of 4096 bytes"),
    (tree_with(**{"a/b": file_with(b"")}), FormatVersion.V1, "cannot be a file name"),
    (tree_with(**{"": file_with(b"")}), FormatVersion.V2, "cannot be a file name"),
    (tree_with(**{".": file_with(b"")}), FormatVersion.V1, "'.' or '..'"),
    (tree_with(**{"x" * 256: file_with(b"")}), FormatVersion.V1, "cannot be a file name"),
    (tree_with(x=Special(0o600, uid=-1)), FormatVersion.V1, "owner -1"),
    (tree_with(x=Special(0o600, gid=1 << 32)), FormatVersion.V2, "group 4294967296"),
    (tree_with(x=Special(0o600, xattrs=((b"user." + b"n" * 256, b""),))), FormatVersion.V1, "cannot be stored"),
    (tree_with(x=Special(0o600, xattrs=((b"user.n", bytes(65536)),))), FormatVersion.V1, "cannot be stored"),
    (
        tree_with(x=Special(0o600, xattrs=tuple((b"user.%d" % number, bytes(65000)) for number in range(5)))),
        FormatVersion.V1,
        "bytes of extended attributes on one file",
    ),
    (tree_with(x=stored("ab" * 32, (1 << 53) + 1)), FormatVersion.V1, "too big"),
]


@pytest.mark.parametrize(("tree", "version", "message"), BAD)
def test_trees_that_no_image_can_hold(tree, version, message):
    with pytest.raises(ImageError, match=message) as caught:
        write_erofs(tree, version, SHA256)
    assert caught.value.hint


@pytest.mark.parametrize("version", VERSIONS)
def test_directory_under_two_names(version):
    folder = Directory(0o755)
    with pytest.raises(ImageError, match="two names"):
        write_erofs(tree_with(a=folder, b=folder), version, SHA256)
    folder.entries[b"loop"] = folder
    with pytest.raises(ImageError, match="two names"):
        write_erofs(tree_with(a=folder), version, SHA256)
