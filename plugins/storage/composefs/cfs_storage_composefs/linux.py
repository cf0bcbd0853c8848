"""Calls on open descriptors that Python or pathlib do not offer."""

from __future__ import annotations

import ctypes
import os

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_AT_EMPTY_PATH = 0x1000
_libc = ctypes.CDLL(None, use_errno=True)
_linkat = _libc.linkat
_linkat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
_syncfs = _libc.syncfs
_syncfs.argtypes = (ctypes.c_int,)


def entries(directory: int | str) -> list[str]:
    """Return the names in a directory (a path or a descriptor), in no order."""
    return os.listdir(directory)  # noqa: PTH208 - pathlib cannot list a descriptor


def syncfs(fd: int) -> None:
    """Write everything of the filesystem that *fd* is on to its device (syncfs(2)).

    Raises:
        OSError: as the kernel says.
    """
    if _syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def link_open_file(fd: int, directory: int, name: str) -> None:
    """Give the unnamed file *fd* the name *name* in *directory* (linkat(2) with AT_EMPTY_PATH).

    Kernels before 6.10 want CAP_DAC_READ_SEARCH for it and answer ENOENT without.

    Raises:
        OSError: as the kernel says.
    """
    if _linkat(fd, b"", directory, os.fsencode(name), _AT_EMPTY_PATH):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
