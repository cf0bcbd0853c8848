import errno
import os
import stat
import subprocess

import pytest

from cfs_core.errors import DiskError, DiskFullError, RefusedError
from cfs_core.model.action import (
    Attributes,
    CopyObject,
    ExchangePaths,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    RemovePath,
    RenamePath,
    RunCommand,
    SetEfiVariable,
    WriteBlocks,
    WriteFile,
)
from cfs_core.model.content import BytesContent
from cfs_core.model.digest import HashAlgorithm
from cfs_core.model.disk import Location, Volume
from cfs_core.model.tree import SpecialKind
from cfs_core.system.command import HostCommands
from cfs_core.target.execute import apply
from cfs_core.target.memory import MemoryTarget
from cfs_core.target.mounted import MountedTarget
from cfs_core.target.mounted_raw import RawPlaces

OWN = {"uid": os.geteuid(), "gid": os.getegid()}


def at(path, volume=Volume.ROOT):
    return Location(volume, path)


def write(path, data=b"", **attributes):
    return WriteFile(why="t", location=at(path), data=data, attributes=Attributes(**{**OWN, **attributes}))


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def target(root):
    return MountedTarget({Volume.ROOT: root}, commands=HostCommands(os.environ))


def names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


ACTIONS = [
    MakeDirectory(why="t", location=at("/d"), attributes=Attributes(mode=0o750, **OWN)),
    write("/d/file", b"one", mode=0o640, mtime_sec=5, mtime_nsec=6),
    MakeHardLink(why="t", location=at("/d/hard"), existing=at("/d/file")),
    MakeSymlink(why="t", location=at("/deep/er/link"), target="../x", attributes=Attributes(mode=0o777, **OWN)),
    MakeSpecial(why="t", location=at("/d/fifo"), kind=SpecialKind.FIFO, attributes=Attributes(mode=0o600, **OWN)),
    CopyObject(why="t", location=at("/d/file"), source=BytesContent(b"two" * 1_000_000), attributes=Attributes(**OWN)),
    write("/staged/a.conf", b"new"),
    write("/entries/b.conf", b"old"),
    ExchangePaths(why="t", a=at("/entries"), b=at("/staged")),
    RemovePath(why="t", location=at("/staged")),
    RemovePath(why="t", location=at("/never/there")),
    RenamePath(why="t", source=at("/d/hard"), location=at("/moved/hard")),
]


def test_it_does_what_memory_does(target, root):
    memory = MemoryTarget()
    for action in ACTIONS:
        target.apply(action)
        memory.apply(action)
        assert names(root) == [path[1:] for path in memory.contents(Volume.ROOT)]
    for path in ("/d/file", "/moved/hard", "/entries/a.conf"):
        assert target.read(at(path)) == memory.read(at(path))
    assert target.names(at("/d")) == memory.names(at("/d"))
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o750
    hard = (root / "moved/hard").stat()
    assert (stat.S_IMODE(hard.st_mode), hard.st_mtime_ns) == (0o640, 5 * 10**9 + 6)
    assert (root / "deep/er/link").readlink().as_posix() == "../x"
    assert stat.S_ISFIFO((root / "d/fifo").stat().st_mode)


def test_reading_follows_no_links(target, root, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"s")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "file").symlink_to(tmp_path / "outside/secret")
    os.mkfifo(root / "fifo")
    for path in ("/out/secret", "/file", "/none", "/out", "/fifo"):
        with pytest.raises(FileNotFoundError):
            target.read(at(path))
    assert target.names(at("/out")) == ()
    assert target.exists(at("/out"))
    assert not target.exists(at("/out/secret"))


@pytest.mark.parametrize(
    "action",
    [
        write("/out/x"),
        MakeDirectory(why="t", location=at("/out/x")),
        MakeSymlink(why="t", location=at("/out/x"), target="y"),
        RemovePath(why="t", location=at("/out/kept")),
        RenamePath(why="t", source=at("/own"), location=at("/out/x")),
        RenamePath(why="t", source=at("/out/kept"), location=at("/x")),
        ExchangePaths(why="t", a=at("/own"), b=at("/out/kept")),
        MakeHardLink(why="t", location=at("/x"), existing=at("/out/kept")),
    ],
)
def test_no_action_leaves_its_volume_through_a_link(target, root, tmp_path, action):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"k")
    (root / "out").symlink_to(outside)
    (root / "own").write_bytes(b"o")
    with pytest.raises(DiskError) as caught:
        target.apply(action)
    assert "does not follow" in caught.value.hint
    assert names(outside) == ["kept"]
    assert names(root) == ["out", "own"]


