import json
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from composefs_builders.repositories import layer_stream, merged, open_repository, pull, resolved, storage

from cfs_core.plugin import (
    BytesContent,
    ChosenFormat,
    CopyObject,
    Digest,
    FormatOptions,
    FormatVersion,
    HashAlgorithm,
    ImageError,
    ImageId,
    Location,
    MakeDirectory,
    MakeSymlink,
    ObjectId,
    RegularFile,
    Repository,
    StorageError,
    UsageError,
    VerificationError,
    Volume,
    read_all,
    walk,
)
from cfs_testkit.builders.oci import Dir, File, Hard, Image, Link, layer

ROOT = Location(Volume.ROOT, "/composefs")


def system(seed: bytes = b"a", **options) -> Image:
    tree = {
        "usr/bin/sh": File(seed * 5000, mode=0o755),
        "usr/bin/bash": Hard("usr/bin/sh"),
        "usr/lib/os-release": File("ID=test\n"),
        "usr/lib/modules/6.1/vmlinuz": File(b"kernel" * 1000),
        "usr/lib/modules/6.1/kernel/x.ko": File(b"module" * 1000),
        "usr/share/big": File(seed * 3_000_000),
        "etc/os-release": Link("../usr/lib/os-release"),
        "etc/conf": File(b"c" * 100),
        "boot/": Dir(),
        "sysroot/": Dir(),
    }
    return Image([layer(tree), layer({"etc/extra": File(b"e" * 200 + seed)}, "none", parents=False)], **options)


def files_of(path) -> dict[str, int]:
    return {str(each.relative_to(path)): each.lstat().st_size for each in path.rglob("*") if not each.is_dir()}


# --- opening ----------------------------------------------------------------------------------


def test_new_repository_is_what_composefs_rs_makes(tmp_path):
    path = tmp_path / "deep" / "repository"
    with open_repository(path, None, None, sealed=True) as repository:
        assert repository.options == ChosenFormat(version=FormatVersion.V1, algorithm=HashAlgorithm.SHA512)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert json.loads((path / "meta.json").read_bytes()) == {
        "version": 1,
        "algorithm": "fsverity-sha512-12",
        "features": {"compatible": [], "read-only-compatible": ["v1_erofs"], "incompatible": []},
        "erofs_formats": {"default": 1},
    }
    assert stat.S_IMODE((path / "meta.json").stat().st_mode) == 0o644
    assert sorted(each.name for each in path.iterdir()) == ["images", "meta.json", "objects", "streams"]


@pytest.mark.parametrize(("version", "algorithm"), [("v2", None), (None, "sha256"), ("v0", "sha256")])
def test_options_that_contradict_are_refused(tmp_path, version, algorithm):
    with open_repository(tmp_path / "r", "v1", "sha512"):
        pass
    with pytest.raises(StorageError, match="not"):
        open_repository(tmp_path / "r", version, algorithm)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"version": 2}, "version 2"),
        ({"algorithm": "fsverity-md5-12"}, "unknown algorithm"),
        ({"features": {"incompatible": ["magic"]}}, "magic"),
        ({"erofs_formats": {"default": 9}}, "EROFS format 9"),
        ("nonsense", "malformed"),
    ],
)
def test_unknown_metadata_is_refused(tmp_path, meta, words):
    with open_repository(tmp_path):
        pass
    file = tmp_path / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | meta if isinstance(meta, dict) else meta))
    with pytest.raises(StorageError, match=words) as caught:
        open_repository(tmp_path, None, None)
    assert caught.value.hint


def test_unknown_read_only_feature_allows_reading_only(tmp_path):
    image = system()
    with open_repository(tmp_path) as repository:
        committed = pull(repository, image)
    file = tmp_path / "meta.json"
    meta = json.loads(file.read_text())
    meta["features"]["read-only-compatible"].append("future")
    file.write_text(json.dumps(meta))
    with open_repository(tmp_path, None, None) as repository:
        repository.open_tree(committed.id)
        for change in (
            lambda: repository.import_layer(layer_stream(image.layers[0])),
            lambda: repository.commit(merged(repository, image), resolved(image)),
            repository.collect_garbage,
            lambda: repository.remove("x"),
        ):
            with pytest.raises(StorageError, match="read-only"):
                change()


