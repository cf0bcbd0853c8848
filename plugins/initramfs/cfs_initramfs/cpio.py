"""Files of an initramfs: cpio archives in the "newc" format (kernel: early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.plugin import CPIO_MAGICS, ImageError, LimitError
from cfs_initramfs.segments import InflatedStream, RawStream, compression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from cfs_initramfs.segments import Stream

HEADER = 110
TRAILER = b"TRAILER!!!"
PATH_LIMIT = 4096  # the kernel's PATH_MAX
ENTRY_LIMIT = 500_000
TOTAL_LIMIT = 4 * 1024 * 1024 * 1024
KEPT_LIMIT = 1024 * 1024
SKIP = 1024 * 1024
HEAD = 4096


@dataclass(frozen=True, slots=True)
class CpioFile:
    """One entry. ``name`` has no leading ``./`` or ``/``; ``data`` is None where the content was not asked for.

    ``head`` are the first bytes of a file that can be executed, ``links`` the number of names it has, and
    ``compression`` that of the archive.
    """

    name: str
    mode: int
    size: int
    data: bytes | None
    head: bytes = b""
    links: int = 1
    compression: str | None = None

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link (its ``data`` is the target)."""
        return stat.S_ISLNK(self.mode)


def read_initramfs(file: BinaryIO, keep: Callable[[str], bool]) -> Iterator[CpioFile]:
    """Yield the entries of all archives in *file*, later ones override earlier ones. Memory stays flat.

    *keep* says whose content is wanted (up to 1 MiB each); targets of links are always there.

    Raises:
        UnknownCompressionError: a segment that cannot be read here.
        LimitError: more entries or bytes than an initramfs can sensibly have.
        ImageError: damaged or truncated.
    """
    raw = RawStream(file)
    budget = _Budget()
    while _skip_zeros(raw):
        kind = compression(raw.peek(8))
        if kind is None:
            yield from _archive(raw, keep, budget)
            continue
        inflated = InflatedStream(raw, kind)
        while budget.skip(inflated.skip_zeros()) and (first := inflated.take(4)):
            for entry in _archive(inflated, keep, budget, first):
                yield replace(entry, compression=kind)


@dataclass(slots=True)
class _Budget:
    entries: int = ENTRY_LIMIT
    total: int = TOTAL_LIMIT

    def spend(self, size: int) -> None:
        self.entries -= 1
        self.skip(size)

    def skip(self, size: int) -> bool:
        self.total -= size
        if self.entries < 0 or self.total < 0:
            message = f"the initramfs has more than {ENTRY_LIMIT} files or {TOTAL_LIMIT >> 30} GiB"
            raise LimitError(message, hint="no kernel would unpack it")
        return True


def _skip_zeros(raw: RawStream) -> bool:
    """Go to the next segment; False at the end."""
    while block := raw.take(4096):
        rest = block.lstrip(b"\0")
        if rest:
            raw.give_back(rest)
            return True
    return False


def _archive(stream: Stream, keep: Callable[[str], bool], budget: _Budget, first: bytes = b"") -> Iterator[CpioFile]:
    """Yield entries up to the archive's trailer; *first* are bytes of its first header already taken."""
    start = stream.position - len(first)
    while True:
        header = first + _exactly(stream, HEADER - len(first))
        first = b""
        if header[:6] not in CPIO_MAGICS:
            message = f"the initramfs is damaged: {header[:6]!r} where a cpio header belongs"
            raise ImageError(message, hint="build the initramfs again")
        fields = _fields(header)
        mode, size, name_size = fields[1], fields[6], fields[11]
        if not 0 < name_size <= PATH_LIMIT:
            message = f"the initramfs has a file name of {name_size} bytes"
            raise LimitError(message, hint="build the initramfs again")
        budget.spend(size)
        name = _exactly(stream, name_size).split(b"\0", 1)[0]
        _align(stream, start)
        if name == TRAILER:
            return
        text = name.decode("utf-8", "surrogateescape")
        text = "/".join(part for part in text.split("/") if part not in {"", "."})
        data, head = None, b""
        if (stat.S_ISLNK(mode) and size <= PATH_LIMIT) or (size <= KEPT_LIMIT and keep(text)):
            data = _exactly(stream, size)
        else:
            head = _exactly(stream, min(size, HEAD)) if stat.S_ISREG(mode) and mode & 0o111 else b""
            _skip(stream, size - len(head))
        _align(stream, start)
        yield CpioFile(text, mode, size, data, head, fields[4])


def _fields(header: bytes) -> list[int]:
    """Return the 13 numbers of a header."""
    try:
        return [int(header[at : at + 8], 16) for at in range(6, HEADER, 8)]
    except ValueError:
        message = "the initramfs is damaged: a cpio header has no hex number"
        raise ImageError(message, hint="build the initramfs again") from None


def _exactly(stream: Stream, count: int) -> bytes:
    data = stream.take(count)
    if len(data) < count:
        message = "the initramfs is truncated"
        raise ImageError(message, hint="build the initramfs again")
    return data


def _skip(stream: Stream, count: int) -> None:
    while count:
        count -= len(_exactly(stream, min(count, SKIP)))


def _align(stream: Stream, start: int) -> None:
    padding = (start - stream.position) % 4
    if padding:
        stream.take(padding)
