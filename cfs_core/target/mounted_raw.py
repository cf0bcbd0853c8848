"""What of a running machine is no file on a volume: blocks of its disk, variables of its firmware."""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.errors import RefusedError
from cfs_core.model.action import WriteBlocks
from cfs_core.model.disk import MBR_CODE_BYTES, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cfs_core.model.action import SetEfiVariable

_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_IMMUTABLE_FL, from linux/fs.h: efivarfs protects variables this way."""

ATTRIBUTES = 0x7
"""Non-volatile, readable while the firmware boots and by the system that runs (UEFI 2.10, 8.2)."""


@dataclass(frozen=True, slots=True)
class RawPlaces:
    """The devices (or files) that raw volumes are, and where efivarfs is mounted; nothing by default."""

    devices: Mapping[Volume, Path] = field(default_factory=dict)
    variables: Path | None = None

    def read(self, volume: Volume) -> bytes:
        """Return what is on a raw volume; of a disk its first sector's boot code.

        Raises:
            FileNotFoundError: where it is was not told.
            OSError: it cannot be read.
        """
        device = self.devices.get(volume)
        if device is None:
            raise FileNotFoundError(volume.name)
        with device.open("rb", buffering=0) as file:
            # What was written before by another name of the same blocks is not what this name has in memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return file.read(MBR_CODE_BYTES if volume is Volume.DISK else -1)

    def apply(self, action: WriteBlocks | SetEfiVariable) -> None:
        """Do what *action* says, durably.

        Raises:
            RefusedError: where that is was not told.
            OSError: device or firmware refuse it.
        """
        if isinstance(action, WriteBlocks):
            self._write_blocks(action)
        else:
            self._set_variable(action)

    def _write_blocks(self, action: WriteBlocks) -> None:
        device = self.devices.get(action.location.volume)
        if device is None:
            msg = f"blocks cannot be written to {action.location.volume.name}: its device is not known"
            raise RefusedError(msg, hint="make a disk image instead")
        if action.location.volume is Volume.DISK and action.offset + len(action.data) > MBR_CODE_BYTES:
            msg = f"{len(action.data)} bytes at {action.offset} of a disk would be written over its partition table"
            hint = f"its boot code has {MBR_CODE_BYTES} bytes; the plugin that planned it is at fault"
            raise RefusedError(msg, hint=hint)
        descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            data = memoryview(action.data)
            offset = action.offset
            while data:
                count = os.pwrite(descriptor, data, offset)
                data, offset = data[count:], offset + count
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _set_variable(self, action: SetEfiVariable) -> None:
        """Set it in one write, as efivarfs wants it: attributes, then the value."""
        if self.variables is None or not self.variables.is_dir():
            msg = f"the firmware variable {action.name} cannot be set: efivarfs is not mounted"
            raise RefusedError(msg, hint="this machine did not start by UEFI")
        path = self.variables / f"{action.name}-{action.guid}"
        if path.exists():
            _make_mutable(path)
        data = struct.pack("<I", ATTRIBUTES) + action.data
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


def _make_mutable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = bytearray(struct.calcsize("l"))
        try:
            fcntl.ioctl(descriptor, _GET_FLAGS, buffer)
            flags = struct.unpack_from("i", buffer)[0]
            if flags & _IMMUTABLE:
                fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags & ~_IMMUTABLE))
        except OSError:
            return  # not efivarfs: nothing is protected there
    finally:
        os.close(descriptor)
