"""A private view of the machine's mounts in which the root volume can be written, as long as this process lives."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.errors import HostError
from cfs_core.lifecycle.running import read_running

if TYPE_CHECKING:
    from cfs_core.lifecycle.running import RunningSystem

_NEW_NAMESPACE = 0x20000
"""CLONE_NEWNS, from linux/sched.h."""

_REMOUNT, _BIND, _RECURSIVE, _SLAVE = 0x20, 0x1000, 0x4000, 0x80000
"""MS_ flags, from linux/mount.h."""

ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
ESP_PLACE = Path("/run/cfs/esp")
_PLACES = ("/efi", "/boot", "/boot/efi")


def make_writable() -> Path | None:
    """Make /sysroot writable for this process alone; return where the ESP was mounted, if nobody had mounted it.

    The rest of the system sees none of it: it happens in a mount namespace of its own. While the system shuts down,
    what systemd mounts on demand is no longer mounted; then the ESP is, here.

    Raises:
        HostError: without root rights.
    """
    for name in _PLACES:  # what systemd mounts when it is looked at has to be looked at before
        with suppress(OSError):
            os.listdir(name)  # noqa: PTH208 - only to touch it
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.unshare(_NEW_NAMESPACE), "leave the system's mounts alone")
    _checked(libc.mount(None, b"/", None, _RECURSIVE | _SLAVE, None), "keep mounts private")
    _checked(libc.mount(None, b"/sysroot", None, _REMOUNT | _BIND, None), "make /sysroot writable")
    running = read_running(Path("/"))
    if any(mount.where in _PLACES and mount.filesystem == "vfat" for mount in running.mounts):
        return None
    device = find_esp(running)
    if device is None:
        return None
    ESP_PLACE.mkdir(parents=True, exist_ok=True)
    options = b"umask=0077"
    mounted = libc.mount(os.fsencode(device), os.fsencode(ESP_PLACE), b"vfat", 0, options)
    return ESP_PLACE if mounted == 0 else None


def find_esp(running: RunningSystem, root: Path = Path("/")) -> Path | None:
    """Return the EFI system partition on the disk that the root volume is on, as udev knows partitions."""
    mount = running.mount_at("/sysroot")
    if mount is None:
        return None
    with suppress(OSError):
        own = (root / "sys/dev/block" / mount.device).resolve()
        for partition in sorted(own.parent.iterdir()):
            number = partition / "dev"
            if not (partition / "partition").exists() or not number.exists():
                continue
            facts = (root / "run/udev/data" / f"b{number.read_text().strip()}").read_text(errors="replace")
            if f"ID_PART_ENTRY_TYPE={ESP_TYPE}" in facts:
                return root / "dev" / partition.name
    return None


def _checked(result: int, what: str) -> None:
    if result:
        reason = os.strerror(ctypes.get_errno())
        msg = f"cfs cannot {what}: {reason}"
        raise HostError(msg, hint="changing a machine needs root rights")
