"""A system of one program that says what it sees, its initramfs with cfs's early boot, and a machine to start it.

The initramfs follows mkinitcpio: an init sources ``/hooks/cfs`` and calls its functions. What mounts is, by *userland*,
Debian 13's mount (which lets the kernel read an EROFS file), Debian 12's (which takes a loop device), or busybox.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders import bootable
from builders.kept import kept
from builders.kernels import CHECKOUT, cpio, download, kernel_version, module_bytes, module_folder, modules_in_order
from cfs_testkit.builders.oci import File, Image, Link, layer

BOOT = CHECKOUT / "plugins/initramfs/cfs_initramfs/boot"
SETTINGS = "usr/lib/composefs/setup-root-conf.toml"
PACKAGES = ("dash", "libblkid1", "libc6", "libmount1", "libpcre2-8-0", "libselinux1", "mount", "util-linux")
LIBRARIES = ("libblkid.so.1", "libc.so.6", "libmount.so.1", "libpcre2-8.so.0", "libselinux.so.1")
PROGRAMS = ("blkid", "mount", "umount")
LOADED = ("virtio_pci", "virtio_blk", "ext4", "erofs", "overlay")
AT_HAND = ("loop", "efivarfs")

APPLETS = """
    cat chmod dmesg echo insmod ln mkdir modprobe poweroff printf readlink sleep switch_root tr uname
"""
INIT = """#!/bin/sh
export PATH=/usr/bin:/bin
mkdir -p /dev /proc /sys /run /new_root
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs run /run
modules=/lib/modules/$(uname -r)
for module in $(cat $modules/order); do insmod $modules/$module; done

launch_interactive_shell() { echo 'fact: stopped'; poweroff -f; sleep 60; }

root=
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
. /hooks/cfs
run_hook
echo "fact: root-partition $root"
[ -n "$root" ] || launch_interactive_shell
busybox mount -t ext4 -o ro "$root" /new_root
run_latehook
exec switch_root /new_root /usr/sbin/init
"""
# Runs as the booted system's init, in busybox alone, which finds its programs through /proc.
SYSTEM = """#!/usr/bin/busybox sh
/usr/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
sed 's/^/fact: mount /' /proc/mounts
for file in /sys/block/loop*/loop/backing_file; do [ -e "$file" ] && echo "fact: loop $(cat "$file")"; done
for folder in / /usr/ /etc/ /var/ /sysroot/; do
    if (echo seen >${folder}written) 2>/dev/null; then echo "fact: writable $folder"; fi
done
(cd /sysroot && find . -name written | sed 's/^[.]/fact: kept /')
echo "fact: content $(sha256sum </usr/lib/large | cut -d' ' -f1)"
echo "fact: etc $(cat /etc/hostname)"
echo 'fact: complete'
poweroff -f
"""
LARGE = b"content of an object\n" * 10_000


@dataclass(frozen=True)
class Mount:
    source: str
    target: str
    kind: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What a boot said."""

    console: str
    facts: tuple[str, ...]

    def all(self, name: str) -> list[str]:
        """Return every fact *name*."""
        return [fact.partition(" ")[2] for fact in self.facts if fact.partition(" ")[0] == name]

    @property
    def finished(self) -> bool:
        """Whether the system ran."""
        return "complete" in self.facts

    @property
    def stopped(self) -> bool:
        """Whether early boot refused to go on."""
        return "stopped" in self.facts

    def mount(self, target: str) -> Mount | None:
        """Return what is mounted last on *target*."""
        lines = [line.split() for line in self.all("mount")]
        found = [Mount(source, at, kind, tuple(options.split(","))) for source, at, kind, options, *_ in lines]
        return next((mount for mount in reversed(found) if mount.target == target), None)


def unpacked(name: str, suite: str, *packages: str, kernel: bool = True, architecture: str = "amd64") -> Path:
    """Return packages of a Debian suite, unpacked, kept between runs; the test is skipped where they cannot be had."""

    def make(folder: Path) -> None:
        why = download(folder, suite, architecture, *packages, kernel=kernel)
        if why is not None:
            pytest.skip(f"packages of Debian {suite} cannot be had: {why}")

    return kept(f"early-{name}", make)


def trixie() -> Path:
    """Return Debian 13's kernel and what the system is made of."""
    return unpacked("trixie", "trixie", "busybox-static", "systemd-boot-efi", *PACKAGES)