def test_missing_and_foreign_directories(tmp_path):
    with pytest.raises(StorageError, match="no repository"):
        open_repository(tmp_path / "none", create=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    for create in (False, True):
        with pytest.raises(StorageError, match=r"not a composefs repository"):
            open_repository(tmp_path / "home", create=create)
    assert [each.name for each in (tmp_path / "home").iterdir()] == ["letter.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="not a directory"):
        open_repository(tmp_path / "file")


def test_repository_from_before_metadata(tmp_path):
    image = system()
    with open_repository(tmp_path, "v2", "sha256") as repository:
        committed = pull(repository, image)
    (tmp_path / "meta.json").unlink()
    with open_repository(tmp_path, None, None, create=False) as repository:
        assert repository.options.version is FormatVersion.V2
        assert repository.options.algorithm is HashAlgorithm.SHA256
        assert repository.images()[0].id == committed.id
        assert [problem.code for problem in repository.fsck()] == ["repository.no-metadata"]
    assert not (tmp_path / "meta.json").exists()


# --- layers -----------------------------------------------------------------------------------


def test_layer_and_entries(tmp_path):
    each = system().layers[0]
    diff_id = Digest.parse(each.diff_id)
    with open_repository(tmp_path) as repository:
        assert not repository.has_layer(diff_id)
        with pytest.raises(StorageError) as caught:
            list(repository.layer_entries(diff_id))
        assert caught.value.code == "storage.not-found"
        repository.import_layer(layer_stream(each))
        assert repository.has_layer(diff_id)
        found = {entry.path: entry.what for entry in repository.layer_entries(diff_id)}
        assert found[b"/usr/lib/os-release"].data == b"ID=test\n"
        content = repository.content(found[b"/usr/share/big"].object)
        assert (content.size, read_all(content)) == (3_000_000, b"a" * 3_000_000)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("objects/*/*")}
    assert modes == {0o644}


def test_objects_have_their_mode_under_any_umask(tmp_path):
    before = os.umask(0o077)
    try:
        with open_repository(tmp_path / "r") as repository:
            repository.import_layer(layer_stream(system().layers[0]))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("r/objects/*/*")} == {0o644}


def test_wrong_layer_leaves_nothing(tmp_path):
    each = system().layers[0]
    with open_repository(tmp_path) as repository:
        empty = files_of(tmp_path)
        stream = layer_stream(each.tar[:-20_000])
        with pytest.raises(ImageError):
            repository.import_layer(stream)
        assert files_of(tmp_path) == empty

        def chunks():
            yield each.tar
            msg = "not what it should be"
            raise VerificationError(msg)

        stream = layer_stream(each)
        stream._chunks = chunks()
        with pytest.raises(VerificationError, match="not what"):
            repository.import_layer(stream)
        assert files_of(tmp_path) == empty
        assert not repository.has_layer(stream.diff_id)


def test_failed_layer_keeps_objects_that_others_need(tmp_path):
    image = system()
    with open_repository(tmp_path) as repository:
        pull(repository, image)
        before = files_of(tmp_path)
        tree = {"usr/bin/sh": File(b"a" * 5000), "usr/new": File(b"n" * 5000)}
        with pytest.raises(ImageError):
            repository.import_layer(layer_stream(layer(tree).tar[:-9000]))
        assert files_of(tmp_path) == before


def test_failed_layer_keeps_what_another_process_published_meanwhile(tmp_path):
    shared = layer({"usr/same": File(b"s" * 5000)})
    with open_repository(tmp_path) as repository:

        def chunks():
            yield shared.tar[:-1024]
            # by now the object is there, and another process uses it
            with open_repository(tmp_path) as other:
                other.import_layer(layer_stream(shared))
            msg = "broken"
            raise VerificationError(msg)

        stream = layer_stream(b"")
        stream._chunks = chunks()
        with pytest.raises(VerificationError):
            repository.import_layer(stream)
        assert repository.has_layer(Digest.parse(shared.diff_id))
        assert list(repository.fsck()) == []


