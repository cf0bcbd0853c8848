"""Reading back: each way in which a finished volume can differ from what was planned is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cfs_core.examine.read_back import compare
from cfs_core.model.action import (
    Attributes,
    CopyObject,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    WriteFile,
)
from cfs_core.model.content import BytesContent
from cfs_core.model.disk import Location, Partition, Region, Volume
from cfs_core.model.plan import Step
from cfs_core.model.tree import SpecialKind
from cfs_disk.ext4.filesystem import Ext4Filesystem
from cfs_disk.vfat.filesystem import VfatFilesystem
from cfs_testkit.context import plugin_context

LABEL = ((b"security.selinux", b"system_u:object_r:etc_t:s0"),)


def at(path, volume=Volume.ROOT):
    return Location(volume, path)


PLANNED = {
    "/": MakeDirectory(location=at("/"), why=""),
    "/dir": MakeDirectory(location=at("/dir"), attributes=Attributes(mode=0o1770, uid=3, gid=4), why=""),
    "/dir/file": WriteFile(location=at("/dir/file"), data=b"data", attributes=Attributes(xattrs=LABEL), why=""),
    "/copy": CopyObject(
        location=at("/copy"), source=BytesContent(b"c" * 9000), attributes=Attributes(uid=100_000), why=""
    ),
    "/link": MakeSymlink(location=at("/link"), target="dir/file", attributes=Attributes(mode=0o600), why=""),
    "/other": MakeHardLink(location=at("/other"), existing=at("/dir/file"), why=""),
    "/node": MakeSpecial(location=at("/node"), kind=SpecialKind.CHAR, rdev=0x103, why=""),
    "/fifo": MakeSpecial(location=at("/fifo"), kind=SpecialKind.FIFO, rdev=7, why=""),
}


def prepared(actions, step="state"):
    return [Step(id=step, provider="test", title=step, actions=tuple(actions))]


def made(kind, contents, folder, volume=Volume.ROOT):
    path = folder / "volume"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    region = Region(path=path, offset=0, size=64 << 20)
    partition = Partition(
        number=1, volume=volume, start=0, size=region.size, type_guid="", uuid="", name="", fs_uuid="ABCD-0123"
    )
    partition = (
        replace(partition, fs_uuid="11111111-2222-3333-4444-555555555555") if kind is Ext4Filesystem else partition
    )
    filesystem = kind(plugin_context(folder))
    filesystem.build(contents, partition, region)
    return filesystem.reader(region)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    with made(Ext4Filesystem, PLANNED, tmp_path_factory.mktemp("ext4")) as opened:
        yield opened


def attributes(path, **changes):
    return replace(PLANNED[path], attributes=replace(PLANNED[path].attributes, **changes))


WRONG = {
    "content": (replace(PLANNED["/dir/file"], data=b"Data"), "other content"),
    "size": (replace(PLANNED["/copy"], source=BytesContent(b"c" * 8999)), "other content"),
    "mode": (attributes("/dir", mode=0o770), "has permissions 1770, not 0770"),
    "owner": (attributes("/copy", uid=34_464), "belongs to 100000:0, not 34464:0"),
    "group": (attributes("/dir", gid=0), "belongs to 3:4"),
    "owner of a link": (attributes("/link", uid=1), "belongs to 0:0"),
    "attribute lost": (attributes("/dir", xattrs=LABEL), "security.selinux"),
    "attribute too many": (attributes("/dir/file", xattrs=()), "security.selinux"),
    "attribute": (attributes("/dir/file", xattrs=((LABEL[0][0], b"x"),)), "security.selinux"),
    "target": (replace(PLANNED["/link"], target="dir"), "is not the planned link"),
    "hard link": (replace(PLANNED["/other"], existing=at("/copy")), "is not a link to /copy"),
    "device": (replace(PLANNED["/node"], rdev=0x501), "is device 0x103, not 0x501"),
    "special": (replace(PLANNED["/fifo"], location=at("/copy")), "is a file, not a special file"),
    "missing": (replace(PLANNED["/other"], location=at("/none")), "is missing"),
}


def test_what_is_as_planned_is_no_problem(reader):
    assert list(compare(Volume.ROOT, reader, prepared(PLANNED.values()))) == []


@pytest.mark.parametrize("case", WRONG)
def test_every_difference_is_found(case, reader):
    action, message = WRONG[case]
    (problem,) = compare(Volume.ROOT, reader, prepared([*PLANNED.values(), action]))
    assert message in problem.message
    assert problem.where == str(action.location)


def test_metadata_of_the_repository_is_compared_too(reader):
    actions = [WRONG["content"][0], WRONG["mode"][0], WRONG["missing"][0]]
    found = [problem.message for problem in compare(Volume.ROOT, reader, prepared(actions, "repository"))]
    assert found == ["has permissions 1770, not 0770", "is missing"]


def test_fat_keeps_no_metadata_and_its_contents_are_compared(tmp_path):
    file = WriteFile(location=at("/FILE", Volume.ESP), data=b"x", attributes=Attributes(uid=5), why="")
    contents = {"/": MakeDirectory(location=at("/", Volume.ESP), why=""), "/FILE": file}
    with made(VfatFilesystem, contents, tmp_path, Volume.ESP) as reader:
        assert list(compare(Volume.ESP, reader, prepared([file]))) == []
        (problem,) = compare(Volume.ESP, reader, prepared([replace(file, data=b"y")]))
        assert "other content" in problem.message
