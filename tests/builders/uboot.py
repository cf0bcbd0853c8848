"""A small arm64 system for U-Boot: Debian's kernel and busybox, cfs's early boot, and a program that says it runs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from builders import mkinitcpio
from builders.kernels import CHECKOUT, EPOCH, cpio, kernel_version, module_bytes, module_folder, modules_in_order

if TYPE_CHECKING:
    from collections.abc import Mapping

SETUP_ROOT = CHECKOUT / "plugins/initramfs/cfs_initramfs/boot/cfs-setup-root"
MODULES = ("virtio_blk", "virtio_pci", "virtio_mmio", "ext4", "erofs", "overlay", "loop")

DIRECTORIES = "boot dev etc proc run sys sysroot tmp usr usr/bin usr/sbin usr/lib usr/lib/modules var"
INITRAMFS = """
    bin dev proc sys run usr usr/lib usr/lib/cfs usr/lib/modules
    usr/lib/dracut usr/lib/dracut/hooks usr/lib/dracut/hooks/pre-pivot
"""
APPLETS = """
    sh mount umount mkdir cat insmod sleep switch_root poweroff printf readlink tr dmesg modprobe rm chmod ln echo uname
"""

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
modules=/usr/lib/modules/$(uname -r)
for module in $(cat $modules/order); do insmod $modules/$module; done
mkdir -p /sysroot
for try in 1 2 3 4 5 6 7 8 9; do [ -b /dev/vda2 ] && break; sleep 1; done
mount -t ext4 -o ro /dev/vda2 /sysroot && sh /usr/lib/cfs/cfs-setup-root && exec switch_root /sysroot /usr/sbin/init
echo initramfs-failed
poweroff -f
"""
SYSTEM = """#!/usr/bin/busybox sh
echo "the system runs: $(/usr/bin/busybox cat /usr/lib/test-marker)"
/usr/bin/busybox poweroff -f
"""


def stock_rootfs(tree: Path, userland: Path, marker: str) -> bytes:
    """Return the same with mkinitcpio's initramfs, in which nothing is of cfs; its programs are those in *userland*."""
    version, busybox = kernel_version(tree), _busybox(tree)
    initramfs = mkinitcpio.initramfs(tree, busybox, userland, "ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu")
    builtin = (module_folder(tree) / "modules.builtin").read_bytes()
    more = {**mkinitcpio.modules(tree), f"usr/lib/modules/{version}/modules.builtin": builtin}
    return rootfs(tree, marker, initramfs, more)


def _busybox(tree: Path) -> bytes:
    return next(path for path in (tree / "usr/bin/busybox", tree / "bin/busybox") if path.exists()).read_bytes()


def rootfs(tree: Path, marker: str, initramfs: bytes | None = None, more: Mapping[str, bytes] | None = None) -> bytes:
    """Return the tar of a system made of unpacked packages, *initramfs* in place of one that has cfs's early boot.

    *more* are files by path, below folders that are there or files of modules.
    """
    version = kernel_version(tree)
    busybox = _busybox(tree)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        parents = {parent.as_posix() for name in more or () for parent in Path(name).parents[:-1]}
        for name in sorted({*DIRECTORIES.split(), f"usr/lib/modules/{version}", *parents}):
            _add(tar, name, None)
        for name in ("bin", "sbin", "lib"):
            _add_link(tar, name, f"usr/{name}")
        for name, data in (more or {}).items():
            _add(tar, name, data)
        _add(tar, f"usr/lib/modules/{version}/vmlinuz", (tree / f"boot/vmlinuz-{version}").read_bytes())
        _add(tar, f"usr/lib/modules/{version}/initramfs.img", initramfs or _initramfs(tree, version, busybox))
        _add(tar, "usr/bin/busybox", busybox, 0o755)
        _add(tar, "usr/sbin/init", SYSTEM.encode(), 0o755)
        _add(tar, "usr/lib/os-release", b'ID=uboot-test\nPRETTY_NAME="U-Boot test system"\nVERSION_ID=1\n')
        _add(tar, "usr/lib/test-marker", f"{marker}\n".encode() * 10)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes | None, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.mtime = EPOCH
    if data is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    else:
        info.size, info.mode = len(data), mode
        tar.addfile(info, io.BytesIO(data))


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.mtime, info.type, info.mode, info.linkname = EPOCH, tarfile.SYMTYPE, 0o777, target
    tar.addfile(info)


def _initramfs(tree: Path, version: str, busybox: bytes) -> bytes:
    """Return an initramfs (newc, uncompressed) with busybox, what the root needs, and cfs's script."""
    files: dict[str, tuple[int, bytes]] = dict.fromkeys(INITRAMFS.split(), (0o040755, b""))
    files[f"usr/lib/modules/{version}"] = (0o040755, b"")
    files["bin/busybox"] = (0o100755, busybox)
    files |= {f"bin/{applet}": (0o120777, b"busybox") for applet in APPLETS.split()}
    files["init"] = (0o100755, INIT.encode())
    files["usr/lib/cfs/cfs-setup-root"] = (0o100755, SETUP_ROOT.read_bytes())
    # Where cfs looks for what calls the script; here it is /init that does.
    files["usr/lib/dracut/hooks/pre-pivot/50-pre-pivot.sh"] = (0o100755, b"/usr/lib/cfs/cfs-setup-root\n")
    base = tree / "usr/lib/modules" / version
    names = []
    for path in modules_in_order(base, MODULES):
        name = path.relative_to(base).as_posix().removesuffix(".xz")
        names.append(name)
        for parent in reversed(Path(name).parents[:-1]):
            files.setdefault(f"usr/lib/modules/{version}/{parent}", (0o040755, b""))
        files[f"usr/lib/modules/{version}/{name}"] = (0o100644, module_bytes(path))
    files[f"usr/lib/modules/{version}/order"] = (0o100644, "\n".join(names).encode())
    return cpio(files)
