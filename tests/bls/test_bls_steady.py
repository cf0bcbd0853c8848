"""Plans tried out in memory."""

import pytest

from cfs_core.bls import default_of, is_steady
from cfs_core.model.action import RenamePath, WriteFile
from cfs_core.model.boot import BootEntry, BootMenu, EntryKind
from cfs_core.model.disk import Location, Volume
from cfs_core.target.memory import MemoryTarget

MENU = Location(Volume.ESP, "/menu")


def write(text, name="menu"):
    return WriteFile(location=Location(Volume.ESP, f"/{name}"), data=text.encode(), why="t")


def entry(letter):
    return BootEntry(deployment_id=letter, kind=EntryKind.BLS, title=letter, version="1", os_id="x")


def read_menu(target):
    """A menu is its letters, then * and the default, then ! and what is started once."""
    text = target.read(MENU).decode() if target.exists(MENU) else ""
    text, _, once = text.partition("!")
    text, _, default = text.partition("*")
    return BootMenu(entries=tuple(map(entry, text)), default=default or None, once=once or None)


@pytest.mark.parametrize(
    ("states", "steady"),
    [
        (["ba", "cba"], True),
        (["ba*a", "cba*a"], True),
        (["ba*a", "ba", "cba*a"], False),
        (["ba*a", "ca*a", "ca*c"], True),
        (["ba*a", "cba", "cba*b"], False),
        (["ba!a", "ba", "ba!b"], True),
        (["ba!a", "ba!c", "ba!b"], False),
        (["ba", "", "b"], False),
        (["", "a", "ba"], True),
    ],
)
def test_only_the_old_or_the_new_default_is_steady(states, steady):
    target = MemoryTarget()
    target.apply(write(states[0]))
    assert is_steady(target, map(write, states[1:]), read_menu) is steady
    assert target.read(MENU).decode() == states[0]


def test_the_first_entry_is_the_default():
    assert default_of(BootMenu(entries=(entry("a"), entry("b")))) == "a"
    assert default_of(BootMenu(entries=(entry("a"), entry("b")), default="b")) == "b"
    assert default_of(BootMenu(entries=())) is None


def test_a_menu_that_is_committed_by_a_rename_is_seen():
    target = MemoryTarget()
    target.apply(write("ba*a"))
    rename = RenamePath(source=Location(Volume.ESP, "/new"), location=MENU, why="t")
    assert is_steady(target, [write("cba*a", "new"), rename], read_menu)
    assert not is_steady(target, [write("cba*c", "new"), rename, write("cba*b")], read_menu)
