import pytest

from cfs_core.errors import CfsError, CommandError, DiskError, RefusedError
from cfs_core.model.action import (
    Attributes,
    CopyObject,
    ExchangePaths,
    MakeDirectory,
    MakeHardLink,
    MakeSymlink,
    RemovePath,
    RenamePath,
    RunCommand,
    SetEfiVariable,
    WriteBlocks,
    WriteFile,
)
from cfs_core.model.content import BytesContent
from cfs_core.model.disk import Location, Partition, Volume
from cfs_core.system.command import HostCommands
from cfs_core.target.execute import apply, first_k
from cfs_core.target.memory import MemoryTarget


def at(path, volume=Volume.ROOT):
    return Location(volume, path)


def write(path, data=b"", volume=Volume.ROOT):
    return WriteFile(why="test", location=at(path, volume), data=data)


def directory(path, **attributes):
    return MakeDirectory(why="test", location=at(path), attributes=Attributes(**{"mode": 0o755, **attributes}))


def rename(source, target):
    return RenamePath(why="test", source=at(source), location=at(target))


def exchange(a, b):
    return ExchangePaths(why="test", a=at(a), b=at(b))


def remove(path):
    return RemovePath(why="test", location=at(path))


def link(path, existing):
    return MakeHardLink(why="test", location=at(path), existing=at(existing))


def target_of(*actions):
    target = MemoryTarget()
    apply(actions, target)
    return target


def paths(target, volume=Volume.ROOT):
    return list(target.contents(volume))


def test_parents_are_made_and_come_first():
    target = target_of(write("/a/b/c", b"c"), write("/a/a"), directory("/a/b", mode=0o700))
    contents = target.contents(Volume.ROOT)
    assert list(contents) == ["/a", "/a/a", "/a/b", "/a/b/c"]
    assert contents["/a/b"].attributes.mode == 0o700
    assert contents["/a"].attributes.mode == 0o755
    assert all(path == action.location.path for path, action in contents.items())
    assert target.read(at("/a/b/c")) == b"c"
    assert target.names(at("/a")) == ("a", "b")
    assert target.names(at("/none")) == target.names(at("/a/a")) == ()
    assert target.exists(at("/a/b"))
    assert not target.exists(at("/a/b/c/d"))


def test_the_root_itself_can_have_attributes():
    assert target_of(directory("/", mode=0o700)).contents(Volume.ROOT)["/"].attributes.mode == 0o700


def test_files_are_replaced_whole():
    target = target_of(write("/f", b"old"), CopyObject(why="t", location=at("/f"), source=BytesContent(b"new")))
    assert target.read(at("/f")) == b"new"


def test_hard_links_share_until_one_is_replaced():
    target = target_of(write("/b", b"shared"), link("/a", "/b"), link("/c", "/a"))
    contents = target.contents(Volume.ROOT)
    assert isinstance(contents["/a"], WriteFile)
    assert contents["/b"].existing == contents["/c"].existing == at("/a")
    target.apply(write("/b", b"other"))
    assert target.read(at("/a")) == b"shared"
    assert isinstance(target.contents(Volume.ROOT)["/b"], WriteFile)


def test_rename_takes_everything_along():
    target = target_of(write("/old/x/y", b"1"), rename("/old", "/new/place"))
    assert paths(target) == ["/new", "/new/place", "/new/place/x", "/new/place/x/y"]
    assert target.contents(Volume.ROOT)["/new/place/x/y"].location == at("/new/place/x/y")
    target.apply(rename("/new/place/x/y", "/new/place/x/y"))
    assert target.read(at("/new/place/x/y")) == b"1"


def test_rename_replaces_a_file_and_an_empty_directory():
    target = target_of(write("/a", b"a"), write("/b", b"b"), rename("/a", "/b"), directory("/d"), write("/e/f"))
    target.apply(rename("/e", "/d"))
    assert target.read(at("/b")) == b"a"
    assert paths(target) == ["/b", "/d", "/d/f"]


def test_exchange_swaps_trees():
    target = target_of(write("/entries/new", b"n"), write("/staged/old", b"o"), exchange("/entries", "/staged"))
    assert paths(target) == ["/entries", "/entries/old", "/staged", "/staged/new"]


