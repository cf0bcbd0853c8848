"""Bytes that are somewhere: in memory, in a file, in a repository."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

from cfs_core.errors import LimitError

if TYPE_CHECKING:
    from pathlib import Path


@runtime_checkable
class Content(Protocol):
    """A known number of bytes that can be opened any number of times."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def open(self) -> BinaryIO:
        """Open for reading from the start; the caller closes it."""


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Content in memory."""

    data: bytes = field(repr=False)
    """The bytes."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def open(self) -> BinaryIO:
        """Open for reading from the start."""
        return io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class FileContent:
    """Content of a file that does not change while it is needed."""

    path: Path
    """The file on this host."""

    size: int
    """In bytes."""

    @classmethod
    def of(cls, path: Path) -> FileContent:
        """Take the size from the file.

        Raises:
            OSError: the file cannot be examined.
        """
        return cls(path, path.stat().st_size)

    def open(self) -> BinaryIO:
        """Open for reading from the start."""
        return self.path.open("rb")


def read_all(content: Content) -> bytes:
    """Return all bytes of *content*; meant for boot files, not for layers."""
    with content.open() as file:
        return file.read()


def read_within(content: Content | None, path: str, limit: int) -> bytes | None:
    """Return all bytes of *content*, which *path* has; None if it is None.

    Raises:
        LimitError: longer than *limit* bytes.
    """
    if content is None:
        return None
    if content.size > limit:
        msg = f"{path} has {content.size} bytes, more than {limit}"
        raise LimitError(msg, facts={"limit_bytes": limit})
    return read_all(content)
