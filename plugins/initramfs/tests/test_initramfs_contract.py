"""What cfs knows about early-boot code keeps the contract of initramfs providers."""

from types import MappingProxyType

from cfs_testkit.contracts import InitramfsContract
from cfs_testkit.programs import program

MODULES = "/usr/lib/modules/6.12.0/modules.builtin"
IMAGE = MappingProxyType({MODULES: "kernel/fs/erofs/erofs.ko\nkernel/fs/overlayfs/overlay.ko\n"})


class TestCfs(InitramfsContract):
    provider = "early-boot"
    image_files = IMAGE
    initrd_files = MappingProxyType(
        {
            "init": "-> usr/lib/systemd/systemd",
            "usr/lib/systemd/systemd": program(),
            "usr/lib/cfs/cfs-setup-root": "#!/bin/sh\nCFS_SETUP_ROOT_VERSION=1\n",
            "usr/lib/systemd/system/initrd-root-fs.target.wants/cfs-setup-root.service": "-> ../cfs-setup-root.service",
        }
    )


class TestBootc(InitramfsContract):
    provider = "early-boot"
    image_files = IMAGE
    initrd_files = MappingProxyType(
        {
            "init": program(),
            "usr/lib/bootc/initramfs-setup": "ELF",
            "usr/lib/systemd/system/initrd-root-fs.target.requires/bootc-root-setup.service": "-> ../x.service",
        }
    )
