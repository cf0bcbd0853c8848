"""extlinux.conf keeps the contract of bootloaders."""

from types import MappingProxyType

from cfs_core.plugin import Architecture, Location, Volume
from cfs_testkit.contracts import BootloaderContract

CONFIG = Location(Volume.BOOT, "/extlinux/extlinux.conf")
OTHERS = b"""# mine
prompt 1
timeout 30
label rescue
\tmenu label Rescue system
\tlinux ../rescue/vmlinuz
\tappend quiet
"""


class TestExtlinux(BootloaderContract):
    provider = "extlinux"
    architecture = Architecture.ARM64


class TestExtlinuxAmongOthers(TestExtlinux):
    foreign = MappingProxyType({CONFIG: OTHERS, Location(Volume.BOOT, "/rescue/vmlinuz"): b"kernel of somebody else"})
    shared_files = frozenset({CONFIG})


class TestExtlinuxWithDeviceTree(TestExtlinux):
    settings = MappingProxyType({"devicetree": "maker/board.dtb"})
    image_files = MappingProxyType({"/usr/lib/modules/6.12.0/dtb/maker/board.dtb": b"device tree"})