def test_failed_layer_is_left_for_collection_while_others_work(tmp_path):
    with open_repository(tmp_path) as repository, open_repository(tmp_path) as other:
        with pytest.raises(ImageError):
            repository.import_layer(layer_stream(system().layers[0].tar[:-20_000]))
        assert list(tmp_path.glob("objects/*/*"))
        other.close()
        assert repository.collect_garbage().objects_removed > 0
        assert not list(tmp_path.glob("objects/*/*"))


def test_layers_in_parallel(tmp_path):
    images = [system(bytes([65 + number])) for number in range(6)]
    with open_repository(tmp_path) as repository:
        streams = [layer_stream(each) for image in images for each in image.layers]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(repository.import_layer, streams))
        assert all(repository.has_layer(stream.diff_id) for stream in streams)
        assert list(repository.fsck()) == []


def test_damaged_object_is_replaced_by_the_next_pull(tmp_path):
    image = system()
    with open_repository(tmp_path) as repository:
        pull(repository, image)
    victims = sorted(tmp_path.glob("objects/*/*"))
    for victim in victims[::2]:
        victim.write_bytes(b"")  # what a power failure leaves of an object whose data was not yet written
    victims[1].unlink()
    with open_repository(tmp_path) as repository:
        assert len(list(repository.fsck())) > len(victims) // 2
        pull(repository, image)
        assert list(repository.fsck()) == []


# --- images -----------------------------------------------------------------------------------


def test_commit_and_read_back(tmp_path):
    image = system(labels={"a": "b"})
    with open_repository(tmp_path) as repository:
        committed = pull(repository, image, name="debian:latest")
        assert committed.object_count == 6
        assert committed.stored_bytes > 3_000_000
        (stored,) = repository.images()
        assert (stored.name, stored.id, stored.architecture) == ("debian:latest", committed.id, "amd64")
        assert stored.labels == {"a": "b"}
        for name in ("debian:latest", image.digest, f"@{image.digest}", committed.id, committed.plain_id):
            found, manifest, config = repository.resolved(name)
            assert (manifest, config) == (image.manifest, image.config)
            assert str(found.manifest_digest) == image.digest
        tree = repository.open_tree(committed.id)
        paths = dict(walk(tree))
        assert isinstance(paths[b"/usr/bin/sh"], RegularFile)
        assert paths[b"/usr/bin/sh"] is paths[b"/usr/bin/bash"]
        assert repository.image_ids(merged(repository, image), bootable=True) == (committed.id,)
        assert repository.image_ids(merged(repository, image), bootable=False) == (committed.plain_id,)
        assert list(repository.fsck()) == []


def test_commit_leaves_the_tree_alone(tmp_path):
    image = system()
    with open_repository(tmp_path) as repository:
        pull(repository, image)
        tree = merged(repository, image)
        before = [(path, node.mode, node.mtime_sec, node.xattrs) for path, node in walk(tree)]
        repository.image_ids(tree, bootable=True)
        repository.commit(tree, resolved(image))
        assert [(path, node.mode, node.mtime_sec, node.xattrs) for path, node in walk(tree)] == before


def test_ids_under_several_options(tmp_path):
    xattrs = {"user.note": b"1"}
    image = Image([layer({"usr/x": File(b"x" * 100, xattrs=xattrs), "boot/": Dir(), "sysroot/": Dir()})])
    with open_repository(tmp_path) as repository:
        pull(repository, image)
        options = [
            FormatOptions(version=version, keep_user_xattrs=keep) for version in FormatVersion for keep in (False, True)
        ]
        found = repository.image_ids(merged(repository, image), options, bootable=True)
        assert len(set(found)) == 6
        with pytest.raises(StorageError, match="sha512"):
            repository.image_ids(
                merged(repository, image), [FormatOptions(algorithm=HashAlgorithm.SHA256)], bootable=True
            )


