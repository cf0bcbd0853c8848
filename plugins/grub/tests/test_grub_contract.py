"""GRUB keeps the contract of bootloaders: one disk that starts from UEFI and from BIOS, menus of every kind."""

from types import MappingProxyType

from grub_files import program

from cfs_core.plugin import Location, Volume
from cfs_testkit.contracts import BootloaderContract

MODULES = """
normal biosdisk part_gpt part_msdos ext2 fat search search_fs_uuid linux configfile test loadenv echo sleep gzio ls cat
reboot halt all_video font gfxterm blscfg regexp probe boot minicmd serial terminal chain
"""
BIOS_FILES = {
    "/usr/lib/grub/i386-pc/boot.img": b"\xeb\x63" + bytes(508) + b"\x55\xaa",
    "/usr/lib/grub/i386-pc/diskboot.img": bytes(512),
    "/usr/lib/grub/i386-pc/kernel.img": b"kernel",
    "/usr/lib/grub/i386-pc/lzma_decompress.img": b"lzma",
    "/usr/lib/grub/i386-pc/moddep.lst": "\n",
} | {f"/usr/lib/grub/i386-pc/{name}.mod": name for name in MODULES.split()}


def image(*modules):
    return MappingProxyType({"/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": program(*modules), **BIOS_FILES})


class TestGrubWithEntryFiles(BootloaderContract):
    provider = "grub"
    image_files = image("blscfg")
    foreign = MappingProxyType(
        {
            Location(Volume.ROOT, "/boot/loader/entries/other.conf"): b"title Other\nlinux /boot/vmlinuz-other\n",
            Location(Volume.ROOT, "/boot/vmlinuz-other"): b"kernel of somebody else",
        }
    )


class TestGrubWithGeneratedMenu(BootloaderContract):
    provider = "grub"
    image_files = image()


class TestGrubWithSeparateBoot(BootloaderContract):
    provider = "grub"
    image_files = image("blscfg")
    extra_volumes = frozenset({Volume.BOOT})


class TestGrubWithXbootldr(BootloaderContract):
    provider = "grub"
    image_files = image()
    extra_volumes = frozenset({Volume.XBOOTLDR})
