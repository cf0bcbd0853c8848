import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cfs_core.errors import DiskError, DiskFullError, RefusedError
from cfs_core.interfaces.context import PluginContext
from cfs_core.interfaces.layout import LayoutRequest
from cfs_core.model.action import (
    Attributes,
    CopyObject,
    MakeDirectory,
    MakeSymlink,
    SetEfiVariable,
    WriteBlocks,
    WriteFile,
)
from cfs_core.model.boot import Architecture
from cfs_core.model.content import BytesContent
from cfs_core.model.digest import HashAlgorithm
from cfs_core.model.disk import Location, Volume, VolumeNeed
from cfs_core.system.command import HostCommands
from cfs_core.target.image import ImageTarget
from cfs_core.target.memory import MemoryTarget
from cfs_core.target.partial import PartialFile
from cfs_core.target.read import open_disk

ext4 = pytest.importorskip("cfs_disk.ext4.filesystem")
gpt = pytest.importorskip("cfs_disk.gpt.layout")
vfat = pytest.importorskip("cfs_disk.vfat.filesystem")

MIB = 1 << 20
OBJECT = bytes(range(256)) * 400


class Quiet:
    def debug(self, *_args, **_facts):
        pass

    info = warning = error = start = advance = finish = debug


class Machine:
    """Providers and a plan for one disk."""

    def __init__(self, base: Path, seed: str = "seed") -> None:
        self.base = base
        self.seed = seed
        self.scratch = base / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.commands = HostCommands(os.environ)
        context = PluginContext(
            provider="test",
            commands=self.commands,
            progress=Quiet(),
            log=Quiet(),
            scratch=self.scratch,
            source_date_epoch=1_700_000_000,
            seed=seed,
        )
        self.layout = gpt.GptLayout({"boot_volume_mib": 40})
        self.by_name = {"ext4": ext4.Ext4Filesystem(context), "vfat": vfat.VfatFilesystem(context)}
        self.filesystems = {Volume.ESP: self.by_name["vfat"], Volume.ROOT: self.by_name["ext4"]}
        self.partitions = self.layout.plan(
            LayoutRequest(
                needs=(
                    VolumeNeed(volume=Volume.BIOS_BOOT, bytes_needed=1),
                    VolumeNeed(volume=Volume.ESP, bytes_needed=MIB, filesystems=("vfat",)),
                    VolumeNeed(volume=Volume.ROOT, bytes_needed=40 * MIB),
                ),
                architecture=Architecture.AMD64,
                root_filesystem="ext4",
                seed=seed,
            )
        )

    def target(self, name="disk.img", **facts):
        partitions = facts.pop("partitions", self.partitions)
        self.memory = MemoryTarget(partitions, commands=self.commands, scratch=self.scratch)
        return ImageTarget(
            self.base / name,
            self.memory,
            **{"layout": self.layout, "filesystems": self.filesystems, "seed": self.seed, **facts},
        )

    def files(self):
        return sorted(path.name for path in self.base.iterdir() if path.name != "scratch")


def actions():
    def root(path):
        return Location(Volume.ROOT, path)

    return [
        MakeDirectory(why="t", location=root("/composefs"), attributes=Attributes(mode=0o700)),
        CopyObject(
            why="t", location=root("/composefs/objects/ab/cd"), source=BytesContent(OBJECT), verity=HashAlgorithm.SHA512
        ),
        MakeSymlink(why="t", location=root("/composefs/images/x"), target="../objects/ab/cd"),
        WriteFile(why="t", location=Location(Volume.ESP, "/loader/entries/a.conf"), data=b"title a\n"),
        WriteBlocks(why="t", location=Location(Volume.BIOS_BOOT, "/"), offset=5, data=b"core"),
        WriteBlocks(why="t", location=Location(Volume.DISK, "/"), offset=0, data=b"C" * 440),
    ]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def install(machine, name="disk.img", **facts):
    with machine.target(name, **facts) as target:
        for action in actions():
            machine.memory.apply(action)
        target.build()
        target.publish()
    return machine.base / name


def build_with(machine, content, name="disk.img"):
    with machine.target(name) as target:
        machine.memory.apply(CopyObject(why="t", location=Location(Volume.ROOT, "/x"), source=content))
        target.build()