def test_commit_refusals_leave_no_tag(tmp_path):
    image = system()
    bare = Image([layer({"etc/x": File(b"")})])
    with open_repository(tmp_path) as repository:
        with pytest.raises(ImageError, match="usr"):
            pull(repository, bare)
        with pytest.raises(StorageError, match="layer"):
            repository.commit(merged(repository, bare), resolved(image))
        with pytest.raises(UsageError):
            pull(repository, image, name="@x")
        with pytest.raises(UsageError):
            pull(repository, image, name="x" * 256)
        assert repository.images() == ()


def test_names_that_need_encoding(tmp_path):
    image = system()
    names = ["docker://quay.io/a/b:c", "oci:/tmp/x%2Fy:t", "ünïcode", "a%b"]
    with open_repository(tmp_path) as repository:
        for name in names:
            pull(repository, image, name=name)
        assert [each.name for each in repository.images()] == sorted(names)
        for name in names:
            repository.remove(name)
        assert repository.images() == ()
        with pytest.raises(StorageError) as caught:
            repository.remove(names[0])
        assert caught.value.code == "storage.not-found"


def test_unknown_things_are_not_found(tmp_path):
    with open_repository(tmp_path) as repository:
        for attempt in (
            lambda: repository.resolved("nothing"),
            lambda: repository.resolved("0" * 128),
            lambda: repository.open_tree(ImageId("0" * 128)),
            lambda: repository.open_tree(ImageId("../../etc")),
            lambda: repository.content(ObjectId("00")),
        ):
            with pytest.raises(StorageError) as caught:
                attempt()
            assert caught.value.code == "storage.not-found"
            assert caught.value.hint


def test_altered_image_is_not_opened(tmp_path):
    with open_repository(tmp_path) as repository:
        committed = pull(repository, system())
        file = (tmp_path / "images" / committed.id).resolve()
        data = bytearray(file.read_bytes())
        data[2000] ^= 1
        file.chmod(0o644)
        file.write_bytes(data)
        with pytest.raises(StorageError, match="damaged"):
            repository.open_tree(committed.id)


def test_kernel_arguments(tmp_path):
    with open_repository(tmp_path) as repository:
        committed = pull(repository, system())
        (required,) = repository.kernel_arguments(committed, verity=True)
        (optional,) = repository.kernel_arguments(committed, verity=False)
    assert required.text == f"composefs={committed.id}"
    assert optional.text == f"composefs=?{committed.id}"
    assert required.origin


# --- scratch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", list(FormatVersion))
def test_scratch_tells_the_same_identities(tmp_path, version):
    image = system()
    with open_repository(tmp_path / "r", version.value) as repository:
        committed = pull(repository, image)
    with storage().scratch(FormatOptions(version=version)) as scratch:
        where = scratch._directory.path
        for each in image.layers:
            scratch.import_layer(layer_stream(each))
        tree = merged(scratch, image)
        assert scratch.image_ids(tree, bootable=True) == (committed.id,)
        assert scratch.image_ids(tree, bootable=False) == (committed.plain_id,)
        found = dict(walk(tree))
        assert read_all(scratch.content(found[b"/usr/lib/modules/6.1/vmlinuz"].object)) == b"kernel" * 1000
        assert read_all(scratch.content(found[b"/etc/conf"].object)) == b"c" * 100
        for path in (b"/usr/share/big", b"/usr/lib/modules/6.1/kernel/x.ko"):
            with pytest.raises(StorageError, match="not kept"):
                scratch.content(found[path].object)
        assert not isinstance(scratch, Repository)
        assert sum(files_of(where).values()) < 100_000
    assert not where.exists()


# --- locks ------------------------------------------------------------------------------------


