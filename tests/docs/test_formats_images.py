"""The worked examples of the pages on EROFS images and dump files are what cfs writes, byte for byte."""

import io
import os
import re
import subprocess
from pathlib import Path

import pytest
from builders.erofs_by_the_pages import Writer
from builders.format_pages import ROW, section
from composefs_builders.trees import random_tree

from cfs_core.plugin import FormatVersion, HashAlgorithm
from cfs_storage_composefs.dump.read import read_dump
from cfs_storage_composefs.dump.write import write_dump
from cfs_storage_composefs.erofs.write import write_erofs
from cfs_storage_composefs.fsverity import digest_bytes

MKCOMPOSEFS = Path(os.environ.get("CFS_JUDGES", "/nonexistent")) / "mkcomposefs"
DIGEST = re.compile(r"^\| (V\d) \| (SHA-\d+) \| `([0-9a-f]+)` \|$", re.MULTILINE)
BIG = b"x" * 100


def dump_in(text):
    return re.search(r"```text\n(/.*?)```", text, re.DOTALL)[1]


def tree_of(text, algorithm=HashAlgorithm.SHA256):
    """Read a dump file of the pages; the one stored file in them gets its name by *algorithm*."""
    name, other = (digest_bytes(BIG, each).hex() for each in (HashAlgorithm.SHA256, algorithm))
    assert text.count(name) == 1
    line = text.replace(f"{name[:2]}/{name[2:]}", f"{other[:2]}/{other[2:]}").replace(name, other)
    return read_dump(io.BytesIO(line.encode()))


@pytest.mark.parametrize(("heading", "version"), [("B.11", FormatVersion.V2), ("B.12", FormatVersion.V1)])
def test_bytes_of_the_examples_are_those_of_the_image(heading, version):
    image = write_erofs(tree_of(dump_in(section("b-erofs.md", "B.11"))), version, HashAlgorithm.SHA256)
    rows = [(int(offset), bytes.fromhex(data)) for offset, data in ROW.findall(section("b-erofs.md", heading))]
    assert len(rows) > 40
    for offset, data in rows:
        assert image[offset : offset + len(data)] == data, offset


def test_the_first_example_shows_all_that_is_not_zero():
    text = section("b-erofs.md", "B.11")
    image = write_erofs(tree_of(dump_in(text)), FormatVersion.V2, HashAlgorithm.SHA256)
    shown = bytearray(len(image))
    for offset, data in ROW.findall(text):
        shown[int(offset) : int(offset) + len(bytes.fromhex(data))] = bytes.fromhex(data)
    assert shown == image


def test_digests_of_the_example_are_computed():
    text = dump_in(section("b-erofs.md", "B.11"))
    rows = DIGEST.findall(section("b-erofs.md", "B.13"))
    assert len(rows) == 6
    for version, hash_name, digest in rows:
        algorithm = HashAlgorithm(hash_name.lower().replace("-", ""))
        image = write_erofs(tree_of(text, algorithm), FormatVersion(version.lower()), algorithm)
        assert digest_bytes(image, algorithm).hex() == digest, (version, hash_name)


def test_the_dump_file_is_read_and_written_again():
    text = section("c-dump-file.md", "C.6")
    tree = tree_of(dump_in(text))
    written = io.BytesIO()
    write_dump(tree, written, HashAlgorithm.SHA256)
    assert written.getvalue().decode() == dump_in(text)
    image = write_erofs(tree, FormatVersion.V1, HashAlgorithm.SHA256)
    assert f"`{digest_bytes(image, HashAlgorithm.SHA256).hex()}`" in text


@pytest.mark.judge
@pytest.mark.skipif(not MKCOMPOSEFS.exists(), reason="mkcomposefs is not installed (CFS_JUDGES)")
@pytest.mark.parametrize(
    ("page", "heading", "version"), [("b-erofs.md", "B.11", 0), ("b-erofs.md", "B.11", 1), ("c-dump-file.md", "C.6", 1)]
)
def test_mkcomposefs_makes_the_same_of_the_dump_files(page, heading, version, tmp_path):
    text = dump_in(section(page, heading))
    (tmp_path / "dump").write_text(text)
    command = [MKCOMPOSEFS, "--from-file", f"--min-version={version}", f"--max-version={version}"]
    printed = subprocess.run(
        [*command, "--print-digest-only", tmp_path / "dump"], capture_output=True, text=True, check=True
    ).stdout
    image = write_erofs(tree_of(text), FormatVersion(f"v{version}"), HashAlgorithm.SHA256)
    assert printed.strip() == digest_bytes(image, HashAlgorithm.SHA256).hex()


@pytest.mark.parametrize("version", list(FormatVersion), ids=lambda version: version.value)
@pytest.mark.parametrize("seed", range(12))
def test_a_writer_made_of_the_page_alone_writes_the_same(seed, version):
    algorithm = list(HashAlgorithm)[seed % 2]
    tree = random_tree(seed, hash_size=algorithm.size, strict=version is FormatVersion.V2)
    expected = Writer(int(version.value[1]), algorithm.value).write(tree)
    assert write_erofs(tree, version, algorithm) == expected


@pytest.mark.parametrize("version", list(FormatVersion), ids=lambda version: version.value)
def test_it_writes_the_same_at_the_borders_of_the_text(version):
    lines = ["/ 0 40755 2 0 0 0 5.0 - - -", "/before-1970 0 100644 1 0 0 0 -5.5 - - -"]
    if version is not FormatVersion.V2:
        lines += [f"/huge-{chunks} {chunks << 43} 100644 1 0 0 0 5.0 x - -" for chunks in (1, 2, 999, 1000, 1024)]
    lines += [f"/same-{n} 65 100644 1 0 0 0 5.0 x - - user.a=1 user.b=2 trusted.overlay.c=3" for n in range(3)]
    many = " ".join(f"user.{n}=1" for n in range(140))
    lines += [f"/shared-{n} 0 100644 1 0 0 0 5.0 - - - {many}" for n in range(2)]
    tree = read_dump(io.BytesIO("\n".join(lines).encode()))
    expected = Writer(int(version.value[1]), "sha256").write(tree)
    assert write_erofs(tree, version, HashAlgorithm.SHA256) == expected
