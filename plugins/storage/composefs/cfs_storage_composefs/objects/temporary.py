"""Files that do not exist until they are finished."""

from __future__ import annotations

import contextlib
import os


class TemporaryFile:
    """An open file that disappears unless it gets a name."""

    __slots__ = ("_directory", "fd", "name")

    def __init__(self, directory: int, fd: int, name: str | None) -> None:
        self._directory = directory
        self.fd = fd
        self.name = name

    def write(self, data: bytes | memoryview, offset: int = 0) -> None:
        """Write all of *data* at *offset* bytes.

        Raises:
            OSError: as the kernel says.
        """
        written = os.pwrite(self.fd, data, offset)
        if written < len(data):
            view = memoryview(data)
            while written < len(view):
                written += os.pwrite(self.fd, view[written:], offset + written)

    def reopen_read_only(self) -> None:
        """Trade the writable descriptor for a read-only one; sealing asks for it."""
        reader = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(self.fd)
        self.fd = reader

    def close(self) -> None:
        """Close, and remove the temporary name if there is one."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self.name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.name, dir_fd=self._directory)
            self.name = None
