"""A target in memory above another one, and what actions do to what is there."""

import pytest

from cfs_core.model.action import (
    Effect,
    ExchangePaths,
    MakeDirectory,
    MakeHardLink,
    RemovePath,
    RenamePath,
    RunCommand,
    WriteFile,
)
from cfs_core.model.disk import Location, Volume
from cfs_core.target.effect import effect_of, with_effect
from cfs_core.target.memory import MemoryTarget
from cfs_core.target.overlay import OverlayTarget

FOLDER = Location(Volume.ESP, "/d")


def write(name, text, **more):
    return WriteFile(location=FOLDER / name, data=text.encode(), why="t", **more)


@pytest.fixture
def below():
    target = MemoryTarget()
    for name in ("a", "b", "sub/x", "sub/y"):
        target.apply(write(name, name))
    return target


def files(target, folder=FOLDER):
    """All files below *folder* and what is in them."""
    found = {}
    for name in target.names(folder):
        here = folder / name
        below = files(target, here)
        found |= below or {here.path: target.read(here).decode()}
    return found


ACTIONS = {
    "writes": [write("c", "new"), write("b", "new"), write("sub/z", "new")],
    "removal": [RemovePath(location=FOLDER / "a", why="t")],
    "removal of a directory": [RemovePath(location=FOLDER / "sub", why="t"), write("sub/z", "new")],
    "rename": [RenamePath(source=FOLDER / "a", location=FOLDER / "b", why="t")],
    "rename of a directory": [RenamePath(source=FOLDER / "sub", location=FOLDER / "moved", why="t")],
    "exchange": [ExchangePaths(a=FOLDER / "a", b=FOLDER / "sub", why="t"), write("a/x", "new")],
    "hard link": [MakeHardLink(location=FOLDER / "l", existing=FOLDER / "a", why="t"), write("a", "new")],
    "in place": [write("a", "A", in_place=True)],
    "removed and made again": [RemovePath(location=FOLDER / "a", why="t"), write("a", "new")],
    "directory": [MakeDirectory(location=FOLDER / "sub", why="t")],
}


@pytest.mark.parametrize("actions", ACTIONS.values(), ids=ACTIONS)
def test_an_overlay_is_what_will_be_there(below, actions):
    before = files(below)
    over, direct = OverlayTarget(below), below.copy()
    for action in actions:
        over.apply(action)
        direct.apply(action)
    assert files(over) == files(direct)
    assert files(over.copy()) == files(direct)
    assert files(below) == before
    assert over.volumes() == {Volume.ESP}
    for name in ("a", "b", "c", "sub", "sub/x", "moved/x"):
        location = FOLDER / name
        assert over.exists(location) == direct.exists(location)


def test_what_is_gone_cannot_be_read(below):
    over = OverlayTarget(below)
    over.apply(RemovePath(location=FOLDER / "sub", why="t"))
    for name in ("sub/x", "none"):
        with pytest.raises(FileNotFoundError):
            over.read(FOLDER / name)
    assert over.read(FOLDER / "a") == b"a"


def test_core_says_what_an_action_does(below):
    assert effect_of(write("c", ""), below) is Effect.ADD
    assert effect_of(write("a", ""), below) is Effect.REPLACE
    assert effect_of(RemovePath(location=FOLDER / "a", why="t"), below) is Effect.DESTROY
    elsewhere = WriteFile(location=Location(Volume.XBOOTLDR, "/d/a"), data=b"", why="t")
    assert effect_of(elsewhere, below) is Effect.ADD
    for name, effect in (("a", Effect.REPLACE), ("c", Effect.ADD)):
        command = RunCommand(argv=("true",), writes=(FOLDER / name,), why="t")
        assert with_effect(command, below).effect is effect
    told = with_effect(write("a", "x"), below)
    assert told.effect is Effect.REPLACE
    assert (told.data, told.location) == (b"x", FOLDER / "a")


def test_a_plugin_cannot_say_it():
    with pytest.raises(TypeError, match="effect"):
        write("a", "x", effect=Effect.READ)
