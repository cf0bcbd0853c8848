"""The simulators themselves: what they make is what real tools take it for."""

import errno
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from cfs_core.plugin import BytesContent, CfsError, CommandError, HashAlgorithm, RegularFile, walk
from cfs_core.testing import HostCommands, VerifiedLayer
from cfs_testkit.containers import ContainerStore
from cfs_testkit.folders import snapshot
from cfs_testkit.full_disk import full_disk
from cfs_testkit.hostile import bomb, hostile_layers
from cfs_testkit.images import build_image
from cfs_testkit.initrds import cpio
from cfs_testkit.layouts import bootable_image, efi_program, write_layout
from cfs_testkit.memory_transport import MemoryFetcher
from cfs_testkit.scripts import Scripts
from cfs_testkit.trees import image_of, tree_of
from cfs_testkit.verity import verity_digest

EMPTY_SHA256 = "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"
"""What `fsverity digest` prints for an empty file."""


def test_verity_digests_are_the_documented_ones():
    assert verity_digest(b"", HashAlgorithm.SHA256) == EMPTY_SHA256


def test_scripts_record_how_they_were_called(tmp_path):
    scripts = Scripts(tmp_path / "bin")
    scripts.add("greet", 'echo "hello $1"; cat')
    scripts.failing("break", status=7, says="no luck")
    commands = HostCommands(scripts.environ)
    done = commands.run(["greet", "big world"], stdin=b"input")
    assert done.stdout == b"hello big world\ninput"
    with pytest.raises(CommandError, match="exited with 7: no luck"):
        commands.run(["break", "--now"])
    assert scripts.calls == [["greet", "big world"], ["break", "--now"]]


@pytest.mark.parametrize("name", hostile_layers())
def test_core_refuses_hostile_layers_or_keeps_them_inside(name):
    tar = hostile_layers()[name]
    from cfs_core.plugin import Digest

    layer = VerifiedLayer(iter([tar]), Digest.of(tar))
    try:
        paths = [member.entry.path for member in layer.members() if member.entry is not None]
    except CfsError:
        return
    for path in paths:
        assert path.startswith(b"/")
        assert b".." not in path.split(b"/")


def test_a_bomb_is_small_until_it_is_unpacked():
    assert len(bomb(16 << 20)) < 64 * 1024


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EFBIG], ids=["ENOSPC", "EFBIG"])
def test_a_full_disk_takes_nothing_until_there_is_room(tmp_path, error):
    with full_disk(tmp_path / "disk", error) as disk:
        file = disk.path / "file"
        with disk.full():  # noqa: SIM117 - the disk must not be full when pytest writes
            with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
                file.write_bytes(bytes(100_000))
        assert caught.value.errno == error
        file.write_bytes(bytes(100_000))


def test_trees_have_files_and_links():
    tree = tree_of({"/usr/bin/a": "a", "/bin": "-> usr/bin"})
    assert [path for path, node in walk(tree) if isinstance(node, RegularFile)] == [b"/usr/bin/a"]
    assert image_of({"/usr/bin/a": "a", "/bin": "-> usr/bin"}).read("/bin/a") == b"a"


def test_a_memory_transport_says_what_was_fetched():
    image = build_image([{"usr/a": "a"}], labels={"x": "y"})
    transport = MemoryFetcher(image)
    resolved = transport.resolved()
    assert resolved.config.labels == {"x": "y"}
    assert not set(transport.fetched) & set(image.layers)
    assert (
        b"".join(transport.iter_blob(resolved.reference, resolved.manifest.layers[0])) == image.blobs[image.layers[0]]
    )


@pytest.mark.skipif(not shutil.which("cpio"), reason="cpio is not installed")
def test_cpio_reads_our_archives(tmp_path):
    (tmp_path / "x.cpio").write_bytes(cpio({"init": "-> bin/sh", "usr/lib/file": b"content", "dev": None}))
    subprocess.run(["cpio", "-i", "-F", "x.cpio", "--quiet"], cwd=tmp_path, check=True, timeout=30)
    assert (tmp_path / "usr/lib/file").read_bytes() == b"content"
    assert (tmp_path / "init").readlink() == Path("bin/sh")


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_reads_our_layouts(tmp_path):
    image = bootable_image({"usr/lib/x/xx64.efi": efi_program()})
    reference = write_layout(image, tmp_path / "layout")
    done = subprocess.run(["skopeo", "inspect", "--raw", reference], capture_output=True, check=True, timeout=60)
    assert done.stdout == image.manifest


@pytest.mark.skipif(not shutil.which("podman") or os.getuid() != 0, reason="needs podman, as root")
def test_podman_reads_our_store(tmp_path):
    store = ContainerStore(tmp_path / "graph")
    image = build_image([{"etc/x": "below\n", "usr/a": "a"}, {"etc/x": "above\n"}], compression=["gzip", "zstd"])
    identity = store.add(image, "localhost/test:latest")
    before = snapshot(tmp_path / "graph" / "overlay")
    with tempfile.TemporaryDirectory(prefix="kit-") as run:  # podman wants a short path
        done = subprocess.run(
            ["podman", "--root", tmp_path / "graph", "--runroot", run, "--storage-driver", "overlay",
             "images", "--format", "json", "--no-trunc"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (listed,) = json.loads(done.stdout)
    assert listed["Id"].removeprefix("sha256:") == identity
    assert listed["Names"] == ["localhost/test:latest"]
    assert {name: snapshot(tmp_path / "graph" / "overlay").get(name) for name in before} == before


def test_efi_programs_have_the_machine_of_their_architecture():
    assert efi_program("arm64")[0x84:0x86] == b"\x64\xaa"
    assert BytesContent(efi_program()).size > 128
