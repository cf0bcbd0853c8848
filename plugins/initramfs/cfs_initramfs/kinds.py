"""Kinds of initramfs, told by what is in them, and what makes each of them run the early-boot script."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_initramfs.contents import MKINITCPIO_CONFIG, ORDERS
from cfs_initramfs.pack import Packed
from cfs_initramfs.place import packaged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfs_initramfs.contents import Contents

SYSTEMD_UNIT = re.compile(r"((?:usr/lib|lib|etc)/systemd/system)/initrd-root-fs\.target")
DRACUT_HOOK = re.compile(r"((?:var/|usr/)?lib/dracut/hooks)/.+")
_PARAMETERS = "[ -e /conf/param.conf ] && . /conf/param.conf\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """An initramfs that runs hooks. ``hooks`` returns the files that make *contents* run the script."""

    name: str
    hooks: Callable[[Contents], dict[str, Packed]]


def kind_of(contents: Contents) -> Kind | None:
    """Tell who starts what in an initramfs; None where no kind with hooks is known in it."""
    init = contents.programs.resolve("init") or ""
    names = contents.programs.files
    if init.endswith("lib/systemd/systemd"):
        return _SYSTEMD if _first(SYSTEMD_UNIT, names) else None
    if {"init", "scripts/functions", "scripts/local"} <= names.keys():
        return _INITRAMFS_TOOLS
    if {"init", "init_functions", MKINITCPIO_CONFIG} <= names.keys():
        return _MKINITCPIO
    return _DRACUT if _first(DRACUT_HOOK, names) else None


def unhelped(contents: Contents) -> str:
    """Name what makes an initramfs of no `Kind`, in words that follow "the initramfs is"."""
    names = contents.programs.files
    if any(name.startswith("etc/booster.") for name in names):
        return "by booster, whose init has no hooks"
    if any(name.endswith("sbin/nlplug-findfs") for name in names):
        return "by Alpine's mkinitfs, whose init has no hooks"
    if (contents.programs.resolve("init") or "").endswith("lib/systemd/systemd"):
        return "with systemd, but without its unit initrd-root-fs.target"
    return "by none of dracut, mkinitcpio and initramfs-tools"


def _first(pattern: re.Pattern[str], names: Mapping[str, object]) -> str | None:
    """Return the first group of the first name that matches."""
    return next((match[1] for name in sorted(names) if (match := pattern.fullmatch(name))), None)


def _added(name: str, mode: int = 0o755) -> Packed:
    return Packed(packaged(f"added/{name}"), mode)


def _systemd(contents: Contents) -> dict[str, Packed]:
    folder = _first(SYSTEMD_UNIT, contents.programs.files) or "usr/lib/systemd/system"
    setup, load = "cfs-setup-root.service", "cfs-load-modules.service"
    return {
        f"{folder}/{setup}": Packed(packaged(setup)),
        f"{folder}/{setup}.d/path.conf": _added("path.conf", 0o644),
        f"{folder}/{load}": _added(load, 0o644),
        f"{folder}/initrd-root-fs.target.requires/{setup}": Packed(f"../{setup}".encode(), is_link=True),
        f"{folder}/sysinit.target.wants/{load}": Packed(f"../{load}".encode(), is_link=True),
    }


def _initramfs_tools(contents: Contents) -> dict[str, Packed]:
    top, bottom = (contents.kept.get(path, b"") for path in ORDERS)
    return {
        "scripts/init-top/cfs": _added("initramfs-tools-init-top"),
        "scripts/local-bottom/cfs": _added("initramfs-tools-local-bottom"),
        # before udev, which stands in the first of them
        ORDERS[0]: Packed(_line("init-top") + _without_ours("init-top", top)),
        ORDERS[1]: Packed(_without_ours("local-bottom", bottom) + _line("local-bottom")),
    }


def _line(folder: str) -> bytes:
    return f'/scripts/{folder}/cfs "$@"\n{_PARAMETERS}'.encode()


def _without_ours(folder: str, order: bytes) -> bytes:
    order = order.replace(_line(folder), b"")
    return order if order.endswith(b"\n") or not order else order + b"\n"


def _mkinitcpio(contents: Contents) -> dict[str, Packed]:
    config = contents.kept.get(MKINITCPIO_CONFIG, b"").rstrip(b"\n") + b"\n"
    for variable in ("EARLYHOOKS", "LATEHOOKS"):
        named = re.search(rb"(?m)^%s=.*\bcfs\b" % variable.encode(), config)
        config += b"" if named else f'{variable}="${variable} cfs"\n'.encode()
    return {"hooks/cfs": _added("mkinitcpio-hook"), MKINITCPIO_CONFIG: Packed(config)}


def _dracut(contents: Contents) -> dict[str, Packed]:
    folder = _first(DRACUT_HOOK, contents.programs.files) or "usr/lib/dracut/hooks"
    return {
        f"{folder}/pre-udev/01-cfs-modules.sh": _added("dracut-pre-udev.sh"),
        f"{folder}/pre-pivot/20-pre-pivot.sh": _added("dracut-pre-pivot.sh"),
    }


_SYSTEMD = Kind("systemd", _systemd)
_INITRAMFS_TOOLS = Kind("initramfs-tools", _initramfs_tools)
_MKINITCPIO = Kind("mkinitcpio", _mkinitcpio)
_DRACUT = Kind("dracut", _dracut)