def test_removing_a_link_leaves_what_it_points_to(target, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"k")
    (root / "d").mkdir()
    (root / "d/out").symlink_to(outside)
    target.apply(RemovePath(why="t", location=at("/d")))
    assert names(root) == []
    assert names(outside) == ["kept"]


def test_a_failed_write_changes_nothing(target, root):
    class Short:
        size = 10

        def open(self):
            return BytesContent(b"abc").open()

    target.apply(write("/f", b"old"))
    with pytest.raises(DiskError, match="not the 10 bytes"):
        target.apply(CopyObject(why="t", location=at("/f"), source=Short()))
    assert target.read(at("/f")) == b"old"
    assert names(root) == ["f"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (write("/d"), "directory"),
        (write("/f/x"), "Not a directory"),
        (write("/../x"), "normalised"),
        (write("/"), "root of a volume"),
        (RemovePath(why="t", location=at("/")), "root of a volume"),
        (RenamePath(why="t", source=at("/none"), location=at("/x")), "No such file"),
        (ExchangePaths(why="t", a=at("/f"), b=at("/none")), "No such file"),
        (WriteFile(why="t", location=at("/x", Volume.ESP), data=b""), "not mounted"),
    ],
)
def test_failures_are_disk_errors_and_leave_no_litter(target, root, action, message):
    (root / "d/e").mkdir(parents=True)
    (root / "f").write_bytes(b"f")
    with pytest.raises(DiskError, match=message):
        target.apply(action)
    assert names(root) == ["d", "d/e", "f"]


def test_blocks_and_firmware_variables_go_where_they_were_told(root, tmp_path):
    blocks = WriteBlocks(why="boot code", location=at("/", Volume.DISK), offset=3, data=b"code")
    variable = SetEfiVariable(why="boot order", name="BootOrder", guid="g", data=b"\1\0")
    plain = MountedTarget({Volume.ROOT: root})
    for action in (blocks, variable):
        with pytest.raises(RefusedError):
            plain.apply(action)
    (tmp_path / "disk").write_bytes(bytes(10))
    (tmp_path / "efivars").mkdir()
    raw = RawPlaces({Volume.DISK: tmp_path / "disk"}, tmp_path / "efivars")
    told = MountedTarget({Volume.ROOT: root}, raw=raw)
    told.apply(blocks)
    assert (tmp_path / "disk").read_bytes() == b"\0\0\0code\0\0\0"
    assert told.read(at("/", Volume.DISK)) == b"\0\0\0code\0\0\0"
    with pytest.raises(FileNotFoundError):
        plain.read(at("/", Volume.BIOS_BOOT))
    with pytest.raises(RefusedError, match="partition table"):
        told.apply(WriteBlocks(why="boot code", location=at("/", Volume.DISK), offset=0, data=bytes(441)))
    told.apply(variable)
    assert (tmp_path / "efivars/BootOrder-g").read_bytes() == b"\7\0\0\0\1\0"


def test_together_they_are_durable_at_the_end(root, target, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr("cfs_core.target.mounted.sync_filesystem", synced.append)
    with target.together():
        target.apply(write("/a", b"x"))
        target.apply(MakeSymlink(why="t", location=at("/l"), target="a", attributes=Attributes(**OWN)))
        assert synced == []
    assert synced == [root]
    target.apply(write("/b", b"x"))
    assert len(synced) > 1


def test_commands_write_files(target):
    apply([write("/in", b"x")], target)
    command = RunCommand(
        why="t", argv=("cp", "{reads[0]}", "{writes[0]}"), reads=(at("/in"),), writes=(at("/boot/core.img"),)
    )
    if os.geteuid() == 0:
        target.apply(command)
        assert target.read(at("/boot/core.img")) == b"x"
    to = at("/", Volume.BIOS_BOOT)
    raw = RunCommand(why="t", argv=("cp", "{reads[0]}", "{writes[0]}"), reads=(at("/in"),), writes=(to,), offset=512)
    assert target.resolved(raw) == (WriteBlocks(why="t", location=to, offset=512, data=b"x"),)
    refusing = MountedTarget({}, commands=HostCommands(os.environ), host_tools=False)
    with pytest.raises(RefusedError):
        refusing.apply(command)


def test_verity_is_enabled_or_the_file_is_not_there(target, root):
    action = CopyObject(
        why="t",
        location=at("/object"),
        source=BytesContent(b"x" * 5000),
        verity=HashAlgorithm.SHA512,
        attributes=Attributes(**OWN),
    )
    failure = None
    try:
        target.apply(action)
    except DiskError as error:
        failure = error
    if failure is not None:
        assert "fs-verity" in failure.message
        assert names(root) == []
    else:
        with pytest.raises(OSError, match="not permitted"), (root / "object").open("r+b"):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="a tmpfs needs root")
