"""systemd-boot keeps the contract of bootloaders."""

from types import MappingProxyType

from cfs_core.plugin import Architecture, Location, Volume
from cfs_testkit.contracts import BootloaderContract
from cfs_testkit.layouts import efi_program


def image(architecture):
    loader = efi_program(architecture, b"#### LoaderInfo: systemd-boot 257-1 ####")
    return MappingProxyType({f"/usr/lib/systemd/boot/efi/systemd-boot{architecture.efi}.efi": loader})


class TestSystemdBoot(BootloaderContract):
    provider = "systemd-boot"
    image_files = image(Architecture.AMD64)
    foreign = MappingProxyType(
        {
            Location(
                Volume.ESP, "/loader/entries/other.conf"
            ): b"title Other\r\n# mine\nlinux /other/vmlinuz\noptions a  b",
            Location(Volume.ESP, "/other/vmlinuz"): b"kernel of somebody else",
        }
    )

    def image_files_for(self, architecture):
        return image(architecture)


class TestWithSeparateBoot(TestSystemdBoot):
    extra_volumes = frozenset({Volume.XBOOTLDR})
