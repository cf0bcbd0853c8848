"""rEFInd keeps the contract of bootloaders."""

from types import MappingProxyType

from cfs_core.plugin import Architecture, Location, Volume
from cfs_testkit.contracts import BootloaderContract
from cfs_testkit.layouts import efi_program

CONFIG = Location(Volume.ESP, "/EFI/BOOT/refind.conf")
OTHERS = b"""# mine
timeout 20
menuentry "Windows, perhaps" {
    loader \\EFI\\other\\boot.efi
    submenuentry "Recovery" {
        options "recover"
    }
}"""


def image(architecture):
    program = efi_program(architecture, "rEFInd Version".encode("utf-16-le"))
    return MappingProxyType({f"/usr/share/refind/refind/refind_{architecture.efi}.efi": program})


class TestRefind(BootloaderContract):
    provider = "refind"
    image_files = image(Architecture.AMD64)

    def image_files_for(self, architecture):
        return image(architecture)


class TestRefindAmongOthers(TestRefind):
    foreign = MappingProxyType({CONFIG: OTHERS, Location(Volume.ESP, "/EFI/other/boot.efi"): b"MZ other"})
    shared_files = frozenset({CONFIG})