def test_collection_refuses_while_somebody_else_is_here(tmp_path):
    with open_repository(tmp_path) as repository, open_repository(tmp_path) as other:
        with pytest.raises(StorageError) as caught:
            repository.collect_garbage()
        assert caught.value.code == "storage.locked"
        assert caught.value.hint
        assert repository.collect_garbage(dry_run=True).objects_removed == 0
        other.close()
        repository.collect_garbage()


def test_collection_refuses_in_the_middle_of_an_import(tmp_path):
    each = system().layers[0]
    with open_repository(tmp_path) as repository:
        reached, go_on = threading.Event(), threading.Event()

        def chunks():
            yield each.tar[:6000]
            reached.set()
            go_on.wait(10)
            yield each.tar[6000:]

        stream = layer_stream(each)
        stream._chunks = chunks()
        thread = threading.Thread(target=repository.import_layer, args=(stream,))
        thread.start()
        assert reached.wait(10)
        with pytest.raises(StorageError) as caught:
            repository.collect_garbage()
        assert caught.value.code == "storage.locked"
        go_on.set()
        thread.join()
        assert repository.has_layer(stream.diff_id)


def test_lock_is_seen_by_other_programs(tmp_path):
    with open_repository(tmp_path):
        pass
    probe = [
        sys.executable,
        "-c",
        "import fcntl,os,sys;fcntl.flock(os.open(sys.argv[1],0),fcntl.LOCK_EX|fcntl.LOCK_NB)",
    ]
    with open_repository(tmp_path):
        assert subprocess.run([*probe, tmp_path], capture_output=True, check=False).returncode
    assert not subprocess.run([*probe, tmp_path], capture_output=True, check=False).returncode


# --- garbage ----------------------------------------------------------------------------------


def test_collection_keeps_what_is_tagged(tmp_path):
    kept, dropped = system(b"k"), system(b"d")
    with open_repository(tmp_path) as repository:
        pull(repository, kept, name="kept")
        before = files_of(tmp_path)
        pull(repository, dropped, name="dropped")
        assert repository.collect_garbage().objects_removed == 0
        repository.remove("dropped")
        planned = repository.collect_garbage(dry_run=True)
        after_dry_run = files_of(tmp_path)
        done = repository.collect_garbage()
        assert planned == done
        assert after_dry_run != files_of(tmp_path) == before
        assert done.bytes_freed > 3_000_000
        assert any(name.startswith("streams/oci-manifest") for name in done.removed)
        assert list(repository.fsck()) == []
        pull(repository, dropped, name="dropped")
        assert list(repository.fsck()) == []


def test_collection_refuses_to_guess(tmp_path):
    with open_repository(tmp_path) as repository:
        pull(repository, system(), name="x")
        pull(repository, system(b"b"), name="y")
        stream = next(tmp_path.glob("streams/oci-layer-*"))
        stream.resolve().write_bytes(b"rubbish")
        before = files_of(tmp_path)
        with pytest.raises(StorageError) as caught:
            repository.collect_garbage()
        assert caught.value.hint
        assert files_of(tmp_path) == before


def test_collection_keeps_an_image_by_id(tmp_path):
    with open_repository(tmp_path) as repository:
        committed = pull(repository, system(), name="x")
        repository.remove("x")
        repository.collect_garbage([committed.id])
        tree = repository.open_tree(committed.id)
        for _, node in walk(tree):
            if isinstance(node, RegularFile) and node.object:
                assert repository.content(node.object).size == node.size
        assert repository.collect_garbage([ImageId("0" * 128)]).objects_kept == 0


def test_stale_temporary_files_go(tmp_path):
    with open_repository(tmp_path):
        pass
    stale = [tmp_path / "objects" / ".tmp-object-dead", tmp_path / ".symlink-dead", tmp_path / ".meta-dead"]
    for path in stale:
        path.write_text("left by a killed writer")
    with open_repository(tmp_path) as repository:
        assert not any(path.exists() for path in stale)
        for path in stale:
            path.write_text("of somebody who is at work")
        with open_repository(tmp_path) as other:
            assert all(path.exists() for path in stale)
            assert sorted(problem.where for problem in other.fsck()) == [
                ".meta-dead",
                ".symlink-dead",
                "objects/.tmp-object-dead",
            ]
        repository.collect_garbage()
        assert not any(path.exists() for path in stale)


