"""Whole images, seeded, flattened by us and by composefs-rs: the same tree, or both refuse."""

import io
import random
import subprocess
import tarfile

import pytest
from composefs_builders.judges import CFSCTL, TIMEOUT_SECONDS, needs_cfsctl
from composefs_builders.repositories import merged, open_repository, storage

from cfs_core.errors import ImageError
from cfs_core.image.layers import open_layer
from cfs_core.image.reader import ImageReader
from cfs_core.image.resolve import resolve
from cfs_core.interfaces.fetcher import Fetcher
from cfs_core.plugin import FormatOptions, FormatVersion, HashAlgorithm
from cfs_testkit.builders.oci import (
    COMPRESSIONS,
    Device,
    Dir,
    Fifo,
    File,
    Hard,
    Image,
    Link,
    layer,
    pax_header,
    raw_header,
    tar_bytes,
    write_layout,
)
from cfs_transport_oci_dir.layout import LayoutTransport

pytestmark = needs_cfsctl
OPTIONS = FormatOptions(version=FormatVersion.V1, algorithm=HashAlgorithm.SHA256)


def ours(layout, image, scratch) -> bytes | None:
    transport = Fetcher(LayoutTransport())
    try:
        found = resolve(transport, transport.parse(f"oci:{layout}:t"))
        with open_repository(scratch / "ours", algorithm="sha256") as repository:
            for index in range(len(image.layers)):
                with open_layer(transport, found, index) as stream:
                    repository.import_layer(stream)
            tree = merged(repository, image)
            assert ImageReader(tree, repository.content).root is tree
            storage().canonical(tree, OPTIONS)
            out = io.BytesIO()
            storage().write_dump(tree, out, OPTIONS)
            return out.getvalue()
    except ImageError:
        return None
    finally:
        transport.close()


def theirs(layout, scratch) -> bytes | None:
    repository = str(scratch / "theirs")
    base = [CFSCTL, "--repo", repository, "--insecure"]

    def run(*argv):
        return subprocess.run([*base, *argv], capture_output=True, check=False, timeout=TIMEOUT_SECONDS)

    assert run("init", "--algorithm", "fsverity-sha256-12").returncode == 0
    if run("oci", "pull", f"oci:{layout}:t", "t").returncode:
        return None
    done = run("oci", "dump", "t")
    return done.stdout if done.returncode == 0 else None


def random_layer(generator: random.Random, tree: dict[str, str]):
    """Return entries that cover, replace, link and remove what is in *tree* (path to kind), which follows."""
    entries = [("usr", Dir(mtime=f"{generator.randrange(10**9)}.{generator.randrange(10**9)}"))]
    tree["usr"] = "directory"
    for _ in range(generator.randint(5, 40)):
        parent = generator.choice([path for path, kind in tree.items() if kind == "directory"])
        name = generator.choice(["a", "b", "c", "dd", "x" * 130, "sp ace", "\udcff\udcfe", "-", "é", "_=,"])
        path = f"{parent}/{name}"
        entry, kind = random_entry(generator, parent, name, [path for path, kind in tree.items() if kind == "leaf"])
        entries.append(entry)
        if kind == "opaque" or (kind != "directory" and tree.get(path) == "directory"):
            gone = parent if kind == "opaque" else path
            for below in [each for each in tree if each.startswith(f"{gone}/")]:
                del tree[below]
        if kind == "gone":
            tree.pop(path, None)
        elif kind != "opaque":
            tree[path] = kind
    return entries


def random_entry(generator: random.Random, parent: str, name: str, leaves: list[str]):
    path = f"{parent}/{name}"
    xattrs = {"user.k": b"\x00v", "security.capability": b"c=\n"} if generator.random() < 0.3 else {}
    when = generator.choice([0, 7, 1 << 33, "1700000000.5", "1.000000001", "3.1234567899"])
    owner = {"uid": generator.choice([0, 1000, 3_000_000, 2**32 - 1]), "mtime": when, "xattrs": xattrs}
    choice = generator.random()
    if choice < 0.3:
        data = generator.randbytes(generator.choice([0, 1, 64, 65, 511, 512, 513, 5000]))
        return (path, File(data, generator.choice([0o644, 0o4755]), **owner)), "leaf"
    if choice < 0.6:
        return (path, Dir(generator.choice([0o755, 0o1777]), **owner)), "directory"
    if choice < 0.67:
        return (path, Link(generator.choice(["a", "/abs/olute", "t" * 200]))), "leaf"
    if choice < 0.8 and leaves:
        return (path, Hard(generator.choice(leaves))), "leaf"
    if choice < 0.87:
        return (path, generator.choice([Device(1, 3), Device(259, 70000, block=True), Fifo()])), "leaf"
    if choice < 0.97:
        return (f"{parent}/.wh.{name}", b""), "gone"
    return (f"{parent}/.wh..wh..opq", b""), "opaque"