def test_a_full_volume_and_a_mount_below(root):
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(root)], check=False)
    if done.returncode:
        pytest.skip("cannot mount a tmpfs here")
    target = MountedTarget({Volume.ROOT: root})
    try:
        target.apply(write("/kernel", b"old"))
        with pytest.raises(DiskFullError) as caught:
            target.apply(write("/kernel", bytes(2 << 20)))
        assert caught.value.__cause__.errno == errno.ENOSPC
        assert target.read(at("/kernel")) == b"old"
        assert names(root) == ["kernel"]
        (root / "a/b").mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(root / "a/b")], check=True)
        (root / "a/b/precious").write_bytes(b"p")
        try:
            with pytest.raises(DiskError, match="another filesystem is mounted"):
                target.apply(RemovePath(why="t", location=at("/a")))
            assert names(root) == ["a", "a/b", "a/b/precious", "kernel"]
        finally:
            subprocess.run(["umount", "-l", str(root / "a/b")], check=True)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_in_place_keeps_the_file(target, root):
    target.apply(write("/grubenv", b"old!", mode=0o600))
    os.link(root / "grubenv", root / "same")
    before = (root / "grubenv").stat()
    action = WriteFile(why="t", location=at("/grubenv"), data=b"new!", in_place=True, attributes=Attributes(**OWN))
    target.apply(action)
    after = (root / "grubenv").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert (root / "same").read_bytes() == b"new!"
    memory = MemoryTarget()
    memory.apply(write("/grubenv", b"old!", mode=0o600))
    memory.apply(MakeHardLink(why="t", location=at("/same"), existing=at("/grubenv")))
    memory.apply(action)
    assert memory.read(at("/same")) == b"new!"
    assert memory.contents(Volume.ROOT)["/grubenv"].attributes.mode == 0o600


def test_in_place_needs_a_file_of_that_size(target, root, tmp_path):
    memory = MemoryTarget()
    (tmp_path / "outside").write_bytes(b"keep")
    (root / "link").symlink_to(tmp_path / "outside")
    target.apply(write("/short", b"o"))
    memory.apply(write("/short", b"o"))
    for path in ("/new/file", "/short", "/link"):
        for each in (target, memory):
            action = WriteFile(why="t", location=at(path), data=b"four", in_place=True, attributes=Attributes(**OWN))
            each.apply(action)
            assert each.read(at(path)) == b"four"
    assert (tmp_path / "outside").read_bytes() == b"keep"
    with pytest.raises(DiskError, match="directory"):
        target.apply(WriteFile(why="t", location=at("/new"), data=b"four", in_place=True))


def test_settling_is_harmless_where_it_is_not_possible(target):
    target.apply(write("/f", b"x"))
    target.settle()
    assert target.read(at("/f")) == b"x"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("volume", [Volume.ROOT, Volume.BOOT])
def test_after_settling_a_reader_without_journal_sees_everything(root, tmp_path, volume):
    """debugfs reads as GRUB does: what is in the journal only is not there."""
    image = tmp_path / "fs.img"
    subprocess.run(["truncate", "-s", "32M", image], check=True)
    made = subprocess.run(["mkfs.ext4", "-q", "-J", "size=4", image], check=False, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, root], check=False, capture_output=True)
    if made.returncode or mounted.returncode:
        pytest.skip("cannot mount a file here")
    try:
        target = MountedTarget({volume: root})
        target.apply(WriteFile(why="t", location=at("/loader/entry", volume), data=b"complete"))
        target.settle()
        argv = ["debugfs", "-R", "cat /loader/entry", image]
        assert subprocess.run(argv, check=True, capture_output=True).stdout == b"complete"
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)
