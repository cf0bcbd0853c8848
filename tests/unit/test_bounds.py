"""Where a plugin's actions may write."""

import pytest

from cfs_core.deploy.bounds import Bounds
from cfs_core.errors import PluginError
from cfs_core.model.content import BytesContent
from cfs_core.plugin import (
    Architecture,
    BootFacts,
    CopyObject,
    ExchangePaths,
    Firmware,
    Location,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    RemovePath,
    RenamePath,
    RunCommand,
    SetEfiVariable,
    SpecialKind,
    Volume,
    VolumeNeed,
    WriteBlocks,
    WriteFile,
)
from cfs_core.pluginhost.registry import PluginId
from cfs_core.target.memory import MemoryTarget

OWNER = PluginId(name="bad", distribution="outsider", version="3.14")
ESP, BOOT, ROOT, DISK = (Volume.ESP, Volume.BOOT, Volume.ROOT, Volume.DISK)


def at(volume, path="/file"):
    return Location(volume, path)


def write(volume, path="/file"):
    return WriteFile(why="test", location=at(volume, path), data=b"x")


def code(offset, size):
    return WriteBlocks(why="test", location=at(DISK, "/"), offset=offset, data=b"x" * size)


def bounds(*volumes, firmware=frozenset({Firmware.UEFI}), asked=frozenset()):
    needs = [VolumeNeed(volume=volume, bytes_needed=1) for volume in volumes]
    facts = BootFacts(architecture=Architecture.AMD64, firmware=firmware, volumes=asked)
    return Bounds.of_bootloader("bad", OWNER, needs, facts)


REFUSED = {
    "a volume nobody asked for": write(BOOT),
    "a volume that does not exist": write(Volume.XBOOTLDR),
    "elsewhere on the root volume": write(ROOT, "/evil"),
    "the repository": write(ROOT, "/composefs/meta.json"),
    "the state": write(ROOT, "/state/deploy/x/etc/shadow"),
    "/boot itself": RemovePath(why="test", location=at(ROOT, "/boot")),
    "what only begins like /boot": write(ROOT, "/bootleg"),
    "above a volume": write(ESP, "/../evil"),
    "above /boot": write(ROOT, "/boot/../evil"),
    "a relative path": write(ESP, "evil"),
    "raw blocks without BIOS": code(0, 440),
    "blocks of a filesystem": WriteBlocks(why="test", location=at(ESP, "/"), offset=0, data=b"x"),
    "firmware variables": SetEfiVariable(why="test", name="BootNext", guid="g", data=b"x"),
    "a copy": CopyObject(why="test", location=at(BOOT), source=BytesContent(b"x")),
    "a directory": MakeDirectory(why="test", location=at(ROOT, "/")),
    "a link": MakeSymlink(why="test", location=at(BOOT), target="x"),
    "a device": MakeSpecial(why="test", location=at(BOOT), kind=SpecialKind.FIFO),
    "a hard link to another's file": MakeHardLink(why="test", location=at(ESP), existing=at(ROOT, "/composefs/x")),
    "another's file under a new name": RenamePath(why="test", location=at(ROOT, "/boot/x"), source=at(ROOT, "/state")),
    "another's file in exchange": ExchangePaths(why="test", a=at(ROOT, "/boot/x"), b=at(ROOT, "/state")),
    "the outputs of a command": RunCommand(why="test", argv=("true",), writes=(at(ESP), at(ROOT, "/evil"))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses_what_is_outside_in_the_name_of_the_plugin(what):
    with pytest.raises(PluginError, match=r"the bootloader 'bad' of bad \(outsider 3\.14\) ") as caught:
        bounds(ESP, ROOT).apply([REFUSED[what]], MemoryTarget(volumes=[ESP, ROOT]))
    assert caught.value.facts == {"plugin": "bad", "distribution": "outsider", "version": "3.14"}
    assert caught.value.hint == "report it to the authors of outsider"


def test_a_loader_that_needs_nothing_of_the_root_volume_may_not_use_it():
    with pytest.raises(PluginError, match=r"writes to ROOT:/boot/x, a volume .* \(it may use: ESP\)"):
        bounds(ESP).apply([write(ROOT, "/boot/x")], MemoryTarget(volumes=[ESP, ROOT]))


@pytest.mark.parametrize("what", [code(440, 1), code(-1, 1), code(0, 441)])
def test_of_the_disk_only_the_boot_code_is_for_a_bios_loader(what):
    with pytest.raises(PluginError, match=r"of bad \(outsider 3\.14\) .* do not fit DISK: it has 440"):
        bounds(ESP, firmware=frozenset({Firmware.BIOS})).apply([what], MemoryTarget(volumes=[ESP]))


def test_allows_what_was_declared_and_what_was_asked_for():
    target = MemoryTarget(volumes=[ESP, ROOT, BOOT])
    allowed = bounds(ESP, ROOT, firmware=frozenset({Firmware.BIOS}), asked=frozenset({BOOT}))
    boot = MakeDirectory(why="test", location=at(ROOT, "/boot"))
    allowed.apply([write(ESP, "/EFI/x"), boot, write(ROOT, "/boot/grub/x"), write(BOOT), code(0, 440)], target)
    assert target.read(at(ROOT, "/boot/grub/x")) == b"x"
    assert target.blocks(DISK) == ((0, b"x" * 440),)


def test_a_storage_format_stays_in_its_repository():
    allowed = Bounds.of_storage("bad", OWNER, at(ROOT, "/composefs"))
    target = MemoryTarget(volumes=[ESP, ROOT])
    allowed.apply([MakeDirectory(why="test", location=at(ROOT, "/composefs")), write(ROOT, "/composefs/x")], target)
    for action in (write(ROOT, "/boot/x"), write(ROOT, "/composefs2"), write(ESP)):
        with pytest.raises(PluginError, match=r"the storage format 'bad' of bad \(outsider 3\.14\) writes to"):
            allowed.apply([action], target)
