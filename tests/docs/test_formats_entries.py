"""Origin file and boot entries of the page on state are what cfs writes for the deployments it describes."""

import hashlib
import re
import struct
from types import SimpleNamespace

import pytest
from builders.format_pages import PAGES, section
from grub_files import Image, program

from cfs_core.bls import entry_priorities, entry_stem, sort_key
from cfs_core.model.origin import OriginFile
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
)
from cfs_core.testing import MemoryTarget
from cfs_grub.bootloader import Grub
from cfs_systemd_boot.bootloader import SystemdBoot

PAGE = "f-state-and-entries.md"
ROOT_UUID = "01234567-89ab-cdef-0123-456789abcdef"
SHOWN = re.compile(r"^`(ESP|ROOT):(/[^`]+)`:\n\n```text\n(.*?)```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"^\| `(.+?)` \| `(.+?)` \| (\d+) \| (\d+) \| `(.+?)` \| `(.+?)` \|$", re.MULTILINE)
LOADERS = {"grub": Grub(SimpleNamespace(find=lambda _name: None)), "systemd-boot": SystemdBoot()}
FEDORA = {"/usr/lib/ostree-boot/efi/EFI/fedora/grubx64.efi": program("blscfg")}
DEBIAN = {"/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi": program()}


def systemd_boot(version):
    """Return the files of an image with this systemd-boot, as small as it can be."""
    head = bytearray(128)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 64)
    head[64:68] = b"PE\0\0"
    struct.pack_into("<H", head, 68, 0x8664)
    data = bytes(head) + f"#### LoaderInfo: systemd-boot {version}-1 ####".encode()
    return {"/usr/lib/systemd/boot/efi/systemd-bootx64.efi": data}


def disk():
    places = ((Volume.ESP, "vfat", "ABCD-1234"), (Volume.ROOT, "ext4", ROOT_UUID))
    partitions = [
        Partition(
            number=number,
            volume=volume,
            start=number << 20,
            size=1 << 30,
            type_guid="",
            uuid="",
            name=volume,
            filesystem=filesystem,
            fs_uuid=uuid,
        )
        for number, (volume, filesystem, uuid) in enumerate(places, 1)
    ]
    return MemoryTarget(partitions, volumes=[Volume.DISK])


def entry(letter, kind):
    """Return the entry of the deployment whose id is *letter* 128 times."""
    kernel, name = BytesContent(b"kernel"), letter * 128
    files = {"kernel": kernel, "initrd": BytesContent(b"initrd")} if kind is EntryKind.BLS else {"uki": kernel}
    arguments = ("quiet", f"root=UUID={ROOT_UUID}", f"composefs={name}") if kind is EntryKind.BLS else ()
    digest = hashlib.sha256(b"kernelinitrd").hexdigest()
    return BootEntry(
        deployment_id=name,
        kind=kind,
        title="Debian GNU/Linux 13 (trixie)",
        version="13",
        os_id="debian",
        arguments=arguments,
        artifacts=BootArtifacts(kind=kind, kernel_version="6.12", boot_digest=digest, **files),
    )


def planned(loader, image, *entries):
    """Return the target with the menu of *entries*."""
    facts = BootFacts(
        architecture=Architecture.AMD64,
        firmware=frozenset({Firmware.UEFI}),
        image=Image(image),
        root_filesystem="ext4",
    )
    target = disk()
    for action in LOADERS[loader].plan_menu(target, BootMenu(entries=()), BootMenu(entries=entries), facts):
        target.apply(action)
    return target


TWO = (entry("a", EntryKind.BLS), entry("b", EntryKind.BLS))
UKI = entry("a", EntryKind.UKI)
CASES = [
    ("F.3", 0, "grub", FEDORA, TWO),
    ("F.3", 1, "grub", FEDORA, TWO),
    ("F.3", 2, "grub", DEBIAN, TWO[:1]),
    ("F.4", 0, "systemd-boot", systemd_boot(257), TWO[:1]),
    ("F.4", 1, "systemd-boot", systemd_boot(258), (UKI,)),
    ("F.4", 2, "systemd-boot", systemd_boot(257), TWO[:1]),
    ("F.5", 0, "grub", DEBIAN, (UKI,)),
    ("F.5", 1, "grub", DEBIAN, (UKI,)),
]


def found_in(heading):
    return SHOWN.findall(section(PAGE, heading))


@pytest.mark.parametrize(("heading", "number", "loader", "image", "entries"), CASES)
def test_files_are_written_as_they_are_shown(heading, number, loader, image, entries):
    volume, path, text = found_in(heading)[number]
    found = planned(loader, image, *entries).read(Location(Volume[volume], path)).decode()
    expected = text.replace("AAAA", "a" * 128).replace("BBBB", "b" * 128).replace("A32", "a" * 32)
    # The page says of this one that it ends without a newline.
    assert found == (expected.removesuffix("\n") if path.endswith("efiuuid.cfg") else expected)


def test_every_shown_file_has_a_case():
    shown = [(heading, number) for heading in ("F.3", "F.4", "F.5") for number, _ in enumerate(found_in(heading))]
    assert [case[:2] for case in CASES] == shown
    assert len(SHOWN.findall((PAGES / PAGE).read_text())) == len(CASES)


def test_names_and_sort_keys_are_these():
    rows = NAMED.findall(section(PAGE, "F.3"))
    assert len(rows) == 4
    for os_id, version, place, count, name, key in rows:
        priority = entry_priorities(int(count))[int(place)]
        assert f"{entry_stem(os_id, version, priority)}.conf" == name
        assert sort_key(os_id, int(place)) == key


def test_the_origin_file_is_read_and_written_again():
    text = re.search(r"```ini\n(.*?)```", section(PAGE, "F.1"), re.DOTALL)[1]
    found = OriginFile.parse(text)
    assert found.format() == text
    assert found.image == "docker://quay.io/example/system:latest"
    assert [str(location) for location, _ in found.files] == ["ESP:/EFI/BOOT/BOOTX64.EFI"]
