import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest_disk import EPOCH, Tree, partition_of, pattern

from cfs_core.plugin import (
    BytesContent,
    CopyObject,
    DiskError,
    DiskFullError,
    HashAlgorithm,
    Location,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    SpecialKind,
    Volume,
    WriteFile,
    read_all,
)
from cfs_disk.ext4.filesystem import Ext4Filesystem
from cfs_disk.ext4.nodes import collect
from cfs_disk.ext4.tools import Ext4Tools

ROUTES = [pytest.param(True, id="tar"), pytest.param(False, id="staging")]
pytestmark = pytest.mark.skipif(shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin") is None, reason="e2fsprogs")


def build(context, make_region, tree, *, prefer_tar=None, size=None, name="disk.img"):
    filesystem = Ext4Filesystem(context, prefer_tar=prefer_tar is not False)
    if prefer_tar and not filesystem._reads_tar():
        pytest.skip("this mkfs.ext4 does not read tar streams")
    region = make_region(size or filesystem.bytes_needed(tree.contents), name=name)
    filesystem.build(tree.contents, partition_of(region), region)
    return filesystem, region


def facts_of(reader, path):
    inode = reader.lookup(path)
    return inode.mode, inode.uid, inode.gid, inode.mtime, reader.xattrs(inode), inode.links, inode.rdev


@pytest.mark.parametrize("prefer_tar", ROUTES)
def test_everything_arrives_as_it_was_wanted(context, make_region, odd_tree, prefer_tar):
    filesystem, region = build(context, make_region, odd_tree, prefer_tar=prefer_tar)
    assert list(filesystem.check(region)) == []
    wanted = collect(odd_tree.contents, EPOCH)
    links = dict(wanted.links)
    with filesystem.reader(region) as reader:
        for node in wanted.nodes:
            path = node.path.decode("utf-8", "surrogateescape")
            mode, uid, gid, mtime, xattrs, count, rdev = facts_of(reader, path)
            assert (mode, uid, gid, mtime) == (node.mode, node.uid, node.gid, node.mtime), path
            assert xattrs == node.xattrs, path
            if not stat.S_ISDIR(mode):
                assert count == 1 + sum(existing == node.path for existing in links.values()), path
            if node.content is not None:
                with reader.open(path) as file:
                    assert file.read() == read_all(node.content), path
            if stat.S_ISLNK(mode):
                assert reader.read_link(path).encode("utf-8", "surrogateescape") == node.target
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                assert rdev == node.rdev
            if stat.S_ISREG(mode):
                digest = reader.verity_digest(path)
                assert (digest is None) == (node.verity is None)
                assert node.verity is None or reader.verify_verity(path) == []
        for name, existing in links.items():
            assert reader.lookup(os.fsdecode(name)).number == reader.lookup(os.fsdecode(existing)).number
        for path in ("/", "/d", "/many"):
            depth = [
                other for other in odd_tree.contents if other.rpartition("/")[0] == path.rstrip("/") and other != "/"
            ]
            assert set(reader.names(path)) - {"lost+found"} == {other.rpartition("/")[2] for other in depth} - {
                "lost+found"
            }


@pytest.mark.parametrize("prefer_tar", ROUTES)
def test_two_runs_are_byte_identical(context, make_region, odd_tree, prefer_tar):
    digests = []
    for name in ("one.img", "two.img"):
        _, region = build(context, make_region, odd_tree, prefer_tar=prefer_tar, name=name)
        digests.append(hashlib.sha256(region.path.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_another_seed_gives_other_identifiers(context, make_region):
    tree = Tree()
    tree.file("/a", b"a")
    images = []
    for seed in ("one", "two"):
        region = make_region(Ext4Filesystem(context).bytes_needed(tree.contents), name=f"{seed}.img")
        filesystem = Ext4Filesystem(replace(context, seed=seed))
        filesystem.build(tree.contents, replace(partition_of(region), fs_uuid=None), region)
        with filesystem.reader(region) as reader:
            images.append(reader.superblock.uuid)
    assert images[0] != images[1]


@pytest.mark.skipif(shutil.which("fsverity") is None, reason="fsverity-utils not installed")
def test_digests_are_those_of_fsverity(context, make_region, tmp_path):
    tree = Tree()
    sizes = (0, 1, 4096, 4097, 524_288, 524_289, 5_000_000)
    for size in sizes:
        for algorithm in HashAlgorithm:
            tree.file(f"/{size}-{algorithm}", pattern(size), algorithm)
    filesystem, region = build(context, make_region, tree)
    with filesystem.reader(region) as reader:
        for size in sizes:
            for algorithm in HashAlgorithm:
                sample = tmp_path / "sample"
                sample.write_bytes(pattern(size))
                told = subprocess.run(
                    ["fsverity", "digest", f"--hash-alg={algorithm}", "--compact", str(sample)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.strip()
                assert reader.verity_digest(f"/{size}-{algorithm}") == f"{algorithm}:{told}"


def test_debugfs_sees_the_same(context, make_region, odd_tree, tmp_path):
    _, region = build(context, make_region, odd_tree)
    device = f"{region.path}?offset={region.offset}"

    def ask(request):
        done = context.commands.run(["debugfs", "-R", request, device])
        return done.stdout.decode(errors="surrogateescape")

    text = ask("stat /d/null")
    assert "Type: character special" in text
    assert "Device major/minor number: 01:03" in text
    text = ask("stat /d/pattern-600000-sha512")
    assert "Flags: 0x180000" in text
    assert "Size: 600000" in text
    assert "Links: 2" in text
    assert "User: 70000" in ask("stat /d")
    context.commands.run(["debugfs", "-R", f"dump /d/pattern-600000-sha256 {tmp_path}/dumped", device])
    assert (tmp_path / "dumped").read_bytes() == pattern(600_000)


@pytest.mark.parametrize("where", ["data", "tree", "descriptor", "tail"])
def test_one_flipped_byte_is_found(context, make_region, where):
    tree = Tree()
    data = os.urandom(300_000)
    tree.file("/object", data, HashAlgorithm.SHA256)
    filesystem, region = build(context, make_region, tree)
    with filesystem.reader(region) as reader:
        start = -(-len(data) // 65536) * 65536
        extents = reader.extents(reader.lookup("/object"))
        needle = {"data": 123_456, "tree": start + 700, "descriptor": start + 4096 * 2 + 9, "tail": 300_001}[where]
        if where == "descriptor":
            needle = (extents[-1][0] + extents[-1][1]) * 4096 - 4096 + 20
        place = next(
            (physical * 4096 + needle - logical * 4096)
            for logical, length, physical in extents
            if logical * 4096 <= needle < (logical + length) * 4096
        )
        before = reader.verity_digest("/object")
    with region.path.open("r+b") as file:
        file.seek(region.offset + place)
        old = file.read(1)[0]
        file.seek(region.offset + place)
        file.write(bytes([old ^ 1]))
    with filesystem.reader(region) as reader:
        try:
            problems = reader.verify_verity("/object")
            changed = reader.verity_digest("/object") != before
        except DiskError as error:
            problems, changed = [error], True
        assert problems
        assert changed == (where == "descriptor")
    tree_checked = list(filesystem.check(region))
    assert bool(tree_checked) == (where != "data")  # the data's own check needs to know the digest that was meant


def test_a_flipped_byte_names_its_block(context, make_region):
    tree = Tree()
    tree.file("/object", os.urandom(300_000), HashAlgorithm.SHA512)
    filesystem, region = build(context, make_region, tree)
    with filesystem.reader(region) as reader:
        logical, _, physical = reader.extents(reader.lookup("/object"))[0]
    assert logical == 0
    with region.path.open("r+b") as file:
        file.seek(region.offset + (physical + 7) * 4096 + 5)
        file.write(b"!?")
    with filesystem.reader(region) as reader:
        (problem,) = reader.verify_verity("/object")
    assert problem.code == "verity.data"
    assert problem.message.endswith("block 7")


def test_flipped_filesystem_metadata_is_found(context, make_region):
    tree = Tree()
    tree.file("/object", b"x" * 5000)
    filesystem, region = build(context, make_region, tree)
    with region.path.open("r+b") as file:
        file.seek(region.offset + 1024 + 120)
        file.write(b"Z")
    assert list(filesystem.check(region))


def test_too_small_is_disk_full_with_numbers(context, make_region):
    tree = Tree()
    tree.file("/big", bytes(range(256)) * 4096 * 40)
    with pytest.raises(DiskFullError) as caught:
        build(context, make_region, tree, size=32 << 20)
    assert caught.value.code == "disk.full"
    assert caught.value.facts["needed"] > caught.value.facts["available"] == 32 << 20


@pytest.mark.parametrize("count", [1, 300, 4000])
def test_the_estimate_suffices_and_is_not_wasteful(context, make_region, count):
    tree = Tree()
    tree.directory("/o")
    for number in range(count):
        tree.file(f"/o/{number:0128x}", pattern(1 + number * 37 % 9000, number), HashAlgorithm.SHA512)
    filesystem, region = build(context, make_region, tree)
    with filesystem.reader(region) as reader:
        block = reader.superblock
        assert block.free_blocks * 4096 < 0.25 * region.size + (16 << 20)
        assert block.free_inodes > 0


def test_incompressible_large_file_fits_the_estimate(context, make_region):
    tree = Tree()
    tree.file("/big", os.urandom(1 << 20) * 150, HashAlgorithm.SHA512)
    filesystem, region = build(context, make_region, tree)
    assert region.size < (150 << 20) * 1.35
    assert list(filesystem.check(region)) == []


def test_a_content_that_shrinks_is_an_error(context, make_region):
    class Liar:
        size = 5000

        def open(self):
            return BytesContent(b"short").open()

    tree = Tree()
    tree.add(CopyObject, "/liar", source=Liar(), verity=HashAlgorithm.SHA256)
    for prefer_tar in (True, False):
        with pytest.raises(DiskError, match="not the 5000 bytes"):
            build(context, make_region, tree, prefer_tar=prefer_tar)
        assert not [path for path in context.scratch.iterdir() if path.is_dir()]


def test_a_failing_source_passes_its_own_error_on(context, make_region):
    class Broken:
        size = 5000

        def open(self):
            msg = "object is damaged"
            raise DiskError(msg)

    tree = Tree()
    tree.add(CopyObject, "/broken", source=Broken())
    with pytest.raises(DiskError, match="object is damaged"):
        build(context, make_region, tree)


def test_a_socket_takes_the_staging_route(context, make_region):
    tree = Tree()
    tree.add(MakeSpecial, "/socket", kind=SpecialKind.SOCKET)
    filesystem, region = build(context, make_region, tree)
    with filesystem.reader(region) as reader:
        assert stat.S_ISSOCK(reader.lookup("/socket").mode)
    assert list(filesystem.check(region)) == []


def one(kind, path, **facts):
    return {path: kind(why="test", location=Location(Volume.ROOT, path), **facts)}


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (one(WriteFile, "/a/b", data=b""), "before its parent"),
        (one(WriteFile, "/" + "x" * 256, data=b""), "not a path"),
        (one(WriteFile, "/..", data=b""), "not a path"),
        (one(WriteFile, "relative", data=b""), "not a path"),
        (one(WriteFile, "/", data=b""), "root"),
        (one(WriteFile, "/\ud800", data=b""), "not a file name"),
        (one(MakeSymlink, "/l", target="x" * 4096), "4096 bytes"),
        (one(MakeSymlink, "/l", target=""), "0 bytes"),
        (one(MakeHardLink, "/l", existing=Location(Volume.ROOT, "/none")), "hard link"),
    ],
)
def test_what_ext4_cannot_hold_is_named(context, contents, message):
    with pytest.raises(DiskError, match=message):
        Ext4Filesystem(context).bytes_needed(contents)


def test_too_large_attributes_are_named(context):
    tree = Tree()
    tree.file("/a", b"", xattrs=((b"user.x", b"x" * 4090),))
    with pytest.raises(DiskError, match="too large"):
        Ext4Filesystem(context).bytes_needed(tree.contents)
    tree.file("/a", b"", xattrs=((b"strange.x", b"x"),))
    with pytest.raises(DiskError, match="does not know"):
        Ext4Filesystem(context).bytes_needed(tree.contents)


def test_a_missing_tool_is_a_finding(context):
    class Nothing:
        def find(self, name):
            return None

    findings = Ext4Filesystem(replace(context, commands=Nothing())).check_host()
    assert findings[0].code == "disk.tool-missing"
    assert "e2fsprogs" in findings[0].hint


def test_the_host_is_new_enough(context):
    assert Ext4Filesystem(context).check_host() == []
    assert Ext4Tools(context.commands, context.scratch).version() >= (1, 47, 0)


def test_features_are_those_old_boot_loaders_read(context, make_region):
    tree = Tree()
    tree.directory("/boot")
    _, region = build(context, make_region, tree)
    device = f"{region.path}?offset={region.offset}"
    text = context.commands.run(["debugfs", "-R", "features", device]).stdout.decode()
    assert "verity" in text
    assert "metadata_csum_seed" not in text
    assert "orphan_file" not in text


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from conftest_disk import Tree, partition_of, pattern, quiet_context
from cfs_core.plugin import HashAlgorithm, MakeSpecial, Region, SpecialKind
from cfs_disk.ext4.filesystem import Ext4Filesystem
tree = Tree()
tree.directory("/d", mode=0o700, uid=0, gid=0)
tree.file("/d/secret", pattern(70000), HashAlgorithm.SHA512, mode=0o400, xattrs=((b"security.selinux", b"shadow_t"),))
tree.add(MakeSpecial, "/d/dev", kind=SpecialKind.CHAR, rdev=0x105)
base = Path(sys.argv[1])
filesystem = Ext4Filesystem(quiet_context(base), prefer_tar=sys.argv[2] == "tar")
size = filesystem.bytes_needed(tree.contents)
with open(base / "disk.img", "wb") as file:
    file.truncate(size)
region = Region(path=base / "disk.img", offset=0, size=size)
filesystem.build(tree.contents, partition_of(region), region)
assert not filesystem.check(region), filesystem.check(region)
with filesystem.reader(region) as reader:
    inode = reader.lookup("/d/secret")
    assert (inode.uid, inode.gid, inode.mode & 0o7777) == (0, 0, 0o400)
    assert reader.xattrs(inode) == {{b"security.selinux": b"shadow_t"}}
print("built", size)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root to become someone else")
@pytest.mark.parametrize("route", ["tar", "staging"])
def test_an_ordinary_user_builds_it(route):
    base = Path(tempfile.mkdtemp(prefix="cfs-user-"))
    try:
        base.chmod(0o777)
        script = SCRIPT.format(here=str(Path(__file__).parent))
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
        if subprocess.run([*user, sys.executable, "-c", ""], check=False, capture_output=True).returncode:
            pytest.skip(f"an ordinary user cannot run {sys.executable}")
        argv = [*user, sys.executable, "-c", script, str(base), route]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("built")
    finally:
        shutil.rmtree(base)


@pytest.fixture
def mounted(tmp_path):
    point = tmp_path / "mounted"
    point.mkdir()
    made = []

    def mount(region):
        done = subprocess.run(
            ["mount", "-o", f"loop,ro,offset={region.offset},sizelimit={region.size}", str(region.path), str(point)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"cannot loop-mount here: {done.stderr.strip()}")
        made.append(point)
        return point

    yield mount
    for place in made:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("prefer_tar", ROUTES)
def test_the_kernel_sees_the_same(context, make_region, odd_tree, mounted, prefer_tar):
    _, region = build(context, make_region, odd_tree, prefer_tar=prefer_tar)
    top = os.fsencode(mounted(region))
    for node in collect(odd_tree.contents, EPOCH).nodes:
        place = top + node.path
        found = os.lstat(place)
        assert (found.st_mode, found.st_uid, found.st_gid) == (node.mode, node.uid, node.gid), node.path
        assert found.st_mtime_ns == node.mtime[0] * 10**9 + node.mtime[1], node.path
        xattrs = {
            name.encode(): os.getxattr(place, name, follow_symlinks=False)
            for name in os.listxattr(place, follow_symlinks=False)
        }
        assert xattrs == node.xattrs, node.path
        if node.content is not None and node.verity is None:  # a kernel without fs-verity refuses to open the others
            assert Path(os.fsdecode(place)).read_bytes() == read_all(node.content), node.path
        if node.target:
            assert os.readlink(place) == node.target  # noqa: PTH115 - bytes
        if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
            assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == node.device
    names = os.listdir(top + b"/many")  # noqa: PTH208 - bytes
    assert sorted(names) == sorted(os.fsencode(path)[6:] for path in odd_tree.contents if path.startswith("/many/"))


@pytest.mark.parametrize("prefer_tar", ROUTES)
def test_the_scratch_directory_is_reckoned_with(context, prefer_tar):
    tree = Tree()
    tree.directory("/")
    for number in range(10):
        tree.file(f"/{number}", bytes(10 << 20), verity=HashAlgorithm.SHA512)
    filesystem = Ext4Filesystem(context, prefer_tar=prefer_tar)
    if prefer_tar and not filesystem._reads_tar():
        pytest.skip("this mkfs.ext4 does not read tar streams")
    needed = filesystem.scratch_needed(tree.contents)
    assert needed < 8 << 20 if prefer_tar else (100 << 20) < needed < (110 << 20)
    tree.add(MakeSpecial, "/socket", kind=SpecialKind.SOCKET)
    assert filesystem.scratch_needed(tree.contents) > 100 << 20
