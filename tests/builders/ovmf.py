"""Firmware variables of OVMF, written into the file that is its flash memory."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

AUTHENTICATED_STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
ATTRIBUTES = 7  # non-volatile, for boot services, for the running system


def with_variables(flash: bytes, variables: Mapping[tuple[str, str], bytes]) -> bytes:
    """Return OVMF's empty store with *variables* by (GUID, name) (edk2: VariableFormat.h, PiFirmwareVolume.h)."""
    (start,) = struct.unpack_from("<H", flash, 48)
    assert flash[start : start + 16] == AUTHENTICATED_STORE.bytes_le
    records = b""
    for (guid, name), data in variables.items():
        text = name.encode("utf-16-le") + b"\0\0"
        head = struct.pack("<HBBIQ16xIII", 0x55AA, 0x3F, 0, ATTRIBUTES, 0, 0, len(text), len(data))
        record = head + uuid.UUID(guid).bytes_le + text + data
        records += record + b"\xff" * (-len(record) % 4)
    at = start + 28
    assert set(flash[at : at + len(records)]) == {0xFF}
    return flash[:at] + records + flash[at + len(records) :]
