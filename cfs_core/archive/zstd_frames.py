"""Where zstd frames begin and end (RFC 8878, 3.1); the library's stream reader does not notice a torn one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_MAGIC = 0xFD2FB528
_SKIPPABLE, _SKIPPABLE_MASK = 0x184D2A50, 0xFFFFFFF0
_DICTIONARY_BYTES = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)
_RLE_BLOCK = 1
_FOREVER = -1 << 62


class ZstdFrames:
    """Passes compressed bytes on unchanged and follows the frames in them."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._steps = _steps()
        self._step = next(self._steps)
        self._collected = b""
        self._whole = True

    @property
    def whole(self) -> bool:
        """Whether the bytes so far are whole frames."""
        return self._whole

    def read(self, size: int) -> bytes:
        """Return between one and *size* bytes, none at the end."""
        data = self._read(size)
        position = 0
        while position < len(data):
            if self._step < 0:
                count = min(-self._step, len(data) - position)
                self._step += count
            else:
                count = min(self._step - len(self._collected), len(data) - position)
                self._collected += data[position : position + count]
            position += count
            self._whole = False
            if not self._step or len(self._collected) == self._step:
                found, self._collected = self._collected, b""
                self._step = self._steps.send(found)
                if not self._step:
                    self._whole = True
                    self._step = next(self._steps)
        return data


def _steps() -> Generator[int, bytes, None]:
    """Yield how many bytes to take (positive) or skip (negative), and 0 at the end of each frame."""
    while True:
        magic = int.from_bytes((yield 4), "little")
        if magic & _SKIPPABLE_MASK == _SKIPPABLE:
            size = int.from_bytes((yield 4), "little")
            if size:
                yield -size
        elif magic == _MAGIC:
            yield from _frame()
        else:
            # No frame: the library says so, and has better words for it.
            while True:
                yield _FOREVER
        yield 0


def _frame() -> Generator[int, bytes, None]:
    descriptor = (yield 1)[0]
    single_segment = descriptor >> 5 & 1
    content_size = _CONTENT_SIZE_BYTES[descriptor >> 6] or single_segment
    header = (1 - single_segment) + _DICTIONARY_BYTES[descriptor & 3] + content_size
    if header:
        yield -header
    last = 0
    while not last:
        block = int.from_bytes((yield 3), "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        if kind == _RLE_BLOCK:
            size = 1
        if size:
            yield -size
    if descriptor >> 2 & 1:
        yield -4
