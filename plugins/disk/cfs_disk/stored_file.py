"""What files inside a filesystem image have in common: a size and a position."""

from __future__ import annotations

import io
import os


class StoredFile(io.RawIOBase):
    """A file of *size* bytes that can be read and sought; how its bytes are found is the filesystem's (`readinto`)."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte, which may lie behind the end, and return which one it is."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def _wanted(self, buffer: memoryview) -> int:
        """Return how many bytes are to be read into *buffer* from the current position."""
        return max(0, min(len(buffer), self._size - self._at))
