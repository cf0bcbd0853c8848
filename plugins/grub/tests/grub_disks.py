"""Disks, images and deployments for the tests of menus, and changing a menu with GRUB."""

import hashlib

from grub_files import Image, modules, program

from cfs_core.plugin import (
    Architecture,
    BootArtifacts,
    BootEntry,
    BootFacts,
    BootMenu,
    BytesContent,
    EntryKind,
    Firmware,
    Location,
    Partition,
    Volume,
    WriteFile,
)
from cfs_core.testing import MemoryTarget
from cfs_grub.bootloader import Grub
from cfs_grub.environment import parse as parse_environment

ROOT, ESP = Volume.ROOT, Volume.ESP


class Commands:
    """A host with these commands."""

    def __init__(self, *names):
        self.names = names

    def find(self, name):
        return f"/usr/bin/{name}" if name in self.names else None


DEBIAN = {"/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": program(), **modules("i386-pc")}
WITH_BLSUKI = {**modules("x86_64-efi", "blsuki"), **modules("i386-pc", "blsuki")}
FEDORA = {"/usr/lib/ostree-boot/efi/EFI/fedora/grubx64.efi": program("blscfg")}
UEFI = frozenset({Firmware.UEFI})
BOTH = frozenset({Firmware.UEFI, Firmware.BIOS})


def disk(*, boot=False, filesystem="ext4"):
    volumes = {Volume.BIOS_BOOT: None, ESP: "vfat", ROOT: filesystem} | ({Volume.BOOT: "ext4"} if boot else {})
    return MemoryTarget(
        [
            Partition(
                number=number,
                volume=volume,
                start=number << 20,
                size=1 << 30,
                type_guid="",
                uuid="",
                name=volume,
                filesystem=kind,
                fs_uuid="ABCD-1234" if volume is ESP else f"uuid-of-{volume}",
            )
            for number, (volume, kind) in enumerate(volumes.items(), 1)
        ],
        volumes=[Volume.DISK],
    )


def facts(files=DEBIAN, *, firmware=UEFI, **more):
    values = {
        "architecture": Architecture.AMD64,
        "firmware": firmware,
        "image": Image(files),
        "root_filesystem": "ext4",
    }
    return BootFacts(**(values | more))


def bls(letter, *arguments, kernel=b"kernel", **more):
    artifacts = BootArtifacts(
        kind=EntryKind.BLS,
        kernel_version="6",
        boot_digest=hashlib.sha256(kernel + b"initrd").hexdigest(),
        kernel=BytesContent(kernel),
        initrd=BytesContent(b"initrd"),
    )
    values = {
        "deployment_id": letter * 128,
        "kind": EntryKind.BLS,
        "title": f"System {letter}",
        "version": "13",
        "os_id": "debian",
        "arguments": ("quiet", *arguments, f"composefs={letter * 128}"),
        "artifacts": artifacts,
    }
    return BootEntry(**(values | more))


def uki(letter, **more):
    artifacts = BootArtifacts(
        kind=EntryKind.UKI, kernel_version="6", boot_digest="0" * 64, uki=BytesContent(letter.encode())
    )
    values = {
        "deployment_id": letter * 128,
        "kind": EntryKind.UKI,
        "title": f"Sealed {letter}",
        "version": "13",
        "os_id": "debian",
        "artifacts": artifacts,
    }
    return BootEntry(**(values | more))


GRUB = Grub(Commands("grub-mkimage"))


def change(target, *entries, of=None, **more):
    wanted = BootMenu(entries=entries, **more)
    for action in GRUB.plan_menu(target, GRUB.read_menu(target), wanted, of or facts()):
        target.apply(action)
    return GRUB.read_menu(target)


def letters(menu):
    return "".join(entry.deployment_id[0] for entry in menu.entries)


def text(target, path, volume=ROOT):
    return target.read(Location(volume, path)).decode()


def environment(target):
    return parse_environment(target.read(Location(ROOT, "/boot/grub2/grubenv")))


THEIRS = (
    "title Fedora\nversion 6.1\nlinux /vmlinuz\ninitrd /initrd $tuned_initrd\noptions $kernelopts $tuned_params\n\n"
)


def put(target, path, data):
    target.apply(WriteFile(location=Location(ROOT, path), data=data.encode(), why="theirs"))
