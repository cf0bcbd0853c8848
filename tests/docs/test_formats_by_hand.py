"""A repository made of the text of page D alone, with struct and zstd, is one to cfs and to composefs-rs."""

import io
import json
import os
import re
import shutil
import struct
import subprocess
import tarfile

import pytest
import zstandard
from builders.format_pages import section
from composefs_builders.repositories import open_repository

from cfs_core.plugin import Digest, HashAlgorithm, RegularFile
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_testkit.builders.oci import Image
from cfs_testkit.builders.oci import layer as oci_layer

PAGE = "d-repository.md"
CFSCTL = shutil.which("cfsctl", path=f"{os.environ.get('CFS_JUDGES', '')}:{os.environ.get('PATH', '')}")
BIG = b"x" * 100


def make(path):
    """Make an empty repository as D.1 and D.3 say, with SHA-256."""
    for name in ("objects", "images", "streams/refs/oci"):
        (path / name).mkdir(parents=True)
    path.chmod(0o700)
    meta = re.search(r"```json\n(.*?)```", section(PAGE, "D.3"), re.DOTALL)[1]
    (path / "meta.json").write_text(meta.replace("fsverity-sha512-12", "fsverity-sha256-12"))


def add(path, data):
    """Store an object and return its digest."""
    digest = digest_bytes(data, HashAlgorithm.SHA256)
    place = path / "objects" / digest.hex()[:2] / digest.hex()[2:]
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)
    return digest


def add_stream(path, name, data):
    """Store a splitstream under its name and return its digest."""
    digest = add(path, data)
    (path / "streams" / name).symlink_to(f"../objects/{digest.hex()[:2]}/{digest.hex()[2:]}")
    return digest


def splitstream(kind, chunks, objects, named=(), *, size, old=False):
    """Write a splitstream by D.5. *chunks* are bytes or numbers of objects, *named* pairs of name and digest."""
    body = b"".join(
        struct.pack("<q", chunk) if isinstance(chunk, int) else struct.pack("<q", -len(chunk)) + chunk
        for chunk in chunks
    )
    stream = zstandard.compress(body)
    targets = list(dict.fromkeys(digest for _, digest in named))
    names = zstandard.compress(b"".join(b"%d:%s\0" % (targets.index(digest), name) for name, digest in sorted(named)))
    ranges, at = [], 112
    for part in (b"".join(targets), b"".join(objects), names, stream):
        ranges.append((at, at + len(part)))
        at += len(part)
    streams, references, named_range, stream_range = ranges
    info = struct.pack("<8Q", *streams, *references, *stream_range, *named_range)
    info += kind + struct.pack("<Q", size)
    if old:
        header = struct.pack("<QQH11sBBB", 32, 112, 0, b"SplitStream", 0, 1, 12)
    else:
        header = struct.pack("<11sBHBBQQ", b"SplitStream", 0, 0, 1, 12, 32, 112)
    return header + info + b"".join(targets) + b"".join(objects) + names + stream


def layer():
    """Return the layer of D.9."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in (("a", b"hello\n"), ("big", BIG)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(params=["new", "old"])
def made(request, tmp_path):
    """Make a repository with one image; its splitstreams have the new or the old header."""
    path, tar, old = tmp_path / "repository", layer(), request.param == "old"
    image = Image([oci_layer(tar, "none")])
    diff_id, config_digest = Digest.of(tar), Digest.of(image.config)
    make(path)
    big, at = add(path, BIG), tar.index(BIG)
    data = splitstream(b"ocilayer", [tar[:at], 0, tar[at + len(BIG) :]], [big], size=len(tar), old=old)
    of_layer = [(str(diff_id).encode(), add_stream(path, f"oci-layer-{diff_id}", data))]
    raw = add(path, image.config)
    data = splitstream(b"ociconfg", [0], [raw], of_layer, size=len(image.config), old=old)
    config = add_stream(path, f"oci-config-{config_digest}", data)
    named = [(f"config:{config_digest}".encode(), config), *of_layer]
    raw = add(path, image.manifest)
    data = splitstream(b"ocimanif", [0], [raw], named, size=len(image.manifest), old=old)
    add_stream(path, f"oci-manifest-{image.digest}", data)
    tag = path / "streams/refs/oci" / f"localhost%2Fbootc-{image.digest}"
    tag.symlink_to(f"../../oci-manifest-{image.digest}")
    return path, image


def test_cfs_reads_it(made):
    path, image = made
    with open_repository(path, "v1", "sha256", create=False) as repository:
        assert list(repository.fsck()) == []
        stored, manifest, config = repository.resolved(f"localhost/bootc-{image.digest}")
        assert (manifest, config) == (image.manifest, image.config)
        assert str(stored.manifest_digest) == image.digest
        diff_id = Digest.parse(image.layers[0].diff_id)
        assert repository.has_layer(diff_id)
        files = {entry.path: entry.what for entry in repository.layer_entries(diff_id)}
        assert all(isinstance(file, RegularFile) for file in files.values())
        assert files[b"/a"].data == b"hello\n"
        assert files[b"/big"].object == digest_bytes(BIG, HashAlgorithm.SHA256).hex()


def test_garbage_is_told_from_content(made):
    path, _ = made
    add(path, b"nobody names this")
    with open_repository(path, "v1", "sha256", create=False) as repository:
        report = repository.collect_garbage()
        assert (report.objects_removed, report.objects_kept) == (1, 6)
        assert list(repository.fsck()) == []


@pytest.mark.judge
@pytest.mark.skipif(CFSCTL is None, reason="cfsctl is not installed (see tests/install-judges)")
def test_composefs_rs_reads_it(made):
    path, image = made

    def cfsctl(*arguments):
        command = [CFSCTL, "--repo", path, *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout

    assert json.loads(cfsctl("fsck", "--json"))["ok"]
    assert json.loads(cfsctl("oci", "fsck", "--json"))["ok"]
    assert cfsctl("oci", "inspect", "--manifest", f"localhost/bootc-{image.digest}").rstrip(b"\n") == image.manifest
