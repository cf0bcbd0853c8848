"""The worked examples of the page on boot images: layers become trees, command lines name images."""

import io
import os
import re
import shutil
import subprocess

import pytest
from builders.format_pages import PAGES, layer, section, texts

from cfs_core.archive.tar import TarLimits, read_members
from cfs_core.bls import split_arguments
from cfs_core.image.merge import merge_layers
from cfs_core.image.sealed import effective, parse_words
from cfs_core.plugin import BytesContent, FormatVersion, HashAlgorithm, RegularFile
from cfs_storage_composefs.dump.write import write_dump
from cfs_storage_composefs.erofs.write import write_erofs
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.trees.canonical import canonicalise, make_bootable
from cfs_storage_composefs.trees.stored import StoredTreeReader, copy_tree
from cfs_testkit.builders.oci import Image, write_layout
from cfs_testkit.builders.oci import layer as oci_layer

PAGE = (PAGES / "e-boot.md").read_text()
CFSCTL = shutil.which("cfsctl", path=f"{os.environ.get('CFS_JUDGES', '')}:{os.environ.get('PATH', '')}")
SHA256 = HashAlgorithm.SHA256
LINE = re.compile(r"^\| `([^`]*)` \| (sha\d+) \| (.+?) \|$", re.MULTILINE)
DIGEST = re.compile(r"^\| ((?:plain|bootable)(?:, as [^|]+)?) \| (V\d) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def entries(tar, stored):
    """Yield a layer's entries with contents, as a repository does; large ones are added to *stored*."""
    source = io.BytesIO(tar)
    for member in read_members(source):
        data = source.read(member.size)
        entry = member.entry
        if entry is None:
            continue
        if isinstance(entry.what, RegularFile):
            if member.size <= 64:
                entry.what.data = data
            else:
                entry.what.object = digest_bytes(data, SHA256).hex()
                stored[entry.what.object] = data
        yield entry


@pytest.fixture
def stored():
    return {}


@pytest.fixture
def merged(stored):
    return merge_layers([entries(layer(1), stored), entries(layer(2), stored)])


def canonical(merged):
    tree = copy_tree(merged)
    canonicalise(tree, keep_user_xattrs=False)
    return tree


def bootable(merged, stored, *, nanoseconds=False):
    tree = canonical(merged)
    reader = StoredTreeReader(tree, lambda name: BytesContent(stored[name]))
    make_bootable(tree, reader, nanoseconds=nanoseconds)
    return tree


def dumped(tree):
    out = io.BytesIO()
    write_dump(tree, out, SHA256)
    return out.getvalue().decode()


def test_layers_become_the_trees_of_the_page(merged, stored):
    _, expected_merged, expected_bootable = texts("e-boot.md", "E.8")
    assert dumped(merged) == expected_merged
    assert dumped(bootable(merged, stored)) == expected_bootable


def test_identities_of_the_example_are_computed(merged, stored):
    forms = {
        "plain": canonical(merged),
        "bootable": bootable(merged, stored),
        "bootable, as composefs-rs 0.9.4": bootable(merged, stored, nanoseconds=True),
    }
    rows = DIGEST.findall(PAGE)
    assert len(rows) == 5
    for form, version, digest in rows:
        image = write_erofs(forms[form], FormatVersion(version.lower()), SHA256)
        assert digest_bytes(image, SHA256).hex() == digest, (form, version)


@pytest.mark.judge
@pytest.mark.skipif(CFSCTL is None, reason="cfsctl is not installed (see tests/install-judges)")
@pytest.mark.parametrize("version", ["V1", "V2"])
def test_composefs_rs_gives_the_example_these_identities(version, tmp_path):
    layout = write_layout(tmp_path / "layout", {"t": Image([oci_layer(layer(1)), oci_layer(layer(2))])})

    def cfsctl(*arguments):
        command = [CFSCTL, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[-1]

    repository = tmp_path / "repository"
    cfsctl("init", "--insecure", "--algorithm", "fsverity-sha256-12", "--erofs-version", version[1], repository)
    cfsctl("--repo", repository, "oci", "pull", "--bootable", f"oci:{layout}:t", "x")
    listed = {digest: form for form, of, digest in DIGEST.findall(PAGE) if of == version}
    assert listed[cfsctl("--repo", repository, "oci", "compute-id", "x")] == "plain"
    assert listed[cfsctl("--repo", repository, "oci", "compute-id", "--bootable", "x")].startswith("bootable")


def test_limits_of_a_layer_are_these():
    found = [
        int(number) for number in re.findall(r"^\| [a-z ,']+ \| (\d+) \|$", section("e-boot.md", "E.1"), re.MULTILINE)
    ]
    limits = TarLimits()
    sizes = [limits.entries, limits.file_bytes, limits.path_bytes, limits.link_target_bytes]
    sizes += [limits.name_bytes, limits.path_depth]
    assert [int(number) for number in found] == [*sizes, limits.extension_bytes, limits.xattr_count, limits.xattr_bytes]


def test_command_lines_name_what_the_page_says():
    names = {"AAAA": "a" * 128, "BBBB": "b" * 128, "aaaa": "a" * 64}
    rows = LINE.findall(PAGE)
    assert len(rows) == 6
    for line, repository, mounted in rows:
        words = re.sub(r"\b(AAAA|BBBB|aaaa)\b", lambda short: names[short[0]], line)
        found = effective(parse_words(split_arguments(words)), HashAlgorithm(repository))
        name, _, optional = mounted.partition(", ")
        assert (found.hex if found else None) == names.get(name), line
        assert bool(found and found.verity_optional) is (optional == "verity optional"), line
