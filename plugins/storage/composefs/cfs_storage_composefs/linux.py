"""Calls on open descriptors that Python or pathlib do not offer."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


@contextmanager
def open_below(directory: int, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """Open the directory *parts* below the open *directory*, each step without following a link; close it afterwards.

    With *create*, missing ones are made (0755).

    Raises:
        OSError: as the kernel says; ``ELOOP`` or ``ENOTDIR`` for a link.
    """
    here = directory
    try:
        for part in parts:
            try:
                below = os.open(part, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            except FileNotFoundError:
                if not create:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
                below = os.open(part, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            if here != directory:
                os.close(here)
            here = below
        yield here
    finally:
        if here != directory:
            os.close(here)


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
