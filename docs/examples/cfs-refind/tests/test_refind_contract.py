"""rEFInd keeps the contract of bootloaders."""

import struct
from types import MappingProxyType

from cfs_core.plugin import Location, Volume
from cfs_testkit.contracts import BootloaderContract

CONFIG = Location(Volume.ESP, "/EFI/BOOT/refind.conf")
OTHERS = b"""# mine
timeout 20
menuentry "Windows, perhaps" {
    loader \\EFI\\other\\boot.efi
    submenuentry "Recovery" {
        options "recover"
    }
}"""


def program(machine=0x8664):
    head = bytearray(128)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 64)
    struct.pack_into("<4sH", head, 64, b"PE\0\0", machine)
    return bytes(head) + "rEFInd Version".encode("utf-16-le")


IMAGE = MappingProxyType({"/usr/share/refind/refind/refind_x64.efi": program()})


class TestRefind(BootloaderContract):
    provider = "refind"
    image_files = IMAGE


class TestRefindAmongOthers(TestRefind):
    foreign = MappingProxyType({CONFIG: OTHERS, Location(Volume.ESP, "/EFI/other/boot.efi"): b"MZ other"})
    shared_files = frozenset({CONFIG})
