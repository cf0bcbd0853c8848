"""Opening files below a directory without ever leaving it, links included (openat2(2), RESOLVE_IN_ROOT)."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import Self

_OPENAT2 = 437
"""The same number on every architecture."""

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_LINKS = 40
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class Beneath:
    """A directory whose files are opened by untrusted relative names. A context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._how = ctypes.create_string_buffer(struct.pack("QQQ", FLAGS, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS))
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._has_openat2 = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def open(self, name: bytes) -> int:
        """Open the regular file *name* for reading; a link as last part is not followed.

        Raises:
            OSError: as open(2).
        """
        name = name.lstrip(b"/")
        if self._has_openat2:
            result: int = self._syscall(
                ctypes.c_long(_OPENAT2),
                ctypes.c_int(self._root),
                ctypes.c_char_p(name),
                self._how,
                ctypes.c_size_t(24),
            )
            if result >= 0:
                return result
            number = ctypes.get_errno()
            # EPERM is what seccomp filters of older container engines say to calls that they do not know.
            if number not in (errno.ENOSYS, errno.EPERM):
                raise OSError(number, os.strerror(number), os.fsdecode(name))
            self._has_openat2 = False
        return self._walk(name)

    def _walk(self, name: bytes) -> int:
        """Do the same part by part, for kernels before 5.6 and for sandboxes that forbid the call."""
        stack = [os.dup(self._root)]
        todo = [part for part in reversed(name.split(b"/")) if part not in (b"", b".")]
        links = 0
        try:
            while todo:
                part = todo.pop()
                if part == b"..":
                    if len(stack) > 1:
                        os.close(stack.pop())
                    continue
                if not todo:
                    return os.open(part, FLAGS, dir_fd=stack[-1])
                handle = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
                if not stat.S_ISLNK(os.fstat(handle).st_mode):
                    stack.append(handle)
                    continue
                target = os.readlink(b"", dir_fd=handle)
                os.close(handle)
                links += 1
                if links > _LINKS:
                    break
                if target.startswith(b"/"):
                    while len(stack) > 1:
                        os.close(stack.pop())
                todo += [each for each in reversed(target.split(b"/")) if each not in (b"", b".")]
        finally:
            for handle in stack:
                os.close(handle)
        number = errno.ELOOP if links > _LINKS else errno.EISDIR
        raise OSError(number, os.strerror(number), os.fsdecode(name))
