"""A repository that somebody else prepared: not used, or hashed again; nothing in it leads out of it."""

from __future__ import annotations

import os
import shutil

import pytest
from builders import bootable

from cfs_testkit.builders.oci import File

EVIL = b"\x7fELF" + b"evil" * 2000


@pytest.fixture
def good(tmp_path):
    return bootable.layout(tmp_path / "good", latest=bootable.image()) + ":latest"


@pytest.fixture
def repo(cfs, good, tmp_path):
    """A repository in which the stream of the good image's layer is that of another one."""
    swapped = bootable.image(**{"usr/bin/tool": File(EVIL, mode=0o4755)})
    evil = bootable.layout(tmp_path / "evil", latest=swapped) + ":latest"
    path = tmp_path / "repo"
    cfs.ok("image", "pull", good, "--repo", path)
    streams = path / "streams"
    before = {each.name: str(each.readlink()) for each in streams.glob("oci-layer-*")}
    cfs.ok("image", "pull", evil, "--repo", path)
    (other,) = {str(each.readlink()) for each in streams.glob("oci-layer-*")} - set(before.values())
    (name,) = before
    (streams / name).unlink()
    (streams / name).symlink_to(other)
    return path


def open_to_all(path):
    path.chmod(0o777)


def owned_by_another(path):
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(path, 4711, 4711)


def below_a_directory_of_another(path):
    (path.parent / "shared").mkdir()
    path.rename(path.parent / "shared" / "repo")
    path.symlink_to("shared/repo")
    (path.parent / "shared").chmod(0o777)


def with_a_directory_open_to_all(path):
    (path / "streams").chmod(0o777)


@pytest.mark.parametrize(
    "prepared", [open_to_all, owned_by_another, below_a_directory_of_another, with_a_directory_open_to_all]
)
def test_it_is_refused_and_nothing_is_written(cfs, good, repo, tmp_path, prepared):
    prepared(repo)
    before = sorted(tmp_path.rglob("*"))
    disk = tmp_path / "disk.img"
    done = cfs.install(good, disk, "--repo", repo)
    assert done.returncode == 9, done.stderr
    assert "not only yours" in done.stderr
    assert "repo.trust = any" in done.stderr
    assert "[storage.not-own]" in done.stderr
    for command in (["image", "list"], ["image", "pull", good], ["repo", "fsck"], ["repo", "init"]):
        done = cfs(*command, "--repo", repo)
        assert "[storage.not-own]" in done.stderr, command
    assert sorted(tmp_path.rglob("*")) == before


def test_where_any_is_trusted_layers_are_hashed_again(cfs, good, repo, tmp_path):
    wanted = cfs.ok("image", "digest", good, "--bootable").stdout.strip()
    repo.chmod(0o777)
    disk = tmp_path / "disk.img"
    done = cfs.install(good, disk, "--repo", repo, env={"CFS_REPO_TRUST": "any"})
    assert done.returncode == 0, done.stderr
    assert wanted in cfs.ok("status", disk).stdout + cfs.ok("status", disk, "--format", "json").stdout
    assert EVIL not in disk.read_bytes()


def test_a_pull_hashes_layers_again_in_ones_own(cfs, good, repo):
    wanted = cfs.ok("image", "digest", good, "--bootable").stdout.strip()
    assert wanted in cfs.ok("image", "pull", good, "--repo", repo).stdout
    assert cfs.ok("repo", "fsck", "--repo", repo).stdout == "clean\n"


def test_a_changed_object_is_noticed_by_every_reader(cfs, good, tmp_path):
    path = tmp_path / "repo"
    cfs.ok("image", "pull", good, "--name", "good", "--repo", path)
    tool = bootable.tree()["usr/bin/tool"].data
    (changed,) = [each for each in path.glob("objects/*/*") if each.read_bytes() == tool]
    mode, data = changed.stat().st_mode, bytearray(tool)
    data[100] ^= 1
    changed.unlink()  # a sealed one cannot be written to
    changed.write_bytes(data)
    changed.chmod(mode)
    done = cfs("image", "cat", "good", "/usr/bin/tool", "--repo", path)
    assert done.returncode == 9
    assert "[storage.damaged]" in done.stderr
    assert done.stdout == ""
    cfs.ok("image", "pull", good, "--name", "good", "--repo", path)
    assert changed.read_bytes() == tool
    assert cfs.ok("repo", "fsck", "--repo", path).stdout == "clean\n"


@pytest.mark.parametrize("name", ["streams", "images", "objects", "streams/refs", "streams/refs/oci"])
def test_links_in_place_of_directories_are_not_followed(cfs, good, tmp_path, name):
    path = tmp_path / "repo"
    cfs.ok("image", "pull", good, "--name", "good", "--repo", path)
    outside = tmp_path / "outside"
    (path / name).rename(outside)
    (path / name).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    for command in (["list"], ["pull", good], ["inspect", "good"], ["rm", "good"]):
        done = cfs("image", *command, "--repo", path)
        assert done.returncode == 9, (command, done.stderr)
    assert sorted(outside.rglob("*")) == before


def test_a_link_in_place_of_a_directory_of_objects_is_not_followed(cfs, good, tmp_path):
    path = tmp_path / "repo"
    cfs.ok("image", "pull", good, "--name", "good", "--repo", path)
    shards = sorted(path.glob("objects/*"))
    for shard in shards:
        shutil.move(shard, tmp_path / f"outside-{shard.name}")
        shard.symlink_to(tmp_path / f"outside-{shard.name}")
    assert cfs("image", "cat", "good", "/usr/bin/tool", "--repo", path).returncode == 9
    assert cfs("image", "pull", good, "--repo", path).returncode == 9
    assert cfs("repo", "fsck", "--repo", path).returncode == 9
