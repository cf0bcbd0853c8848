"""What composefs keeps: trees as text, EROFS images, splitstreams; and the SELinux policy that labels them."""

from __future__ import annotations

import contextlib
import io

from composefs_builders.trees import TreeMaker

from cfs_core.plugin import CfsError, FormatVersion, HashAlgorithm, walk
from cfs_fuzz.target import target
from cfs_storage_composefs.dump.read import read_dump
from cfs_storage_composefs.dump.write import write_dump
from cfs_storage_composefs.erofs.read import read_erofs, referenced_objects
from cfs_storage_composefs.erofs.write import write_erofs
from cfs_storage_composefs.selinux.labels import load_policy, relabel
from cfs_storage_composefs.streams.splitstream import LAYER, SplitStream, SplitStreamSource, SplitStreamWriter
from cfs_testkit.trees import image_of, tree_of

VERSIONS = (FormatVersion.V0, FormatVersion.V1, FormatVersion.V2)


def _trees(algorithm=HashAlgorithm.SHA256):
    return [TreeMaker(seed, strict=True, entries=14, hash_size=algorithm.size).tree() for seed in (1, 2)]


def dumps(algorithm: HashAlgorithm = HashAlgorithm.SHA256) -> list[bytes]:
    """Return trees as text."""
    made = []
    for tree in _trees(algorithm):
        out = io.BytesIO()
        write_dump(tree, out, algorithm)
        made.append(out.getvalue())
    return made


@target(
    "dump",
    dumps,
    (b"\\x00", b"\\\\", b"\\n", b" 40755 ", b" @100644 ", b" 120777 ", b"\t", b"security.capability=", b" - "),
)
def read_tree(data: bytes) -> None:
    """A tree as text; what is taken is written again, and to every kind of image."""
    tree = read_dump(io.BytesIO(data))
    write_dump(tree, io.BytesIO(), HashAlgorithm.SHA256)
    for version in VERSIONS:
        with contextlib.suppress(CfsError):
            image = write_erofs(tree, version, HashAlgorithm.SHA256)
            again = io.BytesIO()
            write_dump(read_erofs(image), again, HashAlgorithm.SHA256)


def images() -> list[bytes]:
    """Return images in each version of the format."""
    return [write_erofs(tree, version, HashAlgorithm.SHA256) for tree in _trees()[:1] for version in VERSIONS]


@target(
    "erofs", images, (b"\xe2\xe1\xf5\xe0", b"\xd0\x78\x62\x9d", b"\xff\xff\xff\xff", b"trusted.", b"overlay.metacopy")
)
def read_image(data: bytes) -> None:
    """An EROFS image: its tree, and the objects that it needs."""
    with contextlib.suppress(CfsError):
        referenced_objects(data)
    for _ in walk(read_erofs(data)):
        pass


def streams() -> list[bytes]:
    """Return splitstreams with inline bytes, objects and names."""
    writer = SplitStreamWriter(LAYER, HashAlgorithm.SHA256)
    for number in range(4):
        writer.inline(b"header" * 90)
        writer.external(bytes([number]) * 32, 1000 + number)
        writer.inline(b"\0" * 24)
    writer.name("config:sha256:x", b"\1" * 32)
    made = [b"".join(writer.pieces())]
    writer.close()
    empty = SplitStreamWriter(LAYER, HashAlgorithm.SHA256)
    made.append(b"".join(empty.pieces()))
    empty.close()
    return made


@target("splitstream", streams, (b"\x28\xb5\x2f\xfd", b"\xff" * 8, b"\0" * 8))
def read_stream(data: bytes) -> None:
    """A splitstream, by its chunks and as a layer is read from it."""
    with contextlib.suppress(CfsError), SplitStream.open(io.BytesIO(data), HashAlgorithm.SHA256, "a stream") as stream:
        for number, _ in enumerate(stream.chunks()):
            if number > 10_000:
                break
    with SplitStream.open(io.BytesIO(data), HashAlgorithm.SHA256, "a stream") as stream:
        source = SplitStreamSource(stream, "a stream")
        while source.read(540):
            source.external()
            source.read(24)


_CONTEXTS = rb"""# comment
/	-d	system_u:object_r:root_t:s0
/.*	system_u:object_r:default_t:s0
/usr/(.*/)?bin(/.*)?	system_u:object_r:bin_t:s0
/etc/[^/]+\.conf	--	system_u:object_r:etc_t:s0
/dev/[shmxv]d[a-z]{1,3}	-b	system_u:object_r:disk_t:s0
/tmp/.*	<<none>>
\0/lib64 /usr/lib
"""


@target(
    "selinux", lambda: [_CONTEXTS], (b"<<none>>", b"(?:", b"[^", b"{1,9999}", b"\\", b"(.*)*", b"-d", b"\0", b"(((((")
)
def label(data: bytes) -> None:
    """File contexts and aliases of a policy, used on a tree."""
    contexts, _, aliases = data.partition(b"\0")
    folder = "etc/selinux/p/contexts/files/file_contexts"
    files = {"etc/selinux/config": "SELINUXTYPE=p\n", folder: contexts, f"{folder}.subs": aliases}
    policy = load_policy(image_of(files))
    tree = tree_of({"usr/bin/sh": b"", "etc/a.conf": b"", "lib64/x": b"", "dev/sda": "-> x", "tmp/y": b""})
    relabel(tree, policy)