def test_remove_takes_trees_and_forgives_absence():
    target = target_of(write("/a/b/c"), remove("/a"), remove("/a"), remove("/x/y"))
    assert paths(target) == []


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ((write("/a"), write("/a/b")), "not a directory"),
        ((directory("/a"), write("/a")), "is a directory"),
        ((write("/a"), directory("/a")), "there is a file"),
        ((link("/a", "/none"),), "no file there"),
        ((directory("/d"), link("/a", "/d")), "no file there"),
        ((rename("/none", "/a"),), "nothing is there"),
        ((rename("/", "/a"),), "root"),
        ((directory("/d"), rename("/d", "/d/e")), "into itself"),
        ((write("/a"), directory("/d"), rename("/a", "/d")), "one is a directory"),
        ((write("/a/x"), write("/b/x"), rename("/a", "/b")), "not empty"),
        ((write("/a"), exchange("/a", "/none")), "both must be there"),
        ((write("/a/b"), exchange("/a", "/a/b")), "inside the other"),
        ((remove("/"),), "root of its volume"),
        ((write("/"),), "root of its volume"),
        ((write("a"),), "normalised"),
        ((write("/a/../b"),), "normalised"),
        ((write("/a//b"),), "normalised"),
        ((write("/a/"),), "normalised"),
        ((write("/a\0"),), "normalised"),
        ((write("/l/x"), MakeSymlink(why="t", location=at("/l2"), target="l"), write("/l2/y")), "not a directory"),
    ],
)
def test_impossible_orders_are_named(actions, message):
    with pytest.raises(DiskError, match=message) as caught:
        target_of(*actions)
    assert "plugin" in caught.value.hint


def test_volumes_do_not_mix():
    target = target_of(write("/a"), write("/b", volume=Volume.ESP))
    assert target.volumes() == {Volume.ROOT, Volume.ESP}
    with pytest.raises(DiskError, match="different volumes"):
        target.apply(RenamePath(why="t", source=at("/a"), location=at("/a", Volume.ESP)))
    with pytest.raises(DiskError, match="different volumes"):
        target.apply(MakeHardLink(why="t", existing=at("/a"), location=at("/a", Volume.ESP)))


def partition(volume, size=1 << 20):
    return Partition(number=1, volume=volume, start=1 << 20, size=size, type_guid="", uuid="", name="")


def test_only_planned_volumes_exist():
    target = MemoryTarget([partition(Volume.ROOT), partition(Volume.BIOS_BOOT, 1000)])
    assert target.volumes() == {Volume.ROOT, Volume.BIOS_BOOT}
    assert target.partition(Volume.ROOT).start == 1 << 20
    assert target.partition(Volume.ESP) is None
    with pytest.raises(DiskError, match="does not exist"):
        target.apply(write("/a", volume=Volume.ESP))
    with pytest.raises(DiskError, match="no filesystem"):
        target.apply(write("/a", volume=Volume.BIOS_BOOT))


def test_blocks_go_to_raw_volumes_and_stay_inside():
    target = MemoryTarget([partition(Volume.BIOS_BOOT, 1000), partition(Volume.ROOT)])

    def blocks(volume, offset, size):
        return WriteBlocks(why="t", location=at("/", volume), offset=offset, data=b"x" * size)

    target.apply(blocks(Volume.BIOS_BOOT, 10, 990))
    target.apply(blocks(Volume.DISK, 0, 440))
    assert target.blocks(Volume.BIOS_BOOT) == ((10, b"x" * 990),)
    for bad in (blocks(Volume.BIOS_BOOT, 11, 990), blocks(Volume.DISK, 1, 440), blocks(Volume.BIOS_BOOT, -1, 2)):
        with pytest.raises(DiskError, match="do not fit"):
            target.apply(bad)
    for bad in (blocks(Volume.ROOT, 0, 1), blocks(Volume.ESP, 0, 1)):
        with pytest.raises(DiskError, match="cannot be written"):
            target.apply(bad)


def test_efi_variables_are_noted():
    target = target_of(SetEfiVariable(why="t", name="BootOrder", guid="g", data=b"\0\0"))
    assert target.efi_variables == {("g", "BootOrder"): b"\0\0"}