# --- export -----------------------------------------------------------------------------------


def apply(actions, target) -> None:
    """Do what an executor would do, in a plain directory."""
    for action in actions:
        path = target / action.location.path.removeprefix("/composefs").lstrip("/")
        if isinstance(action, MakeDirectory):
            path.mkdir()
            path.chmod(action.attributes.mode)
        elif isinstance(action, MakeSymlink):
            path.symlink_to(action.target)
        else:
            assert isinstance(action, CopyObject)
            path.write_bytes(read_all(action.source))


def test_export_is_complete_minimal_and_the_same_again(tmp_path):
    image, other = system(b"i"), system(b"o")
    with open_repository(tmp_path / "from") as repository:
        committed = pull(repository, image, name="i")
        first = list(repository.plan_export([committed], ROOT, verity=True))
        pull(repository, other, name="o")
        v2 = FormatOptions(version=FormatVersion.V2)
        repository.commit(merged(repository, image), resolved(image), options=v2)
        again = list(repository.plan_export([committed], ROOT, verity=True))
        assert [repr(action) for action in again] == [repr(action) for action in first]
        assert {action.verity for action in first if isinstance(action, CopyObject)} == {HashAlgorithm.SHA512}
        plain = repository.plan_export([committed], ROOT, verity=False)
        assert {action.verity for action in plain if isinstance(action, CopyObject)} == {None}
    target = tmp_path / "to"
    apply(first, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    with open_repository(target, None, None, create=False) as exported:
        assert list(exported.fsck()) == []
        (stored,) = exported.images()
        assert stored.name == f"localhost/bootc-{image.digest}"
        assert stored.id == committed.id
        assert exported.collect_garbage().objects_removed == 0
        assert exported.image_ids(merged(exported, image), bootable=True) == (committed.id,)
        assert (target / "images" / committed.plain_id).exists()


def test_export_of_two_images_shares_objects(tmp_path):
    one, two = system(b"1"), system(b"2")
    with open_repository(tmp_path / "from", "v2", "sha256") as repository:
        committed = [pull(repository, image) for image in (one, two)]
        actions = list(repository.plan_export(committed, ROOT, verity=True))
        locations = [action.location.path for action in actions]
        assert len(locations) == len(set(locations))
        assert all(
            isinstance(action.source, BytesContent) or action.source.size > 0
            for action in actions
            if isinstance(action, CopyObject)
        )
    apply(actions, tmp_path / "to")
    with open_repository(tmp_path / "to", None, None, create=False) as exported:
        assert list(exported.fsck()) == []
        assert {stored.id for stored in exported.images()} == {image.id for image in committed}


def test_export_of_an_unknown_image_is_refused(tmp_path):
    with open_repository(tmp_path / "a") as first, open_repository(tmp_path / "b") as second:
        committed = pull(first, system())
        with pytest.raises(StorageError):
            list(second.plan_export([committed], ROOT, verity=True))


# --- trust ------------------------------------------------------------------------------------


def test_layers_are_hashed_again_on_demand(tmp_path):
    image, other = system(b"i"), system(b"o")
    first, second = (Digest.parse(each.layers[0].diff_id) for each in (image, other))
    streams = tmp_path / "r" / "streams"
    with open_repository(tmp_path / "r") as repository:
        assert not repository.verify_layer(first)
        pull(repository, image)
        pull(repository, other)
        assert repository.verify_layer(first)
        name = streams / f"oci-layer-{first}"
        name.unlink()
        name.symlink_to((streams / f"oci-layer-{second}").readlink())
        assert repository.has_layer(first)
        assert not repository.verify_layer(first)
        assert not repository.has_layer(first)
        repository.import_layer(layer_stream(image.layers[0]))
        assert repository.has_layer(first)
        assert repository.verify_layer(first)
        assert repository.verify_layer(second)