def test_a_disk_reads_back_as_planned(machine):
    path = install(machine)
    assert machine.files() == ["disk.img"]
    assert list(machine.scratch.iterdir()) == []
    with open_disk(path, machine.layout, machine.by_name) as disk:
        assert list(disk.check()) == []
        assert disk.volumes() == {Volume.BIOS_BOOT, Volume.ESP, Volume.ROOT}
        for planned in machine.partitions:
            found = disk.partition(planned.volume)
            assert (found.start, found.size, found.uuid) == (planned.start, planned.size, planned.uuid)
            assert (found.filesystem, found.fs_uuid, found.label) == (
                planned.filesystem,
                planned.fs_uuid,
                planned.label,
            )
        assert disk.read(Location(Volume.ESP, "/loader/entries/a.conf")) == b"title a\n"
        assert disk.read(Location(Volume.ROOT, "/composefs/objects/ab/cd")) == OBJECT
        assert disk.names(Location(Volume.ROOT, "/composefs")) == ("images", "objects")
        assert disk.names(Location(Volume.ROOT, "/none")) == ()
        assert disk.exists(Location(Volume.ROOT, "/composefs/images/x"))
        assert not disk.exists(Location(Volume.BIOS_BOOT, "/x"))
        with pytest.raises(FileNotFoundError):
            disk.read(Location(Volume.ROOT, "/composefs/images/x"))  # links are not followed
        digest = disk.reader(Volume.ROOT).verity_digest("/composefs/objects/ab/cd")
        assert digest.startswith("sha512:")
        assert disk.reader(Volume.BIOS_BOOT) is None
        start = disk.partition(Volume.BIOS_BOOT).start
    with path.open("rb") as file:
        assert file.read(440) == b"C" * 440
        file.seek(start)
        assert file.read(10) == b"\0" * 5 + b"core\0"


def test_it_uses_no_more_space_than_it_must(machine):
    path = install(machine)
    assert path.stat().st_blocks * 512 < 8 * MIB < path.stat().st_size


def test_two_runs_are_byte_identical(machine):
    digests = {hashlib.sha256(install(machine, name).read_bytes()).hexdigest() for name in ("one.img", "two.img")}
    assert len(digests) == 1


def test_nothing_is_there_before_it_is_built(machine):
    with machine.target():
        for action in actions():
            machine.memory.apply(action)
        assert machine.memory.partitions == machine.partitions
        assert machine.files() == []
    assert machine.files() == []


def test_a_name_with_odd_characters(machine):
    path = install(machine, "my disk?x=1 é.img")
    with open_disk(path, machine.layout, machine.by_name) as disk:
        assert list(disk.check()) == []


def test_nothing_is_left_when_building_fails(machine):
    class Broken:
        size = 10

        def open(self):
            msg = "the object is gone"
            raise DiskError(msg)

    with pytest.raises(DiskError, match="the object is gone"):
        build_with(machine, Broken())
    assert machine.files() == []
    assert list(machine.scratch.iterdir()) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_nothing_is_left_after_an_interruption(machine, interruption):
    def interrupted():
        with machine.target() as target:
            target.build()
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert machine.files() == []


def test_a_volume_that_is_too_small_is_named(machine):
    with pytest.raises(DiskFullError, match=r"ROOT has .* bytes, and its contents need") as caught:
        build_with(machine, BytesContent(os.urandom(MIB) * 60))
    assert caught.value.facts["needed"] > 60 * MIB
    assert machine.files() == []


