"""Image digests that other implementations computed, for inputs made here and for shared dump files.

``vectors/digests.txt`` says which. The dump files, each for one property of the format, are not in the source tree:
CFS_COMPOSEFS_VECTORS=DIRECTORY names where they are, ``../shared/vectors/generated`` beside a checkout by default.
With CFS_COMPOSEFS_ASSETS=DIRECTORY the dump files that composefs tests itself with (its ``tests/assets``) are read too.
"""

import gzip
import hashlib
import io
import os
import re
from pathlib import Path

import pytest
from composefs_builders.trees import random_tree

from cfs_core.plugin import Directory, FormatVersion, HashAlgorithm, ImageError
from cfs_storage_composefs.dump.read import read_dump, write_dump
from cfs_storage_composefs.erofs.order import has_whiteouts
from cfs_storage_composefs.erofs.write import write_erofs
from cfs_storage_composefs.fsverity import digest_bytes

SHA256, SHA512 = HashAlgorithm
VERSIONS = list(FormatVersion)
VECTORS = Path(__file__).parent / "vectors"
DUMPS = Path(os.environ.get("CFS_COMPOSEFS_VECTORS") or Path(__file__).parents[4] / "../shared/vectors/generated")
needs_dumps = pytest.mark.skipif(not DUMPS.is_dir(), reason="CFS_COMPOSEFS_VECTORS names no directory of dump files")
ASSETS = Path(os.environ.get("CFS_COMPOSEFS_ASSETS", os.devnull))
needs_assets = [
    pytest.mark.judge,
    pytest.mark.skipif(not ASSETS.is_dir(), reason="CFS_COMPOSEFS_ASSETS names no directory of composefs's assets"),
]

SIMPLE = b"""/ 0 40755 2 0 0 0 0.0 - - -
/blkdev 0 60000 1 0 0 123 0.0 - - -
/chrdev 0 20000 1 0 0 123 0.0 - - -
/fifo 0 10000 1 0 0 0 0.0 - - -
/regular-external 1234 100000 1 0 0 0 0.0 5a/%(rest)s - 5a%(rest)s
/regular-inline 4 100000 1 0 0 0 0.0 - hihi -
/socket 0 140000 1 0 0 0 0.0 - - -
/symlink 7 120000 1 0 0 0 0.0 /target - -
""" % {b"rest": b"5a" * 31}
# pinned in composefs-rs, tests/mkfs.rs
EMPTY_IDS = (
    "8f589e8f57ecb88823736b0d857ddca1e1068a23e264fad164b28f7038eb3682",
    "14a26c957c84f6eb774b91205476adc13196c7c33b9dd97d08d43725ecb90b63",
    "086b702a519b57d6ef5aea6f8b3f2be24355cd1fb835cd80fb4e3d388b24d5a5",
)
SIMPLE_IDS = (
    "9f3f5620ee0c54708516467d0d58741e7963047c7106b245d94c298259d0fa01",
    "ad6db6427568a1e4fdc772cbab7b6063f5eb4b33cb62982a740ba9213e5962b5",
    "a8fcd41f8b313bede69f462f2af0a38d64b99a6333f5df884ea9ab4037fac722",
)

C_OPAQUE_ID = "d66c1569e1832a7b09c0131dc0059e305965461d154044213465d342749115c0"
C_STUB_IDS = (
    "fc1192f2d1809666eb9e80d486420de88fc58e6505ce9f838c9d8d767af38741",
    "f8095a6245ee8ef09cc3220143388d486908c617e7826ff532d166e647be25c3",
)
RANDOM_IDS = {
    1: (
        "f477343258a0ff78816328c5ceaf3f8c7d8a93c4d6200b264fd5d9f92be6fee9",
        "a97b102bc5faa28de6f8173578709c1e92aec20c6c32ded7fbe5d845649a3164",
        "19556ffbed07e357964942377e9e9405db137905989442c20c1e2e34b9e6166b",
    ),
    2: (
        "59b3987d0f0e807506f7de3ca1bfbb157fd20f1e3e0657fc8830bfc0b528d4c7",
        "29df60cd9ad95d240506c58bb43fada5f0144f93a9821f15a7393cb31a24262c",
        "dabf589be88ad642bb12f7a050d468450f6ce10e3f2593d4185128f707242cff",
    ),
    3: (
        "f72c775e1cc4a02bd6abde20f7cecc2406e4278374b1ade199b74613c39fa1be",
        "84de6c9b480addc0e8b40986f10959b1be9985e6ffdf542ea5b5f7bcc63299c3",
        "0354e54b3e07b2297c17408011071deedee96b4b2b1953a908f1e51dc7def6d0",
    ),
}


