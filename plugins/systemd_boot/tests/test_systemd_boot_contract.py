"""systemd-boot keeps the contract of bootloaders."""

import struct
from types import MappingProxyType

from cfs_core.plugin import Location, Volume
from cfs_testkit.contracts import BootloaderContract


def _loader(version):
    head = bytearray(128)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 64)
    head[64:68] = b"PE\0\0"
    struct.pack_into("<H", head, 68, 0x8664)
    return bytes(head) + f"#### LoaderInfo: systemd-boot {version}-1 ####".encode()


class TestSystemdBoot(BootloaderContract):
    provider = "systemd-boot"
    image_files = MappingProxyType({"/usr/lib/systemd/boot/efi/systemd-bootx64.efi": _loader(257)})
    foreign = MappingProxyType(
        {
            Location(
                Volume.ESP, "/loader/entries/other.conf"
            ): b"title Other\r\n# mine\nlinux /other/vmlinuz\noptions a  b",
            Location(Volume.ESP, "/other/vmlinuz"): b"kernel of somebody else",
        }
    )


class TestWithSeparateBoot(TestSystemdBoot):
    extra_volumes = frozenset({Volume.XBOOTLDR})