def locate(tree: Path, name: str) -> bytes:
    """Return a program or a library of unpacked packages."""
    folders = ("bin", "sbin", "lib64", "lib", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu")
    return next(
        path.read_bytes() for top in ("usr", "") for folder in folders if (path := tree / top / folder / name).is_file()
    )


def initramfs(tree: Path, userland: Path | None, busybox: bytes) -> bytes:
    """Return an initramfs for *tree*'s kernel, with programs of the packages in *userland*, or of busybox alone."""
    files: dict[str, tuple[int, bytes]] = {}

    def put(name: str, data: bytes, mode: int = 0o100755) -> None:
        for parent in reversed(Path(name).parents[:-1]):
            files.setdefault(parent.as_posix(), (0o040755, b""))
        files[name] = (mode, data)

    put("bin/busybox", busybox)
    applets = APPLETS.split()
    if userland is None:
        applets += ["sh", "mount", "umount"]
    else:
        put("bin/sh", locate(userland, "dash"))
        put("lib64/ld-linux-x86-64.so.2", locate(userland, "ld-linux-x86-64.so.2"))
        for name in PROGRAMS:
            put(f"usr/bin/{name}", locate(userland, name))
        for name in LIBRARIES:
            put(f"lib/x86_64-linux-gnu/{name}", locate(userland, name))
    for applet in applets:
        put(f"bin/{applet}", b"busybox", 0o120777)
    put("init", INIT.encode())
    put("hooks/cfs", (BOOT / "mkinitcpio/hook-cfs").read_bytes())
    put("usr/lib/cfs/cfs-setup-root", (BOOT / "cfs-setup-root").read_bytes())
    base, version = module_folder(tree), kernel_version(tree)
    put("usr/lib/modules", b"../../lib/modules", 0o120777)
    names = {}
    for path in modules_in_order(base, (*LOADED, *AT_HAND)):
        names[path] = path.relative_to(base).as_posix().removesuffix(".xz")
        put(f"lib/modules/{version}/{names[path]}", module_bytes(path), 0o100644)
    loaded = [names[path] for path in modules_in_order(base, LOADED)]
    put(f"lib/modules/{version}/order", "\n".join(loaded).encode(), 0o100644)
    put(f"lib/modules/{version}/modules.dep", "".join(f"{name}:\n" for name in names.values()).encode(), 0o100644)
    return cpio(files)


def with_settings(initrd: bytes, text: str) -> bytes:
    """Return the initramfs with a setup-root-conf.toml of its own, as another archive behind it."""
    parents = [parent.as_posix() for parent in reversed(Path(SETTINGS).parents[:-1])]
    return initrd + cpio(dict.fromkeys(parents, (0o040755, b"")) | {SETTINGS: (0o100644, text.encode())})


def image(tree: Path, initrd: bytes, busybox: bytes, settings: str) -> Image:
    """Return the bootable image of the system, with *tree*'s kernel and loader."""
    return Image([layer(contents(tree, initrd, busybox, settings))])


def contents(tree: Path, initrd: bytes, busybox: bytes, settings: str) -> dict[str, object]:
    """Return what is in that image, by path."""
    version = kernel_version(tree)
    modules = f"usr/lib/modules/{version}"
    loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    content = {path: what for path, what in bootable.tree().items() if not path.startswith("usr/lib/modules/")}
    content |= {
        f"{modules}/vmlinuz": File((tree / f"boot/vmlinuz-{version}").read_bytes()),
        f"{modules}/initramfs.img": File(initrd),
        f"{modules}/modules.builtin": File((module_folder(tree) / "modules.builtin").read_bytes()),
        loader: File((tree / loader).read_bytes()),
        SETTINGS: File(settings),
        "usr/bin/busybox": File(busybox, mode=0o755),
        "usr/bin/sh": Link("busybox"),
        "usr/sbin/init": File(SYSTEM, mode=0o755),
        "usr/lib/large": File(LARGE),
    }
    return content


def start(*arguments: object, console: Path, seconds: float = 120) -> Seen:
    """Run QEMU until the guest switches itself off."""
    subprocess.run(
        ["qemu-system-x86_64", "-M", "q35", "-m", "512", "-smp", "2", "-cpu", "max", "-accel", "tcg,thread=multi",
         "-display", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{console}", *map(str, arguments)],
        stdin=subprocess.DEVNULL, check=True, timeout=seconds,
    )  # fmt: skip
    text = console.read_text(errors="replace").replace("\r", "")
    return Seen(text, tuple(re.findall(r"(?m)fact: (.*)$", text)))


def disk_arguments(disk: Path) -> list[str]:
    """Return QEMU's arguments for a disk that stays as it is."""
    return ["-drive", f"file={disk},format=raw,if=none,id=disk,snapshot=on", "-device", "virtio-blk-pci,drive=disk"]
