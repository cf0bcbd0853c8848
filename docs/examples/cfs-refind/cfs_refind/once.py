"""The next boot only: a firmware boot option that starts rEFInd with another configuration file, and BootNext."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

from cfs_core.plugin import BootError, SetEfiVariable, Volume

if TYPE_CHECKING:
    from cfs_core.plugin import Partition, TargetView

GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
NUMBER = 0xC0F5
"""Of the boot option. It is in no BootOrder, so only BootNext starts it."""

_ACTIVE = 1
_SECTOR = 512


def plan_once(target: TargetView, loader: str, config_name: str) -> list[SetEfiVariable]:
    """Make the firmware start *loader* (a path on the ESP) with *config_name*, once.

    Raises:
        BootError: the ESP has no partition that a boot option could name.
    """
    partition = target.partition(Volume.ESP)
    if partition is None:
        message = "there is no EFI system partition that a boot option could name"
        raise BootError(message, hint="choose the default instead")
    option = load_option(partition, loader, "rEFInd, once", f"{loader.rpartition('/')[2]} -c {config_name}")
    why = "starts the wanted entry at the next boot only"
    return [
        SetEfiVariable(name=f"Boot{NUMBER:04X}", guid=GLOBAL_GUID, data=option, why=why),
        SetEfiVariable(name="BootNext", guid=GLOBAL_GUID, data=struct.pack("<H", NUMBER), why=why),
    ]


def load_option(partition: Partition, path: str, description: str, arguments: str) -> bytes:
    """Return an EFI_LOAD_OPTION for a file on a GPT partition (UEFI 2.10, 3.1.3, 10.3.5.1, 10.3.5.4)."""
    name = path.replace("/", "\\").encode("utf-16-le") + b"\0\0"
    signature = uuid.UUID(partition.uuid).bytes_le
    place = struct.pack(
        "<BBHIQQ16sBB",
        4,
        1,
        42,
        partition.number,
        partition.start // _SECTOR,
        partition.size // _SECTOR,
        signature,
        2,
        2,
    )
    device_path = place + struct.pack("<BBH", 4, 4, 4 + len(name)) + name + b"\x7f\xff\x04\x00"
    head = struct.pack("<IH", _ACTIVE, len(device_path)) + description.encode("utf-16-le") + b"\0\0"
    return head + device_path + arguments.encode("utf-16-le") + b"\0\0"
