"""What repositories expect of object stores and of fs-verity, and the names of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cfs_storage_composefs.fsverity import enable, measure

if TYPE_CHECKING:
    from cfs_core.plugin import Content, HashAlgorithm, SourceFile

INLINE_LIMIT = 64
"""Regular files of at most this many bytes are kept in the tree itself (formats B.1)."""


class Sealer(Protocol):
    """Enables fs-verity. The kernel's is `KernelSealer`; where a repository is insecure there is none."""

    def seal(self, fd: int) -> None:
        """Seal a file open read-only."""

    def measure(self, fd: int) -> bytes | None:
        """Return the digest that is enforced on an open file, None if there is none or of another algorithm."""


class KernelSealer:
    """fs-verity by the kernel's ioctls."""

    def __init__(self, algorithm: HashAlgorithm) -> None:
        self._algorithm = algorithm

    def seal(self, fd: int) -> None:
        """Seal a file open read-only.

        Raises:
            VerityBusyError, VerityUnsupportedError, StorageError: as `fsverity.enable`.
        """
        enable(fd, self._algorithm)

    def measure(self, fd: int) -> bytes | None:
        """Return the digest that is enforced on an open file, None if there is none or of another algorithm."""
        measured = measure(fd)
        return measured[1] if measured and measured[0] is self._algorithm else None


def object_path(digest: bytes) -> str:
    """Return the path of an object below objects/."""
    text = digest.hex()
    return f"{text[:2]}/{text[2:]}"


class Store(Protocol):
    """Where content goes: a real store, or one that only remembers names."""

    algorithm: HashAlgorithm

    def __contains__(self, digest: bytes) -> bool:
        """Return whether an object is there."""

    def put(
        self,
        data: bytes,
        created: list[bytes],
        *,
        keep: bool = True,
        source: SourceFile | None = None,
        digest: bytes | None = None,
    ) -> bytes:
        """Store *data* and return its digest; what was not there before is added to *created*.

        *source* is an open file with just this content, *digest* what somebody has hashed already.
        """

    def writer(self, *, keep: bool = True, source: SourceFile | None = None) -> Writer:
        """Begin an object whose content comes in pieces; all of them together are the content of *source*."""

    def content(self, digest: bytes) -> Content:
        """Return stored content; opening it checks its digest."""

    def unchecked(self, digest: bytes) -> Content:
        """Return stored content for a copy that is checked itself."""


class Writer(Protocol):
    """An object under construction. It has no name before `finish`."""

    def write(self, chunk: bytes) -> None:
        """Append."""

    def finish(self, created: list[bytes]) -> bytes:
        """Give the object its name and return the digest."""

    def abort(self) -> None:
        """Forget everything; does nothing after `finish`."""
