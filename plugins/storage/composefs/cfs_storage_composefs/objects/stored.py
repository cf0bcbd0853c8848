"""Content of stored objects: opened without following links, handed out only if it has the digest it is named by."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from cfs_storage_composefs.errors import DamagedError, MissingError, as_storage_error
from cfs_storage_composefs.fsverity import digest_file, measure
from cfs_storage_composefs.linux import OPEN_DIRECTORY, open_below
from cfs_storage_composefs.objects.names import object_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cfs_core.plugin import HashAlgorithm

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_Version = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class ObjectContent:
    """Content of the object at *path*, *size* bytes; *opened* opens it anew, checked or not."""

    path: Path
    size: int
    opened: Callable[[], int] = field(repr=False, compare=False)

    def open(self) -> BinaryIO:
        """Open for reading from the start.

        Raises:
            DamagedError: it is checked, and its bytes do not have its digest.
            StorageError: it cannot be read.
        """
        return os.fdopen(self.opened(), "rb")


def open_object(directory: int, path: str) -> int:
    """Open the object at *path* (``xx/rest``) below *directory*; neither of the two names may be a link.

    Raises:
        OSError: as the kernel says; ``ELOOP`` or ``ENOTDIR`` for a link, ``EINVAL`` for what is no regular file.
    """
    shard, name = path.split("/")
    with open_below(directory, [shard]) as below:
        fd = os.open(name, _OPEN, dir_fd=below)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is not a regular file", path)


class Checker:
    """Remembers which objects had their digest, as long as the files stay what they were."""

    def __init__(self, algorithm: HashAlgorithm) -> None:
        self._algorithm = algorithm
        self._seen: dict[bytes, _Version] = {}

    def is_intact(self, fd: int, digest: bytes) -> bool:
        """Return whether the open file has *digest*: the kernel says so, or its bytes do.

        Raises:
            OSError: it cannot be read.
        """
        found = os.fstat(fd)
        version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if self._seen.get(digest) == version:
            return True
        measured = measure(fd)
        if measured != (self._algorithm, digest) and digest_file(fd, self._algorithm) != digest:
            return False
        self._seen[digest] = version
        return True

    def check(self, fd: int, digest: bytes) -> None:
        """Refuse an open file that is not the object *digest*.

        Raises:
            DamagedError: its bytes have another digest.
            StorageError: it cannot be read.
        """
        try:
            if self.is_intact(fd, digest):
                return
        except OSError as error:
            raise as_storage_error(error, f"reading object {digest.hex()}") from error
        msg = f"object {digest.hex()} is damaged: its bytes do not have this digest"
        raise DamagedError(msg, hint="pull the image again; cfs repo fsck lists what else is damaged")


def open_stored(objects: Path, digest: bytes, checker: Checker | None) -> int:
    """Open the object *digest* in the directory *objects*; with *checker* only if its bytes have this digest.

    By path: contents are read by plans, which may be carried out when the repository is closed.

    Raises:
        MissingError: no such object.
        DamagedError: a link or no regular file in its place, or other bytes.
        StorageError: it cannot be read.
    """
    try:
        directory = os.open(objects, OPEN_DIRECTORY | os.O_NOFOLLOW)
        try:
            fd = open_object(directory, object_path(digest))
        finally:
            os.close(directory)
    except FileNotFoundError as error:
        msg = f"object {digest.hex()} is not in the repository"
        raise MissingError(msg, hint="pull the image again; cfs repo fsck lists what else is missing") from error
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP, errno.EINVAL}:
            msg = f"object {digest.hex()} in {objects} is behind a link, or is no regular file"
            hint = "links are not followed in a repository: remove it and pull the image again"
            raise DamagedError(msg, hint=hint) from error
        raise as_storage_error(error, f"opening object {digest.hex()} in {objects}") from error
    if checker is not None:
        try:
            checker.check(fd, digest)
        except BaseException:
            os.close(fd)
            raise
    return fd
