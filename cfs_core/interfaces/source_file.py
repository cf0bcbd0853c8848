"""Open files that a layer's bytes are read from: storage may share their blocks instead of writing them again."""

from __future__ import annotations

import os
import time

_SETTLED_SECONDS = 0.1
"""Kernels stamp files with a clock of a few milliseconds: of a younger stamp nobody can tell what came after it."""


class SourceFile:
    """A regular file, open for reading, that is as a whole the content of one member of a layer.

    It owns the descriptor *fd*, which is closed when the last one who holds this object lets go: it crosses threads,
    and any of them may end early. Whoever copies from *fd* asks afterwards whether it was `unchanged`.
    """

    __slots__ = ("_before", "_trusted", "fd", "size")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        status = os.fstat(fd)
        self.size = status.st_size
        self._before = _stamp(status)
        self._trusted = status.st_ctime < time.time() - _SETTLED_SECONDS

    def unchanged(self) -> bool:
        """Return whether the file is certainly still what it was when it was opened.

        False does not mean that it has changed, only that it cannot be told: then compare digests.
        """
        return self._trusted and _stamp(os.fstat(self.fd)) == self._before

    def __del__(self) -> None:
        os.close(self.fd)


class FileBytes(bytes):
    """A chunk of a layer that is the beginning of a file's content, and that file (``source``)."""

    source: SourceFile
    """The file whose content this begins."""

    @classmethod
    def of(cls, data: bytes | memoryview, source: SourceFile) -> FileBytes:
        """Return *data* with its file; all of the file's content must follow in the stream."""
        made = cls(data)
        made.source = source
        return made


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
