"""Which filesystem is in a region: superblock magic, identifier, label."""

from __future__ import annotations

import os
import struct
import uuid
from dataclasses import dataclass

_EXT_MAGIC = b"\x53\xef"
_PROBE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a superblock says about itself."""

    filesystem: str
    fs_uuid: str
    label: str | None


def probe(fd: int, offset: int) -> Probed | None:
    """Recognise ext4 and FAT at byte *offset* of an open file; None for anything else."""
    head = os.pread(fd, _PROBE_BYTES, offset)
    if len(head) < _PROBE_BYTES:
        return None
    if head[1080:1082] == _EXT_MAGIC:
        return Probed(
            filesystem="ext4", fs_uuid=str(uuid.UUID(bytes=head[1128:1144])), label=_label(head[1144:1160], b"\0")
        )
    if head[510:512] == b"\x55\xaa":
        for name, serial_at in ((head[82:90], 67), (head[54:62], 39)):
            if name.startswith(b"FAT"):
                serial = f"{struct.unpack_from('<I', head, serial_at)[0]:08X}"
                label = _label(head[serial_at + 4 : serial_at + 15], b" ")
                return Probed(filesystem="vfat", fs_uuid=f"{serial[:4]}-{serial[4:]}", label=label)
    return None


def _label(raw: bytes, padding: bytes) -> str | None:
    text = raw.partition(b"\0")[0].rstrip(padding).decode("utf-8", "replace")
    return None if text in {"", "NO NAME"} else text
