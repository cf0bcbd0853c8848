"""The initramfs inside a unified kernel image: section ``.initrd`` (Microsoft PE/COFF; UAPI group: UKI)."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageError

if TYPE_CHECKING:
    from typing import BinaryIO

    from cfs_core.plugin import Content

SECTION = struct.Struct("<8sIIII")
SECTION_SIZE = 40
SECTION_LIMIT = 256


class _Slice(io.RawIOBase):
    """Part of a file, read front to back."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._left = size
        file.seek(offset)

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to *size* bytes; fewer only at the end."""
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        return data


def initrd_section(uki: Content, file: BinaryIO) -> BinaryIO | None:
    """Return section ``.initrd`` of the UKI open as *file*; None if it has none.

    Raises:
        ImageError: not a PE file, or its headers contradict its size.
    """
    head = file.read(64)
    if len(head) < 64 or head[:2] != b"MZ":  # noqa: PLR2004 - the DOS header's size
        message = "the UKI is not a PE file"
        raise ImageError(message, hint="build the UKI again")
    start = int.from_bytes(head[60:64], "little")
    file.seek(start)
    coff = file.read(24)
    if len(coff) < 24 or coff[:4] != b"PE\0\0":  # noqa: PLR2004 - signature and COFF header
        message = "the UKI has no PE header"
        raise ImageError(message, hint="build the UKI again")
    count, optional = int.from_bytes(coff[6:8], "little"), int.from_bytes(coff[20:22], "little")
    file.seek(start + 24 + optional)
    for _ in range(min(count, SECTION_LIMIT)):
        header = file.read(SECTION_SIZE)
        if len(header) < SECTION_SIZE:
            break
        name, virtual_size, _, raw_size, raw_offset = SECTION.unpack_from(header)
        if name.rstrip(b"\0") == b".initrd":
            size = min(virtual_size, raw_size)
            if raw_offset + size > uki.size:
                message = "the UKI's .initrd section lies behind the end of the file"
                raise ImageError(message, hint="build the UKI again")
            return _Slice(file, raw_offset, size)  # type: ignore[return-value]  # what a reader needs of BinaryIO
    return None
