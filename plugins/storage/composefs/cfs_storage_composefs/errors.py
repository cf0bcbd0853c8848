"""Repository errors with codes of their own, and the one place where OSError becomes one of them."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cfs_core.plugin import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class FullError(StorageError):
    """No space, quota or file size left."""

    code = "storage.full"


class LockedError(StorageError):
    """Somebody else uses the repository."""

    code = "storage.locked"


class MissingError(StorageError):
    """The repository has no such image, layer or object."""

    code = "storage.not-found"


class DamagedError(StorageError):
    """What the repository holds is not what it should be."""

    code = "storage.damaged"


class ReadOnlyError(StorageError):
    """The repository cannot be written."""

    code = "storage.read-only"


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn an OSError from the block into a StorageError about *what* (a phrase: ``writing the repository at /x``).

    Raises:
        FullError: no space, over quota, or over the limit of file sizes.
        ReadOnlyError: not permitted or a read-only filesystem.
        StorageError: any other OSError.
    """
    try:
        yield
    except OSError as error:
        raise as_storage_error(error, what) from error


def as_storage_error(error: OSError, what: str) -> StorageError:
    """Return the StorageError that says what *error* means for *what*."""
    reason = error.strerror or str(error)
    where = f" ({error.filename})" if isinstance(error.filename, str) else ""
    message = f"{what} failed: {reason}{where}"
    if error.errno in _FULL:
        hint = "free space there, or collect garbage (cfs repo gc), or choose another repository (--repo)"
        if error.errno == errno.EFBIG:
            hint = "the limit of file sizes is too low (ulimit -f)"
        return FullError(message, hint=hint)
    if error.errno in _REFUSED:
        return ReadOnlyError(message, hint="check owner and mount options, or choose another repository (--repo)")
    return StorageError(message, hint="check the filesystem and the kernel log")
