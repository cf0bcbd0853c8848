"""Where an image keeps kernel and initramfs of a version: beside its modules, or where distributions put them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.image.kernel import read_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.interfaces.storage import TreeReader

MODULES = "/usr/lib/modules"
BOOT = "/boot"
_KERNELS = ("vmlinuz-{}", "vmlinux-{}", "Image-{}", "kernel-{}")
_INITRDS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}", "initrd-{}.img")
_KERNEL = "vmlinuz-"


def kernel_path(image: TreeReader, version: str) -> str | None:
    """Return the file that is the kernel of *version*; None where there is none.

    Beside its modules, as bootable container images have it; else in /boot, under a name with the version, or with that
    of a flavour (``vmlinuz-lts``) if the kernel says that it is of this version.
    """
    candidates = [f"{MODULES}/{version}/vmlinuz", *(f"{BOOT}/{name.format(version)}" for name in _KERNELS)]
    found = next((path for path in candidates if image.content(path) is not None), None)
    flavour = None if found else next(_flavours(image, version), None)
    return f"{BOOT}/{_KERNEL}{flavour}" if flavour else found


def initrd_path(image: TreeReader, version: str) -> str | None:
    """Return the file that is the initramfs of *version*, looked for like the kernel; None where there is none."""
    names = [version]
    if image.content(f"{MODULES}/{version}/vmlinuz") is None:
        names += _flavours(image, version)
    candidates = [f"{MODULES}/{version}/initramfs.img"]
    candidates += [f"{BOOT}/{form.format(name)}" for name in names for form in _INITRDS]
    return next((path for path in candidates if image.content(path) is not None), None)


def _flavours(image: TreeReader, version: str) -> Iterator[str]:
    """Yield what stands behind ``vmlinuz-`` in names of kernels that are of *version* by their own word."""
    for name in image.names(BOOT):
        content = image.content(f"{BOOT}/{name}") if name.startswith(_KERNEL) else None
        if content is None:
            continue
        try:
            if read_kernel(content).version == version:
                yield name.removeprefix(_KERNEL)
        except ImageError:
            continue
