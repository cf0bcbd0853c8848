"""Files for parsers that want a path: in memory, written over for every input."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made below


@functools.cache
def folder() -> Path:
    """Return a directory that is gone when the process ends."""
    made = Path(tempfile.mkdtemp(prefix="cfs-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def put(name: str, data: bytes) -> Path:
    """Write a file there, below its directories."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class Overlay:
    """An image that is kept, and an input that says what of it is different.

    An input is a sequence of changes: a place (3 bytes, little endian, modulo the length of *view*), a count of bytes,
    and these bytes. *view* are the ranges of the image that are worth changing: its metadata.
    """

    def __init__(self, path: Path, view: list[tuple[int, int]]) -> None:
        self.path = path
        self._view = view
        self._length = sum(size for _, size in view)
        self._dirty: list[tuple[int, bytes]] = []
        self._file = path.open("r+b", buffering=0)

    def apply(self, data: bytes) -> None:
        """Make the image what it was, but for the changes of *data*."""
        for at, old in reversed(self._dirty):
            self._write(at, old)
        self._dirty.clear()
        cursor = 0
        while cursor + 4 < len(data):
            place, count = int.from_bytes(data[cursor : cursor + 3], "little") % self._length, data[cursor + 3]
            at, room = self._locate(place)
            new = data[cursor + 4 : cursor + 4 + count][:room]
            cursor += 4 + count
            self.poke(at, new)

    def read(self, at: int, size: int) -> bytes:
        """Return bytes of the image as it is now."""
        self._file.seek(at)
        return self._file.read(size)

    def poke(self, at: int, new: bytes) -> None:
        """Change the image until the next input."""
        self._dirty.append((at, self.read(at, len(new))))
        self._write(at, new)

    def change(self, at: int, new: bytes) -> bytes:
        """Return the input that puts *new* at byte *at* of the image."""
        place = 0
        for start, size in self._view:
            if start <= at < start + size:
                parts = [new[cursor : cursor + 255] for cursor in range(0, len(new), 255)]
                return b"".join(
                    (place + at - start + 255 * number).to_bytes(3, "little") + bytes([len(part)]) + part
                    for number, part in enumerate(parts)
                )
            place += size
        msg = f"byte {at} is in no range that is changed"
        raise ValueError(msg)

    def _locate(self, place: int) -> tuple[int, int]:
        for start, size in self._view:
            if place < size:
                return start + place, size - place
            place -= size
        raise AssertionError(place)

    def _write(self, at: int, data: bytes) -> None:
        self._file.seek(at)
        self._file.write(data)
