"""Boot Loader Specification entries: text, names, versions, the change of entry files."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfs_core.bls import (
    EntryName,
    MenuFile,
    compare_versions,
    edit_entry,
    entry_priorities,
    entry_stem,
    format_entry,
    join_arguments,
    parse_entry,
    plan_entries,
    sort_key,
    split_arguments,
)
from cfs_core.errors import BootError
from cfs_core.model.action import RemovePath
from cfs_core.model.disk import Location, Volume

DIRECTORY = Location(Volume.ESP, "/loader/entries")

FOREIGN = b"""# made by hand\r
title\t Some \xff system
  linux   /vmlinuz
initrd /a.img
initrd /b.img

options root=/dev/sda1   quiet
options "x y"
grub_users $grub_users
lonely
"""


def test_parse_reads_what_loaders_read():
    fields = parse_entry(FOREIGN)
    assert fields.first("title") == "Some \udcff system"
    assert fields.every("initrd") == ("/a.img", "/b.img")
    assert fields.every("options") == ("root=/dev/sda1   quiet", '"x y"')
    assert fields.first("lonely") is None


def test_edit_changes_only_the_named_keys():
    edited = edit_entry(FOREIGN, {"initrd": "/c.img", "options": None, "sort-key": "z"})
    expected = FOREIGN.replace(b"initrd /a.img\ninitrd /b.img\n", b"initrd /c.img\n")
    expected = expected.replace(b'options root=/dev/sda1   quiet\noptions "x y"\n', b"")
    assert edited == expected + b"sort-key z\n"


@given(st.binary(max_size=300))
def test_edit_without_changes_is_the_identity(data):
    assert edit_entry(data, {}) == data


@given(st.lists(st.tuples(st.sampled_from(["title", "linux", "x"]), st.text(min_size=1, max_size=30))))
def test_what_is_formatted_is_parsed(fields):
    wanted = [(key, value) for key, value in fields if value.strip() and value == value.strip() and value.isprintable()]
    assert list(parse_entry(format_entry(wanted))) == wanted


@pytest.mark.parametrize("text", ["x\0y", "x\ny", "", "  ", "\udcff", " x"])
def test_arguments_that_no_line_can_carry_are_refused(text):
    with pytest.raises(BootError, match="argument"):
        join_arguments(["quiet", text])


def test_arguments_split_outside_quotes():
    words = ("quiet", 'a="b c"', '"d e"=f', "ä=$x\\", 'dyndbg="file x +p; y"')
    assert split_arguments(join_arguments(words)) == words
    assert split_arguments('a "unterminated b') == ("a", '"unterminated b')


@pytest.mark.parametrize(
    ("file", "stem", "left", "done"),
    [("a.conf", "a", None, 0), ("a+3.conf", "a", 3, 0), ("a-1+0-3.conf", "a-1", 0, 3), ("a+x.conf", "a+x", None, 0)],
)
def test_entry_names_carry_counters(file, stem, left, done):
    name = EntryName.parse(file)
    assert (name.stem, name.tries_left, name.tries_done) == (stem, left, done)
    assert str(name) == file


def test_versions_never_look_like_counters():
    stem = entry_stem("opensuse-tumbleweed", "13+2", 1)
    assert stem == "bootc_opensuse_tumbleweed-13_2-1"
    assert EntryName.parse(stem + ".conf").tries_left is None


def test_order_names_are_bootcs_for_two_and_grow_for_more():
    assert entry_priorities(1) == (1,)
    assert entry_priorities(2) == (1, 0)
    assert entry_priorities(4) == (3, 2, 1, 0)
    keys = [sort_key("x", rank) for rank in range(30)]
    assert keys[:2] == ["bootc-x-0", "bootc-x-1"]
    assert keys == sorted(keys)


VERSIONS = [
    "",
    "1",
    "01",
    "1.0",
    "1~rc1",
    "1^p",
    "1-2",
    "a",
    "1a",
    "255.4-1.fc40",
    "255~rc2",
    "_1",
    "13",
    "41.2025",
    "-",
    "~",
]


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("a", VERSIONS)
def test_versions_compare_as_systemd_does(a):
    for b in VERSIONS:
        answer = subprocess.run(["systemd-analyze", "compare-versions", "--", a, b], check=False, capture_output=True)
        assert {0: 0, 11: 1, 12: -1}[answer.returncode] == compare_versions(a, b), (a, b)


@given(st.text("01a~^-. ", max_size=6), st.text("01a~^-. ", max_size=6))
def test_version_order_is_antisymmetric(a, b):
    assert compare_versions(a, b) == -compare_versions(b, a)


NAMES = st.sampled_from([DIRECTORY / f"{name}.conf" for name in "abcd"])
TEXTS = st.sampled_from(["A", "B", "C"]).flatmap(
    lambda name: st.binary(max_size=1).map(lambda rest: (name, name.encode() + rest))
)
FILES = st.dictionaries(NAMES, TEXTS, max_size=4)


def menu_files(files):
    return [
        MenuFile(location=place, deployment_id=deployment, data=data) for place, (deployment, data) in files.items()
    ]


@settings(max_examples=300)
@given(FILES, FILES)
def test_every_prefix_of_a_change_keeps_every_choice_that_stays(have, want):
    writes, removals = plan_entries(menu_files(have), menu_files(want))
    staying = {name for name, _ in have.values()} & {name for name, _ in want.values()}
    disk = {place: data for place, (_, data) in have.items()}
    for action in [*writes, *removals]:
        if isinstance(action, RemovePath):
            del disk[action.location]
        else:
            disk[action.location] = action.data
        assert staying <= {data[:1].decode() for data in disk.values()}
    assert disk == {place: data for place, (_, data) in want.items()}
    assert plan_entries(menu_files(want), menu_files(want)) == ([], [])
