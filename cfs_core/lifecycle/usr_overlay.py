"""A writable /usr until the next boot."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.errors import HostError, RefusedError

if TYPE_CHECKING:
    from cfs_core.lifecycle.machine import Machine

_READ_ONLY = 1
"""MS_RDONLY, from linux/mount.h."""

PLACE = Path("/run/cfs/usr-overlay")


def mount_usr_overlay(machine: Machine, *, read_only: bool = False) -> None:
    """Mount an overlay over /usr whose changes are in memory and gone after the next boot.

    With *read_only* nothing can be written to it yet; ``mount -o remount,rw /usr`` in a mount namespace of one's own
    can, and the rest of the system sees nothing of that.

    Raises:
        RefusedError: there is one.
        HostError: without root rights.
    """
    if machine.running.usr_overlay is not None:
        msg = "an overlay is mounted over /usr already"
        raise RefusedError(msg, hint="it goes away with the next boot", code="state.usr-overlay")
    try:
        for name in ("upper", "work"):
            (PLACE / name).mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        msg = f"{PLACE} cannot be made: {cause.strerror}"
        raise HostError(msg, hint="changing a machine needs root rights") from cause
    options = f"lowerdir=/usr,upperdir={PLACE}/upper,workdir={PLACE}/work"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"overlay", b"/usr", b"overlay", _READ_ONLY if read_only else 0, options.encode()):
        reason = os.strerror(ctypes.get_errno())
        msg = f"no overlay can be mounted over /usr: {reason}"
        raise HostError(msg, hint="changing a machine needs root rights")
