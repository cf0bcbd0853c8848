"""Repositories shared with composefs-rs: what one writes, the other reads, checks and collects."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from composefs_builders import judges
from composefs_builders.repositories import layer_stream, merged, open_repository, pull, resolved

from cfs_core.plugin import Digest, FormatOptions, FormatVersion, HashAlgorithm, ImageId, lookup, read_all, walk
from cfs_storage_composefs.streams.splitstream import SplitStream
from cfs_testkit.builders.oci import Device, Dir, Fifo, File, Hard, Image, Link, layer, write_layout

CFSCTL = judges.find("cfsctl")
pytestmark = [
    pytest.mark.judge,
    pytest.mark.skipif(CFSCTL is None, reason="cfsctl (composefs-rs) is not installed"),
]

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def system(seed: bytes = b"a") -> Image:
    base = layer(
        {
            # whole seconds: for /boot, composefs-rs 0.9.4 and bootc differ on the rest
            "usr/": Dir(mtime=1_700_000_001),
            "usr/lib/": Dir(mtime="1700000001.123456789"),
            "usr/bin/sh": File(seed * 5000, mode=0o755),
            "usr/bin/ping": File(seed * 70, mode=0o755, xattrs={"security.capability": CAPABILITY, "user.x": b"1"}),
            "usr/bin/bash": Hard("usr/bin/sh"),
            "usr/lib/os-release": File("ID=test\n"),
            "usr/lib/big": File(bytes(range(256)) * 10_000),
            "usr/lib/libx.so": Link("libx.so.1"),
            "etc/empty": File(b""),
            "etc/small": File(b"x" * 64),
            "etc/large": File(b"x" * 65),
            "etc/" + "long" * 40: File(b"y" * 300),
            "etc/gone": File(b"z" * 100),
            "dev/null": Device(1, 3),
            "boot/vmlinuz": File(b"l" * 100),
            "run/lock": Fifo(),
            "sysroot/": Dir(),
            "var/lib/x/y": File(b"deep" * 50),
        }
    )
    top = layer(
        {
            "etc/.wh.gone": b"",
            "var/lib/x/.wh..wh..opq": b"",
            "var/lib/x/new": File(b"new" * 40, uid=70_000),
            "usr/bin/bash": File(b"#!" * 100, mode=0o4755),
        },
        "zstd",
        parents=False,
    )
    return Image([base, top], labels={"name": "system"})


def with_policy() -> Image:
    contexts = b"/.* system_u:object_r:default_t:s0\n/usr(/.*)? system_u:object_r:usr_t:s0\n"
    contexts += b"/usr/bin(/.*)? -- system_u:object_r:bin_t:s0\n"
    files = layer(
        {
            "etc/selinux/config": File("SELINUX=enforcing\nSELINUXTYPE=targeted\n"),
            "etc/selinux/targeted/contexts/files/file_contexts": File(contexts),
        }
    )
    return Image([*system().layers, files])


def judge(repository: Path, *arguments: str) -> str:
    assert CFSCTL
    done = subprocess.run([CFSCTL, "--repo", repository, *arguments], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def judge_repository(path: Path, image: Image, algorithm: str, version: str) -> Path:
    """Let composefs-rs make a repository and pull the image."""
    layout = write_layout(path.parent / f"{path.name}-layout", {"t": image})
    assert CFSCTL
    subprocess.run(
        [CFSCTL, "init", "--insecure", "--algorithm", f"fsverity-{algorithm}-12", "--erofs-version", version[1], path],
        check=True,
        capture_output=True,
    )
    judge(path, "oci", "pull", "--bootable", f"oci:{layout}:t", "theirs")
    return path


def links(repository: Path) -> dict[str, str]:
    found = {}
    for directory, _, names in os.walk(repository):
        for name in names:
            path = Path(directory) / name
            if path.is_symlink():
                found[str(path.relative_to(repository))] = str(path.readlink())
    return found


def objects(repository: Path) -> dict[str, bytes]:
    return {str(path.relative_to(repository)): path.read_bytes() for path in repository.glob("objects/*/*")}


def contents(repository: Path) -> dict[str, object]:
    """Return what every link leads to. Configs and manifests by what they say: composefs-rs writes their references in
    the order of a hash table, so that the same config has many forms.
    """
    found: dict[str, object] = {}
    for path, target in links(repository).items():
        if "/refs/" in path:
            found[path] = target
            continue
        file = repository / path
        algorithm = HashAlgorithm.SHA256 if len(target.rpartition("/")[2]) == 62 else HashAlgorithm.SHA512
        if "oci-config" in path or "oci-manifest" in path:
            with SplitStream.open(file.open("rb"), algorithm, path) as stream:
                named = {key: value for key, value in stream.named_refs.items() if not key.startswith("config:")}
                found[path] = (stream.content_type, stream.size, stream.object_refs, named, list(stream.chunks()))
        else:
            found[path] = (target, file.read_bytes())
    return found


FORMATS = [(algorithm, version) for algorithm in ("sha256", "sha512") for version in ("v1", "v2")]


@pytest.mark.parametrize(("algorithm", "version"), FORMATS)
@pytest.mark.parametrize("make", [system, with_policy])
def test_same_image_same_repository(tmp_path, algorithm, version, make):
    image = make()
    theirs = judge_repository(tmp_path / "theirs", image, algorithm, version)
    ours = tmp_path / "ours"
    with open_repository(ours, version, algorithm) as repository:
        committed = pull(repository, image, name="theirs")
    assert (ours / "meta.json").read_bytes() == (theirs / "meta.json").read_bytes()
    assert contents(ours) == contents(theirs)
    assert judge(theirs, "oci", "compute-id", "--bootable", "theirs").strip().endswith(committed.id)
    assert judge(theirs, "oci", "compute-id", "theirs").strip().endswith(committed.plain_id)


@pytest.mark.parametrize(("algorithm", "version"), FORMATS)
def test_ours_passes_their_checks_and_reads_back(tmp_path, algorithm, version):
    image = system()
    path = tmp_path / "repository"
    with open_repository(path, version, algorithm) as repository:
        committed = pull(repository, image, name="mine:latest")
    for command in (("fsck", "--json"), ("oci", "fsck", "--json")):
        report = json.loads(judge(path, *command))
        assert report["ok"], report
        assert not report["errors"]
    listed = json.loads(judge(path, "oci", "images", "--json"))["images"]
    assert [each["name"] for each in listed] == ["mine:latest"]
    assert judge(path, "oci", "inspect", "--manifest", "mine:latest").rstrip("\n").encode() == image.manifest
    assert judge(path, "oci", "inspect", "--config", "mine:latest").rstrip("\n").encode() == image.config
    assert CFSCTL
    for each in image.layers:
        cat = [CFSCTL, "--repo", path, "cat", f"oci-layer-{each.diff_id}"]
        assert subprocess.run(cat, capture_output=True, check=True).stdout == each.tar
    there = judge(path, "image-objects", committed.id).split()
    with open_repository(path, None, None, create=False) as repository:
        tree = repository.open_tree(committed.id)
    named = {node.object for _, node in walk(tree) if getattr(node, "object", None)}
    assert {line.partition(":")[2] or line for line in there} == named


def test_their_repository_is_read_checked_and_collected(tmp_path):
    image = system()
    path = judge_repository(tmp_path / "theirs", image, "sha512", "v1")
    with open_repository(path, None, None, create=False) as repository:
        assert list(repository.fsck()) == []
        (stored,) = repository.images()
        assert (stored.name, str(stored.manifest_digest)) == ("theirs", image.digest)
        assert stored.labels == {"name": "system"}
        assert repository.resolved("theirs")[1:] == (image.manifest, image.config)
        assert all(repository.has_layer(Digest.parse(each.diff_id)) for each in image.layers)
        (found,) = repository.image_ids(merged(repository, image), bootable=True)
        assert found == stored.id
        report = repository.collect_garbage()
        assert list(repository.fsck()) == []
        assert report.objects_removed == 2, "the manifest and the config stream that composefs-rs has replaced"
        repository.remove("theirs")
        gone = repository.collect_garbage()
        assert gone.objects_kept == 0
    assert links(path) == {}
    assert json.loads(judge(path, "fsck", "--json"))["ok"]


def test_their_collector_keeps_what_ours_keeps(tmp_path):
    path = tmp_path / "repository"
    with open_repository(path) as repository:
        pull(repository, system(), name="kept")
        pull(repository, system(b"b"), name="dropped")
        repository.remove("dropped")
        planned = repository.collect_garbage(dry_run=True)
    before = objects(path)
    judge(path, "gc")
    assert len(before) - len(objects(path)) == planned.objects_removed
    with open_repository(path) as repository:
        assert list(repository.fsck()) == []
        assert repository.collect_garbage().objects_removed == 0
        assert [each.name for each in repository.images()] == ["kept"]


def test_both_write_into_one_repository(tmp_path):
    path = judge_repository(tmp_path / "shared", system(), "sha512", "v1")
    with open_repository(path, None, None, create=False) as repository:
        same = pull(repository, system(), name="ours")
        assert same.stored_bytes < 2000, "no more than the two streams that composefs-rs orders at random"
        pull(repository, system(b"c"))
    layout = write_layout(tmp_path / "more", {"t": system(b"d")})
    judge(path, "oci", "pull", "--bootable", f"oci:{layout}:t", "more")
    assert json.loads(judge(path, "oci", "fsck", "--json"))["ok"]
    with open_repository(path) as repository:
        assert list(repository.fsck()) == []
        assert {each.name for each in repository.images()} == {
            "theirs",
            "ours",
            "more",
            f"localhost/bootc-{system(b'c').digest}",
        }


def test_second_version_in_the_same_repository(tmp_path):
    path = tmp_path / "repository"
    image = system()
    with open_repository(path) as repository:
        first = pull(repository, image, name="x")
        again = repository.commit(
            merged(repository, image),
            resolved(image),
            options=FormatOptions(version=FormatVersion.V2, keep_user_xattrs=True),
            name="x",
        )
        assert repository.images()[0].id == first.id
        assert repository.resolved(again.id)[0].id == again.id
        assert list(repository.fsck()) == []
    assert json.loads(judge(path, "oci", "fsck", "--json"))["ok"]
    found = judge(path, "oci", "linked-erofs-images", first.id)
    assert again.id in found
    theirs = judge(path, "--erofs-version", "2", "oci", "compute-id", "--bootable", "--xattrs", "keep-user-xattrs", "x")
    assert theirs.strip().endswith(again.id)


def test_their_layer_import_reads_as_entries(tmp_path):
    path = tmp_path / "repository"
    each = system().layers[0]
    with open_repository(path) as repository:
        pass
    assert CFSCTL
    subprocess.run(
        [CFSCTL, "--repo", path, "oci", "import-layer", each.diff_id], input=each.tar, check=True, capture_output=True
    )
    with open_repository(path) as repository:
        theirs = [(entry.path, type(entry.what)) for entry in repository.layer_entries(Digest.parse(each.diff_id))]
        before = (path / f"streams/oci-layer-{each.diff_id}").readlink()
        repository.import_layer(layer_stream(each))
        assert (path / f"streams/oci-layer-{each.diff_id}").readlink() == before
        assert len(theirs) == len([member for member in layer_stream(each).members() if member.entry])


def test_kept_image_survives_without_tag(tmp_path):
    path = tmp_path / "repository"
    with open_repository(path) as repository:
        committed = pull(repository, system())
        repository.remove(f"localhost/bootc-{committed.manifest_digest}")
        report = repository.collect_garbage([ImageId(committed.id)])
        assert report.objects_removed > 0
        repository.open_tree(committed.id)
    assert committed.id in judge(path, "fsck", "--json") or json.loads(judge(path, "fsck", "--json"))["ok"]
    assert judge(path, "image-objects", committed.id)


def test_long_runs_of_small_files_are_readable_for_them(tmp_path):
    tree = {f"usr/share/{number}": File(b"%d" % number) for number in range(3000)}
    image = Image([layer(tree | {"boot/": Dir(), "sysroot/": Dir()})])
    path = tmp_path / "repository"
    with open_repository(path) as repository:
        committed = pull(repository, image, name="small")
    assert judge(path, "oci", "compute-id", "--bootable", "small").strip().endswith(committed.id)
    assert json.loads(judge(path, "oci", "fsck", "--json"))["ok"]


def test_images_and_streams_that_are_not_of_oci(tmp_path):
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    (root / "usr" / "file").write_bytes(b"file" * 100)
    path = tmp_path / "repository"
    each = system().layers[0]
    with open_repository(path) as repository:
        pull(repository, system(b"o"), name="o")
    image = judge(path, "create-image", root, "mine/deep").strip().rpartition(":")[2]
    assert CFSCTL
    argv = [CFSCTL, "--repo", path, "oci", "import-layer", each.diff_id, "some/layer"]
    subprocess.run(argv, input=each.tar, check=True, capture_output=True)
    before = links(path)
    assert any(name.startswith("images/refs/") for name in before)
    with open_repository(path) as repository:
        assert list(repository.fsck()) == []
        assert repository.collect_garbage().objects_removed == 0
        assert links(path) == before
        tree = repository.open_tree(ImageId(image))
        assert read_all(repository.content(lookup(tree, b"/usr/file").object)) == b"file" * 100
        repository.remove("o")
        assert repository.collect_garbage().objects_removed > 0
        assert list(repository.fsck()) == []
        assert repository.has_layer(Digest.parse(each.diff_id))
    assert json.loads(judge(path, "fsck", "--json"))["ok"]