def test_what_a_crash_leaves_behind_at_every_step():
    start = target_of(write("/a", b"0"), write("/hard", b"h"), link("/hard2", "/hard"))
    actions = [write("/b", b"1"), rename("/b", "/a"), remove("/hard")]
    states = [(count, paths(state), state.read(at("/a"))) for count, state in first_k(actions, start)]
    assert states == [
        (0, ["/a", "/hard", "/hard2"], b"0"),
        (1, ["/a", "/b", "/hard", "/hard2"], b"0"),
        (2, ["/a", "/hard", "/hard2"], b"1"),
        (3, ["/a", "/hard2"], b"1"),
    ]
    assert start.read(at("/a")) == b"0"


def test_states_are_independent():
    states = [state for _, state in first_k([write("/b")], target_of(write("/a"), link("/l", "/a")))]
    states[0].apply(write("/c"))
    assert paths(states[1]) == ["/a", "/b", "/l"]
    assert isinstance(states[1].contents(Volume.ROOT)["/l"], MakeHardLink)


# --- commands -------------------------------------------------------------------------------------


def command(*argv, reads=(), writes=()):
    return RunCommand(why="make core.img", argv=argv, reads=tuple(map(at, reads)), writes=tuple(map(at, writes)))


@pytest.fixture
def running(tmp_path):
    return MemoryTarget(commands=HostCommands({"PATH": "/usr/bin:/bin"}), scratch=tmp_path)


def test_a_command_reads_and_writes_what_it_declares(running, tmp_path):
    apply([write("/in/a b", b"1"), write("/in/sub/c", b"2"), write("/one", b"3")], running)
    script = 'cat "$1/a b" "$1/sub/c" "$2" > "$3"'
    running.apply(
        command(
            "sh",
            "-c",
            script,
            "sh",
            "{reads[0]}",
            "{reads[1]}",
            "{writes[0]}",
            reads=["/in", "/one"],
            writes=["/out/x"],
        )
    )
    assert running.read(at("/out/x")) == b"123"
    assert list(tmp_path.iterdir()) == []


def test_a_command_can_fill_a_raw_volume(tmp_path):
    target = MemoryTarget(
        [partition(Volume.BIOS_BOOT)], commands=HostCommands({"PATH": "/usr/bin:/bin"}), scratch=tmp_path
    )
    target.apply(
        RunCommand(why="t", argv=("sh", "-c", "echo core > $0", "{writes[0]}"), writes=(at("/", Volume.BIOS_BOOT),))
    )
    assert target.blocks(Volume.BIOS_BOOT) == ((0, b"core\n"),)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (command("false", writes=["/x"]), CommandError, "false exited with 1"),
        (command("true", writes=["/x"]), DiskError, "did not write"),
        (command("cat", "{reads[0]}", reads=["/none"]), DiskError, "reads ROOT:/none, which is not there"),
        (command("cat", "{reads[3]}"), DiskError, r"names \{reads\[3\]\}"),
        (command("no-such-command-here"), CommandError, "not installed"),
        (command("ln", "-s", "/etc/passwd", "{writes[0]}", writes=["/x"]), DiskError, "did not write"),
    ],
)
def test_failing_commands_change_nothing(running, tmp_path, action, error, message):
    with pytest.raises(error, match=message) as caught:
        running.apply(action)
    assert isinstance(caught.value, CfsError)
    assert paths(running) == []
    assert list(tmp_path.iterdir()) == []


def test_braces_of_other_kinds_stay():
    assert target_of(command("echo", "{not a placeholder}", "{0}")).volumes() == frozenset()


def test_host_tools_can_be_forbidden(tmp_path):
    target = MemoryTarget(commands=HostCommands({"PATH": "/bin"}), scratch=tmp_path, host_tools=False)
    with pytest.raises(RefusedError, match=r"install\.host-tools"):
        target.apply(command("touch", str(tmp_path / "ran")))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_only_notes_outputs():
    target = target_of(command("grub-mkimage", "-o", "{writes[0]}", writes=["/boot/core.img"]))
    assert target.read(at("/boot/core.img")) == b""