@pytest.mark.parametrize("seed", range(40))
def test_the_same_tree(tmp_path, seed):
    generator = random.Random(seed)
    tree: dict[str, str] = {}
    layers = []
    for _ in range(generator.randint(1, 4)):
        form = generator.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
        tar = tar_bytes(random_layer(generator, tree), parents=False, format=form)
        layers.append(layer(tar, generator.choice(COMPRESSIONS[:5])))
    image = Image(layers)
    layout = write_layout(tmp_path / "layout", {"t": image})
    found = ours(layout, image, tmp_path)
    assert found is not None
    assert found == theirs(layout, tmp_path)


USR = raw_header(b"usr/", b"5") + raw_header(b"usr/d", b"5")
ODD = {
    "dots": raw_header(b"./usr/./d/../d/f"),
    "double slashes": raw_header(b"usr//d//f"),
    "absolute": raw_header(b"/usr/d/f"),
    "root by slash": raw_header(b"/", b"5", mode=b"0000700\0"),
    "root by dot": raw_header(b"./", b"5", mode=b"0000700\0"),
    "file as root": raw_header(b"./"),
    "no name": raw_header(b""),
    "old style": raw_header(b"usr/f", b"\0", magic=bytes(8)),
    "contiguous": raw_header(b"usr/f", b"7", 3) + b"abc".ljust(512, b"\0"),
    "base 256": raw_header(b"usr/f", uid=b"\x80" + bytes(3) + b"\xff\xff\xff\xff"),
    "negative": raw_header(b"usr/f", mtime=b"\xff" * 12),
    "missing parent": raw_header(b"usr/none/f"),
    "global": pax_header((b"path", b"usr/other"), kind=b"g") + raw_header(b"usr/f"),
    "two pax": pax_header((b"uid", b"1")) * 2 + raw_header(b"usr/f"),
    "later record": pax_header((b"uid", b"1"), (b"uid", b"2")) + raw_header(b"usr/f"),
    "pax over gnu": raw_header(b"@", b"L", 5)
    + b"usr/g".ljust(512, b"\0")
    + pax_header((b"path", b"usr/p"))
    + raw_header(b"x"),
    "sparse": raw_header(b"usr/f", b"S", magic=b"ustar  \0"),
    "sparse, pax 0.0": pax_header(
        (b"GNU.sparse.size", b"9"), (b"GNU.sparse.offset", b"1"), (b"GNU.sparse.numbytes", b"1")
    )
    + raw_header(b"usr/f", b"0", 1)
    + b"a".ljust(512, b"\0"),
    "sparse, pax 0.1": pax_header((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"1,1"))
    + raw_header(b"usr/f", b"0", 1)
    + b"a".ljust(512, b"\0"),
    "sparse, pax 1.0": pax_header(
        (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")
    )
    + raw_header(b"usr/f", b"0", 513)
    + b"1\n1\n1\n".ljust(512, b"\0")
    + b"a".ljust(512, b"\0"),
    "unknown type": raw_header(b"usr/f", b"V"),
    "directory with size": raw_header(b"usr/f", b"5", 5) + bytes(512),
    "opaque after": raw_header(b"usr/d/f") + raw_header(b"usr/d/.wh..wh..opq") + raw_header(b"usr/d/g"),
    "whiteout of plnk": raw_header(b"usr/.wh..wh.plnk", b"5"),
    "whiteout by directory": raw_header(b"usr/.wh.d", b"5"),
    "hard link to directory": raw_header(b"usr/f", b"1", link=b"usr/d"),
    "hard link to nothing": raw_header(b"usr/f", b"1", link=b"usr/none"),
    "hard link to itself": raw_header(b"usr/f") + raw_header(b"usr/f", b"1", link=b"usr/f"),
    "hard link with slashes": raw_header(b"usr/f") + raw_header(b"usr/g", b"1", link=b"/usr//f"),
    "sticky type bits": raw_header(b"usr/f", mode=b"0100644\0"),
    "zero block inside": raw_header(b"usr/f") + bytes(512) + raw_header(b"usr/g"),
    "cut header": raw_header(b"usr/f") + raw_header(b"usr/g")[:100],
}


STRICTER = {
    "directory with size",  # Go ignores the size, composefs-rs skips as many bytes
    "zero block inside",  # GNU tar stops there
}
"""Refused by us (and by later versions of composefs-rs), since readers of tar disagree about them."""


TAKEN = {
    "missing parent",  # Bazel, ko, Nix and apko make such layers; composefs-rs refuses them
}


@pytest.mark.parametrize("name", ODD)
def test_odd_archives(tmp_path, name):
    image = Image([layer(USR + ODD[name] + ("cut" not in name) * bytes(1024))])
    layout = write_layout(tmp_path / "layout", {"t": image})
    found = ours(layout, image, tmp_path)
    if name in STRICTER:
        assert found is None
    elif name in TAKEN:
        assert found is not None
        assert theirs(layout, tmp_path) is None
    else:
        assert found == theirs(layout, tmp_path)