def ids(tree, algorithm=SHA256, versions=VERSIONS):
    return tuple(digest_bytes(write_erofs(tree, version, algorithm), algorithm).hex() for version in versions)


def test_empty_root():
    assert ids(Directory(0o755)) == EMPTY_IDS


def test_one_of_each_kind():
    assert ids(read_dump(io.BytesIO(SIMPLE))) == SIMPLE_IDS


def test_whiteout_in_directory_that_is_opaque_already():
    """C replaces the attribute; this digest is what mkcomposefs --min-version=1 printed."""
    dump = (
        b"/ 0 40755 3 0 0 0 0.0 - - -\n"
        b"/d 0 40755 2 0 0 0 0.0 - - - user.overlay.opaque=n\n"
        b"/d/w 0 20000 1 0 0 0 0.0 - - -\n"
    )
    assert ids(read_dump(io.BytesIO(dump)))[1] == C_OPAQUE_ID


def test_removed_file_named_like_a_stub_is_escaped():
    dump = b"/ 0 40755 2 0 0 0 0.0 - - -\n/7f 0 20644 1 0 0 0 0.0 - - -\n"
    assert ids(read_dump(io.BytesIO(dump)))[:2] == C_STUB_IDS


@pytest.mark.parametrize("seed", RANDOM_IDS)
def test_random_trees_keep_their_identity(seed):
    """Digests that mkcomposefs printed for the dump files of these trees (V0, V1), and ours for V2."""
    assert ids(random_tree(seed, strict=True)) == RANDOM_IDS[seed]


def pinned():
    """Return name and pinned digests of each line of digests.txt."""
    lines = (VECTORS / "digests.txt").read_text().splitlines()
    fields = [[field.strip() for field in line.split("|")] for line in lines if line[:1] not in {"", "#"}]
    return [pytest.param(name, digests, id=name) for name, *digests in fields]


@needs_dumps
def test_every_vector_has_its_digests():
    assert {param.values[0] for param in pinned()} <= {path.stem for path in DUMPS.glob("*.dump")}


@needs_dumps
@pytest.mark.parametrize(("name", "digests"), pinned())
def test_generated(name, digests):
    tree = read_dump(io.BytesIO((DUMPS / f"{name}.dump").read_bytes()))
    if len(digests) == 3:
        assert list(ids(tree, SHA512)) == digests
        return
    c_default, c_v0, c_v1, v2, *rs = digests
    assert ids(tree) == (c_v0, c_v1, v2)
    assert list(ids(tree)) == rs
    assert ids(tree)[1 if has_whiteouts(tree) else 0] == c_default


def read_vector(path):
    data = path.read_bytes()
    return io.BytesIO(gzip.decompress(data) if path.suffix == ".gz" else data)


def assets(pattern):
    """Return the assets of composefs that match, and one test that says so where there are none."""
    found = [pytest.param(path, id=path.name, marks=needs_assets) for path in sorted(ASSETS.glob(pattern))]
    return found or [pytest.param(None, id="none", marks=needs_assets)]


@pytest.mark.parametrize("path", assets("*.sha256"))
def test_assets_of_the_c_project(path):
    source = path.with_suffix("")
    tree = read_dump(read_vector(source))
    stated = source.with_name(f"{source.name}.version")
    number = int(stated.read_text()) if stated.exists() else int(has_whiteouts(tree))
    image = write_erofs(tree, FormatVersion(f"v{number}"), SHA256)
    assert hashlib.sha256(image).hexdigest() == path.read_text().split()[0]


@pytest.mark.parametrize("path", assets("should-fail-*"))
def test_assets_that_must_be_refused(path):
    with pytest.raises(ImageError, match=r"line \d+ of the dump file"):
        read_dump(read_vector(path))


@pytest.mark.parametrize("path", sorted(DUMPS.glob("*.dump")), ids=lambda path: path.stem)
def test_dump_files_come_out_as_they_went_in(path):
    text = read_vector(path).read()
    algorithm = SHA512 if re.search(rb" [0-9a-f]{128}\b", text) else SHA256
    first = io.BytesIO()
    tree = read_dump(io.BytesIO(text))
    write_dump(tree, first, algorithm)
    second = io.BytesIO()
    write_dump(read_dump(io.BytesIO(first.getvalue())), second, algorithm)
    assert first.getvalue() == second.getvalue()
    ours = sorted(line for line in first.getvalue().splitlines() if b" @" not in line)
    theirs = sorted(line for line in text.splitlines() if b" @" not in line)
    assert [line.split(b" ")[0] for line in ours] == [line.split(b" ")[0] for line in theirs]
