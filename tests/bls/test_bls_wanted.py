"""Texts of entries that are new or kept, the default held while names change, and room on FAT."""

import dataclasses

import pytest

from cfs_core.bls import (
    EntryName,
    MenuFile,
    Place,
    bytes_on_fat,
    guard_default,
    kept_entry_text,
    new_entry_text,
    refuse_added_arguments,
    refuse_letters,
    scan_entries,
)
from cfs_core.errors import BootError
from cfs_core.model.action import RemovePath, WriteFile
from cfs_core.model.boot import BootArtifacts, BootEntry, EntryKind
from cfs_core.model.disk import Location, Volume
from cfs_core.target.memory import MemoryTarget

FOLDER = Location(Volume.ESP, "/loader/entries")


def entry(kind=EntryKind.BLS, **more):
    values = {"deployment_id": "a" * 64, "title": "A", "version": "1", "os_id": "x", "arguments": ("quiet",)}
    return BootEntry(kind=kind, **(values | more))


def sealed(*arguments):
    return BootArtifacts(kind=EntryKind.UKI, kernel_version="6", boot_digest="0", sealed_arguments=arguments)


def options(wanted):
    return "|".join(wanted.arguments)


def test_a_new_entry_says_what_it_starts():
    text = new_entry_text(entry(machine_id="m"), ["/k", "/i"], options_of=options)
    assert text == b"title A\nversion 1\nlinux /k\ninitrd /i\noptions quiet\nmachine-id m\n"
    uki = entry(EntryKind.UKI, version="", artifacts=sealed("quiet"))
    assert new_entry_text(uki, ["/u"], options_of=options, uki_key="efi") == (
        f"title A\nversion {'a' * 64}\nefi /u\n".encode()
    )


def file_of(text):
    target = MemoryTarget()
    target.apply(WriteFile(location=FOLDER / "bootc_x-1-1.conf", data=text, why="t"))
    (file,) = scan_entries(target, (Place(directory=FOLDER),))
    return file


def kept(wanted, file):
    return kept_entry_text(
        wanted,
        file,
        arguments_of=lambda there: tuple((there.fields.first("options") or "").split()),
        options_of=options,
    )


def test_a_kept_entry_changes_in_its_arguments_only():
    file = file_of(b"title T\n# note\noptions quiet\ndevicetree /d\n")
    assert kept(entry(), file) == file.data
    assert kept(entry(arguments=("a", "b")), file) == file.data.replace(b"quiet", b"a|b")
    with pytest.raises(BootError, match="no entry for 'aaaa"):
        kept(entry(), None)


@pytest.mark.parametrize(
    ("wanted", "current", "told"),
    [
        (entry(EntryKind.UKI, artifacts=sealed("quiet")), (), None),
        (entry(EntryKind.UKI, artifacts=sealed("quiet"), arguments=("debug",)), (), "'debug' cannot be added"),
        (entry(EntryKind.UKI, arguments=()), ("quiet",), None),
        (entry(EntryKind.UKI), ("quiet",), None),
        (entry(EntryKind.UKI), (), "'quiet' cannot be added"),
        (entry(EntryKind.UKI), ("quiet", "ro"), "arguments of A cannot change"),
        (entry(), (), None),
    ],
)
def test_what_is_sealed_is_not_changed(wanted, current, told):
    if told is None:
        refuse_added_arguments(wanted, current)
        return
    with pytest.raises(BootError, match=told) as caught:
        refuse_added_arguments(wanted, current)
    assert caught.value.hint


def test_letters_that_a_loader_takes_for_its_own_are_refused():
    refuse_letters(["a=b", "c"], "%#", loader="the shell")
    with pytest.raises(BootError, match="the shell does not hand over the kernel argument 'x=%y' as it is: '%'"):
        refuse_letters(["a=b", "x=%y"], "%#", loader="the shell")


def test_files_take_whole_clusters():
    assert bytes_on_fat([]) == 2 << 20
    assert bytes_on_fat([1, 32768, 32769]) == (2 << 20) + 4 * 32768


def menu_file(stem, deployment):
    location = FOLDER / str(EntryName(stem=stem))
    return MenuFile(location=location, deployment_id=deployment * 64, data=deployment.encode())


def applied(actions, have):
    disk = {file.location: file.data for file in have}
    for action in actions:
        if isinstance(action, RemovePath):
            disk.pop(action.location, None)
        else:
            disk[action.location] = action.data
        yield dict(disk)


def test_the_old_default_has_a_name_of_its_own_while_names_change():
    have = [menu_file("one", "b"), menu_file("two", "a")]
    want = [menu_file("one", "c"), menu_file("two", "b")]
    change = guard_default(have, want, "a" * 64, FOLDER)
    hold, settle = (WriteFile(location=FOLDER / name, data=b"", why="t") for name in ("hold", "settle"))
    states = list(applied(change.actions(hold=[hold], settle=[settle]), have))
    guard = FOLDER / f"{change.stem}.conf"
    held = [state for state in states if hold.location in state and settle.location not in state]
    assert all(state[guard] == b"a" for state in held)
    assert guard not in states[-1]
    assert {file.location: file.data for file in want}.items() <= states[-1].items()


def test_a_default_that_is_no_file_of_ours_needs_no_guard():
    have, want = [menu_file("one", "a")], [menu_file("one", "b")]
    change = guard_default(have, want, "other.conf", FOLDER)
    assert change.stem is None
    assert [action.location for action in change.actions(hold=[], settle=[])] == [FOLDER / "one.conf"]


def test_a_guard_that_a_crash_left_is_used_again():
    left = dataclasses.replace(menu_file("x", "a"), location=FOLDER / f"bootc_{'a' * 32}.conf")
    change = guard_default([left], [menu_file("one", "a")], "a" * 64, FOLDER)
    assert change.stem == f"bootc_{'a' * 32}"
    locations = [action.location for action in change.actions(hold=[], settle=[])]
    assert locations == [FOLDER / "one.conf", left.location]
