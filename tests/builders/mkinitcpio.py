"""An initramfs as mkinitcpio builds it without systemd, of Debian's programs: its files, and an init that does in order
what mkinitcpio's does (early hooks, modules, hooks, mount, late hooks), nothing of cfs in it.

mkinitcpio itself is no package of Debian.
"""

from __future__ import annotations

from pathlib import Path

from builders import early_boot
from builders.kernels import cpio, kernel_version, module_bytes, module_folder, modules_in_order
from cfs_testkit.builders.oci import File, Image, layer

INIT = """#!/bin/sh
export PATH=/usr/bin:/bin
. /init_functions
mount_setup
parse_cmdline
. /config
run_hookfunctions run_earlyhook $EARLYHOOKS
for module in $MODULES; do insmod /usr/lib/modules/$(uname -r)/$module; done
run_hookfunctions run_hook $HOOKS
mount -t ext4 -o ro "$root" /new_root
run_hookfunctions run_latehook $LATEHOOKS
exec switch_root /new_root /usr/sbin/init
"""
FUNCTIONS = """
mount_setup() {
    busybox mkdir -p /dev /proc /sys /run /new_root
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs dev /dev
    mount -t tmpfs run /run
}
parse_cmdline() {
    for word in $(cat /proc/cmdline); do
        case $word in root=*) root=${word#root=} ;; esac
    done
}
run_hookfunctions() {
    function=$1
    shift
    for hook; do
        [ -x "/hooks/$hook" ] || continue
        unset -f run_earlyhook run_hook run_latehook
        . "/hooks/$hook"
        type "$function" >/dev/null 2>&1 || continue
        echo ":: running $function [$hook]"
        "$function"
    done
}
launch_interactive_shell() { echo 'fact: stopped'; poweroff -f; sleep 60; }
"""
UDEV = "run_earlyhook() { echo 'fact: early udev'; }\nrun_hook() { echo 'fact: udev'; }\n"
LOADED = ("virtio_pci", "virtio_blk", "ext4")
OF_THE_IMAGE = (*LOADED, "erofs", "overlay", "loop")


LOADER, LIBRARY_FOLDER = "ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"


def initramfs(
    tree: Path, busybox: bytes, userland: Path | None = None, loader: str = LOADER, folder: str = LIBRARY_FOLDER
) -> bytes:
    """Return the initramfs for *tree*'s kernel; *userland* has the programs, whose *loader* and libraries are named."""
    userland = userland or tree
    files: dict[str, tuple[int, bytes]] = {}

    def put(name: str, data: bytes, mode: int = 0o100755) -> None:
        for parent in reversed(Path(name).parents[:-1]):
            files.setdefault(parent.as_posix(), (0o040755, b""))
        files[name] = (mode, data)

    put("usr/bin/busybox", busybox)
    for applet in (*early_boot.APPLETS.split(), "sh"):
        put(f"usr/bin/{applet}", b"busybox", 0o120777)
    for link in ("bin", "lib", "lib64", "sbin"):
        put(link, b"usr/bin" if link.endswith("bin") else b"usr/lib", 0o120777)
    put(f"usr/lib/{loader}", early_boot.locate(userland, loader))
    for name in early_boot.PROGRAMS:
        put(f"usr/bin/{name}", early_boot.locate(userland, name))
    for name in early_boot.LIBRARIES:
        put(f"{folder}/{name}", early_boot.locate(userland, name))
    base, version = module_folder(tree), kernel_version(tree)
    names = []
    for path in modules_in_order(base, LOADED):
        names.append(_plain(path.relative_to(base)))
        put(f"usr/lib/modules/{version}/{names[-1]}", module_bytes(path), 0o100644)
    config = f'MODULES="{" ".join(names)}"\nEARLYHOOKS="udev"\nHOOKS="udev"\nLATEHOOKS=""\nCLEANUPHOOKS="udev"\n'
    put("init", INIT.encode())
    put("init_functions", FUNCTIONS.encode(), 0o100644)
    put("config", config.encode(), 0o100644)
    put("hooks/udev", UDEV.encode())
    return cpio(files)


def image(tree: Path, busybox: bytes) -> Image:
    """Return the image, whose modules have what the initramfs lacks."""
    made = early_boot.image(tree, initramfs(tree, busybox), busybox, "")
    files = {path: File(data) for path, data in modules(tree).items()}
    return Image([*made.layers, layer(files, parents=True)])


def modules(tree: Path) -> dict[str, bytes]:
    """Return the modules of the image, with their list, by path."""
    base, version = module_folder(tree), kernel_version(tree)
    folder = f"usr/lib/modules/{version}"
    paths = {path.name.split(".")[0].replace("-", "_"): path for path in base.rglob("*.ko*")}
    files: dict[str, bytes] = {}
    lines = []
    for path in modules_in_order(base, OF_THE_IMAGE):
        name, data = _plain(path.relative_to(base)), module_bytes(path)
        needs = next(field for field in data.split(b"\0") if field.startswith(b"depends="))[8:].decode()
        others = [_plain(paths[each.replace("-", "_")].relative_to(base)) for each in filter(None, needs.split(","))]
        lines.append(f"{name}: {' '.join(others)}\n")
        files[f"{folder}/{name}"] = data
    files[f"{folder}/modules.dep"] = "".join(lines).encode()
    return files


def _plain(path: Path) -> str:
    return path.as_posix().removesuffix(".xz")