def test_an_existing_file_stays_unless_replacing_is_allowed(machine):
    path = machine.base / "disk.img"
    path.write_bytes(b"precious")
    with pytest.raises(RefusedError, match="exists already"):
        install(machine)
    assert path.read_bytes() == b"precious"
    install(machine, replace=True)
    with open_disk(path, machine.layout, machine.by_name) as disk:
        assert disk.volumes()
    assert machine.files() == ["disk.img"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(machine):
    path = machine.base / "disk.img"
    with machine.target() as target:
        target.build()
        path.write_bytes(b"precious")
        with pytest.raises(RefusedError, match="exists already"):
            target.publish()
    assert path.read_bytes() == b"precious"
    assert machine.files() == ["disk.img"]


def test_bad_destinations_are_refused_before_any_work(tmp_path):
    for path, message in (
        (tmp_path, "not a regular file"),
        (tmp_path / "none" / "disk.img", "no directory"),
        (Path("/dev/null"), "not a regular file"),
    ):
        with pytest.raises(RefusedError, match=message):
            ImageTarget.check_destination(path, replace=True)
    device = next(
        (path for path in (Path("/dev/vda"), Path("/dev/sda"), Path("/dev/loop0")) if path.is_block_device()), None
    )
    if device is not None:
        with pytest.raises(RefusedError, match="block device"):
            ImageTarget.check_destination(device, replace=True)


def test_efi_variables_are_refused(machine):
    with machine.target() as target:
        machine.memory.apply(SetEfiVariable(why="t", name="BootOrder", guid="g", data=b""))
        with pytest.raises(RefusedError, match="BootOrder"):
            target.build()
    assert machine.files() == []


def test_publish_needs_a_build(machine):
    with machine.target() as target, pytest.raises(DiskError, match="no built disk"):
        target.publish()


def test_stale_files_of_dead_runs_go_and_those_of_living_runs_stay(tmp_path):
    final = tmp_path / "disk.img"
    dead = tmp_path / ".cfs-0123456789abcdef.partial"
    dead.write_bytes(b"x")
    unrelated = [tmp_path / name for name in (".cfs-notours.partial", ".disk.img.0123abcd.partial")]
    for path in unrelated:
        path.write_bytes(b"x")
    link = tmp_path / ".cfs-aaaaaaaaaaaaaaaa.partial"
    link.symlink_to(unrelated[0])
    with PartialFile(final) as living:
        assert not dead.exists()
        with PartialFile(final) as second:
            assert living.path.exists()
            assert second.path != living.path
        assert living.path.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*unrelated, link])


KILLED = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
sys.path.insert(0, {here!r})
from pathlib import Path
from test_target_image import Machine, actions, install
from cfs_core.model.action import CopyObject
from cfs_core.model.disk import Location, Volume

class Slow:
    size = 100 << 20
    def open(self):
        return self
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def read(self, size):
        import time
        print("reading", flush=True)
        time.sleep(0.2)
        return b"x" * 100

machine = Machine(Path(sys.argv[1]))
machine.partitions = machine.layout.plan(__import__("cfs_core.interfaces.layout", fromlist=["x"]).LayoutRequest(
    needs=(), architecture="amd64", root_filesystem="ext4", root_size=300 << 20, seed="s"))
with machine.target() as target:
    machine.memory.apply(CopyObject(why="t", location=Location(Volume.ROOT, "/x"), source=Slow()))
    target.build()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_leaves_nothing_after_the_next_run(machine, number):
    script = KILLED.format(here=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(machine.base)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == b"reading\n", process.stderr.read().decode()
        assert any(name.endswith(".partial") for name in machine.files())
        process.send_signal(number)
        process.wait(timeout=70)
    finally:
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()
    if number == signal.SIGINT:
        assert machine.files() == []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        install(machine, replace=True)
        if machine.files() == ["disk.img"]:
            break
        time.sleep(0.1)  # a child of the killed run may hold the file for a moment
    assert machine.files() == ["disk.img"]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="a tmpfs needs root")
def test_a_full_host_filesystem_is_one_clear_error(machine, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(small)], check=False)
    if done.returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        with pytest.raises(DiskFullError, match="free"):
            build_with(machine, BytesContent(os.urandom(MIB) * 20), "small/disk.img")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_not_a_disk_is_one_clear_error(machine):
    path = machine.base / "junk"
    path.write_bytes(bytes(100_000))
    with pytest.raises(DiskError, match="no usable partition table"), open_disk(path, machine.layout, machine.by_name):
        pass


def test_a_filesystem_nobody_knows_is_named(machine):
    path = install(machine)
    known = {"vfat": machine.by_name["vfat"]}
    with open_disk(path, machine.layout, known) as disk, pytest.raises(DiskError, match=r"ROOT of .* holds ext4"):
        disk.reader(Volume.ROOT)
