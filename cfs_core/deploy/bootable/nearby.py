"""Kernels, initramfs and UKIs that are in an image, but not where they are looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.image.boot_files import MODULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.interfaces.storage import TreeReader

_KERNELS = ("vmlinuz-{}", "vmlinux-{}", "Image-{}", "kernel-{}")
_INITRDS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}", "initrd-{}.img")
_KERNEL_NAMES = ("vmlinuz.efi", "vmlinux", "Image", "Image.gz", "bzImage", "linux", "kernel")
_INITRD_NAMES = ("initrd.img", "initrd", "initramfs", "initramfs.img.gz", "initrd.gz")
_UKI_FOLDERS = ("/boot", "/boot/efi", "/efi")


def kernels_elsewhere(image: TreeReader, version: str) -> list[str]:
    """Return files that seem to be the kernel of *version*, under names that nothing looks for."""
    return list(_there(image, version, _KERNELS, _KERNEL_NAMES))


def initrds_elsewhere(image: TreeReader, version: str) -> list[str]:
    """Return files that seem to be the initramfs of *version*, under names that nothing looks for."""
    return list(_there(image, version, _INITRDS, _INITRD_NAMES))


def anything_elsewhere(image: TreeReader) -> list[str]:
    """Return files of an image without a kernel that seem to be one, or a UKI."""
    found = [path for version in image.names(MODULES) for path in kernels_elsewhere(image, version)]
    found += [f"/boot/{name}" for name in image.names("/boot") if name.startswith(("vmlinuz", "vmlinux"))]
    for folder in _UKI_FOLDERS:
        found += [f"{folder}/{name}" for name in image.names(folder) if name.lower().endswith(".efi")]
    return list(dict.fromkeys(path for path in found if image.content(path) is not None))


def _there(image: TreeReader, version: str, with_version: tuple[str, ...], plain: tuple[str, ...]) -> Iterator[str]:
    for folder in (f"{MODULES}/{version}", "/boot"):
        names = [name.format(version) for name in with_version]
        for name in [*plain, *names] if folder != "/boot" else names:
            if image.content(f"{folder}/{name}") is not None:
                yield f"{folder}/{name}"
