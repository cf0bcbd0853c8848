"""A file that is made beside its final name, and leaves nothing behind when the run that makes it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from cfs_core.errors import DiskError, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"\.cfs-[0-9a-f]{16}\.partial\Z")
# Random names do not clash. Another try is for a file that a run which just began took for stale before it was locked.
_TRIES = 100


class PartialFile:
    """``.cfs-XXXXXXXXXXXXXXXX.partial``, locked as long as its maker lives. Use as a context manager.

    The lock goes with the process, however that ends; the next run in the same directory removes files nobody locks.
    """

    def __init__(self, final: Path) -> None:
        self._final = final
        self._fd = -1
        self.path = final

    def __enter__(self) -> Self:
        remove_stale(self._final.parent)
        try:
            for _ in range(_TRIES):
                self.path = self._final.with_name(f".cfs-{secrets.token_hex(8)}.partial")
                try:
                    self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                except FileExistsError:
                    continue
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another run may have taken it for stale before it was locked.
                if os.fstat(self._fd).st_nlink:
                    return self
                os.close(self._fd)
        except BlockingIOError:
            os.close(self._fd)
        except OSError as error:
            msg = f"cannot make a file in {self._final.parent}: {error.strerror}"
            raise DiskError(msg, hint="choose a directory you may write to") from error
        msg = f"cannot make a temporary file beside {self._final}"
        raise DiskError(msg)

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            if self.path != self._final:
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def resize(self, size: int) -> None:
        """Give the file *size* bytes, without using space for them.

        Raises:
            DiskError: the host's filesystem has no such large files.
        """
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            msg = f"cannot make a file of {size} bytes in {self._final.parent}: {error.strerror}"
            raise DiskError(msg) from error

    def write_at(self, offset: int, data: bytes) -> None:
        """Write *data* at *offset*.

        Raises:
            DiskError: it cannot be written.
        """
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(self._fd, view, offset)
                offset, view = offset + written, view[written:]
        except OSError as error:
            msg = f"cannot write {self.path}: {error.strerror}"
            raise DiskError(msg) from error

    def sync(self) -> None:
        """Make the contents durable.

        Raises:
            DiskError: the host's disk is full or broken.
        """
        try:
            os.fsync(self._fd)
        except OSError as error:
            msg = f"cannot make {self.path} durable: {error.strerror}"
            raise DiskError(msg) from error

    def publish(self, *, replace: bool) -> None:
        """Give the file its final name, in one step.

        Raises:
            RefusedError: the name is taken and *replace* is False.
            DiskError: the host's filesystem refuses.
        """
        try:
            if replace:
                self.path.replace(self._final)
            else:
                self._publish_new()
            self.path = self._final
            _sync_directory(self._final.parent)
        except FileExistsError as error:
            raise taken(self._final) from error
        except OSError as error:
            msg = f"cannot give the disk image its name {self._final}: {error.strerror}"
            raise DiskError(msg) from error

    def _publish_new(self) -> None:
        try:
            os.link(self.path, self._final)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
                raise
            # FAT and some network filesystems have no hard links.
            if self._final.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._final)) from None
            self.path.rename(self._final)
        else:
            self.path.unlink()


def taken(path: Path) -> RefusedError:
    """Return the error for a final name that exists."""
    msg = f"{path} exists already"
    return RefusedError(msg, hint="choose another name, or allow it to be replaced")


def remove_stale(folder: Path) -> None:
    """Remove partial files of this user in *folder* that no living run holds."""
    try:
        candidates = [path for path in folder.iterdir() if _NAME.match(path.name)]
    except OSError:
        return
    for path in candidates:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                found = os.fstat(descriptor)
                if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            finally:
                os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
