"""An initramfs as a stream of plain and compressed archives (kernel: init/initramfs.c, lib/decompress.c)."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Protocol

from cfs_core.plugin import CPIO_MAGICS, INITRD_COMPRESSIONS, ImageError

if TYPE_CHECKING:
    from typing import BinaryIO

CHUNK = 64 * 1024
ZSTD_CHUNK = 1024  # one byte of a zstd frame can stand for many: small bites keep the result small
DECODER_MEMORY = 192 * 1024 * 1024
LZ4_BLOCK = 8 * 1024 * 1024


class UnknownCompressionError(ImageError):
    """The initramfs is compressed with something that cannot be read here."""

    code = "image.initramfs-compression"


class Stream(Protocol):
    """Bytes that are read once, front to back."""

    position: int

    def take(self, count: int) -> bytes:
        """Return up to *count* bytes; fewer only at the end."""


class RawStream:
    """The file itself, with the ability to give back what was read too far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pushed = b""
        self.position = 0

    def take(self, count: int) -> bytes:
        """Return up to *count* bytes; fewer only at the end."""
        data = self._pushed[:count]
        self._pushed = self._pushed[count:]
        if len(data) < count:
            data += self._file.read(count - len(data))
        self.position += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        """Put *data*, read last, in front again."""
        self._pushed = data + self._pushed
        self.position -= len(data)

    def peek(self, count: int) -> bytes:
        """Return up to *count* bytes and stay where we are."""
        data = self.take(count)
        self.give_back(data)
        return data


class Decoder(Protocol):
    """A decompressor of one member."""

    @property
    def ended(self) -> bool:
        """Whether the member is over."""

    @property
    def rest(self) -> bytes:
        """What was fed and lies behind the member's end."""

    def feed(self, raw: RawStream) -> bytes:
        """Read some of *raw* and return a bounded amount of what it stands for."""


class InflatedStream:
    """What one compressed member of a raw stream stands for. Gives back what it read too far."""

    def __init__(self, raw: RawStream, kind: str) -> None:
        self._raw = raw
        self._kind = kind
        self._decoder = _decoder(kind)
        self._ready = b""
        self._at = 0
        self._finished = False
        self.position = 0

    def skip_zeros(self) -> int:
        """Go to the next 4-byte word that is not zero, or to the end; return how many bytes were zero."""
        start = self.position
        while True:
            left = len(self._ready) - self._at
            zeros = left - len(self._ready[self._at :].lstrip(b"\0"))
            whole = zeros - zeros % 4
            self._at += whole
            self.position += whole
            if zeros < left:
                break
            rest = left - whole  # up to three zeros, whose word ends in the next piece
            more = self._refill()
            self._ready, self._at = bytes(rest) + self._ready, 0
            if not more:
                break
        return self.position - start

    def take(self, count: int) -> bytes:
        """Return up to *count* bytes; fewer only at the end.

        Raises:
            ImageError: the compressed data is damaged or truncated.
        """
        parts = []
        missing = count
        while missing:
            if self._at >= len(self._ready) and not self._refill():
                break
            part = self._ready[self._at : self._at + missing]
            self._at += len(part)
            parts.append(part)
            missing -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.position += len(data)
        return data

    def _refill(self) -> bool:
        self._ready, self._at = b"", 0
        while not self._ready:
            if self._finished:
                return False
            try:
                self._ready = self._decoder.feed(self._raw)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError, MemoryError) as error:
                message = f"the initramfs's {self._kind} data is damaged: {error}"
                raise ImageError(message, hint="build the initramfs again") from error
            if self._decoder.ended:
                self._raw.give_back(self._decoder.rest)
                self._finished = True
        return True


class _Incremental:
    """zlib, xz, lzma and bzip2: decoders of the standard library that bound their output."""

    def __init__(self, kind: str) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16) if kind == "gzip" else None
        self._other: lzma.LZMADecompressor | bz2.BZ2Decompressor | None = None
        if kind in {"xz", "lzma"}:
            container = lzma.FORMAT_XZ if kind == "xz" else lzma.FORMAT_ALONE
            self._other = lzma.LZMADecompressor(container, memlimit=DECODER_MEMORY)
        elif kind == "bzip2":
            self._other = bz2.BZ2Decompressor()
        self._pending = b""

    @property
    def ended(self) -> bool:
        return self._zlib.eof if self._zlib else bool(self._other and self._other.eof)

    @property
    def rest(self) -> bytes:
        if self._zlib:
            return self._zlib.unused_data
        return self._other.unused_data if self._other else b""

    def feed(self, raw: RawStream) -> bytes:
        if self._zlib:
            data = self._zlib.decompress(self._zlib.unconsumed_tail or _more(raw, CHUNK), 1024 * 1024)
            return data or (b"" if self._zlib.eof or self._zlib.unconsumed_tail else self._zlib.flush(0) or b"")
        if self._other is None:
            return b""
        return self._other.decompress(_more(raw, CHUNK) if self._other.needs_input else b"", 1024 * 1024)


class _Zstd:
    def __init__(self) -> None:
        import zstandard

        self._object = zstandard.ZstdDecompressor(max_window_size=DECODER_MEMORY).decompressobj()
        self._error = zstandard.ZstdError

    @property
    def ended(self) -> bool:
        return self._object.eof

    @property
    def rest(self) -> bytes:
        return self._object.unused_data

    def feed(self, raw: RawStream) -> bytes:
        try:
            return self._object.decompress(_more(raw, ZSTD_CHUNK))
        except self._error as error:
            raise ValueError(str(error)) from error


class _Lz4:
    """The legacy LZ4 frame, which the kernel uses: magic, then blocks (le32 size, data) to the end or another magic."""

    def __init__(self) -> None:
        import lz4.block  # type: ignore[import-untyped]

        self._decompress = lz4.block.decompress
        self._error = lz4.block.LZ4BlockError
        self._started = False
        self.ended = False
        self.rest = b""

    def feed(self, raw: RawStream) -> bytes:
        if not self._started:
            raw.take(4)
            self._started = True
        head = raw.take(4)
        size = int.from_bytes(head, "little")
        if len(head) < 4 or size == 0 or size > LZ4_BLOCK + LZ4_BLOCK // 255 + 16:  # noqa: PLR2004 - LZ4's worst case
            self.ended, self.rest = True, head
            return b""
        block = raw.take(size)
        if len(block) < size:
            message = "truncated"
            raise EOFError(message)
        try:
            data: bytes = self._decompress(block, uncompressed_size=LZ4_BLOCK)
        except self._error as error:
            raise ValueError(str(error)) from error
        return data


def _decoder(kind: str) -> Decoder:
    if kind == "zstd":
        return _Zstd()
    if kind == "lz4":
        return _Lz4()
    return _Incremental(kind)


def _more(raw: RawStream, count: int) -> bytes:
    data = raw.take(count)
    if not data:
        message = "truncated"
        raise EOFError(message)
    return data


def compression(head: bytes) -> str | None:
    """Name the compression a segment begins with; None for a plain archive.

    Raises:
        UnknownCompressionError: neither an archive nor a compression that can be read here.
    """
    if head[:6] in CPIO_MAGICS:
        return None
    for magic, kind in INITRD_COMPRESSIONS.items():
        if head.startswith(magic):
            if kind == "lzo":
                break
            return kind
    else:
        message = f"the initramfs has something unknown in it: {head[:6].hex(' ')}"
        raise UnknownCompressionError(message, hint="is it an initramfs?")
    message = "the initramfs is compressed with lzo, which cannot be read here"
    raise UnknownCompressionError(message, hint="compress it with zstd, xz, gzip, lz4, lzma or bzip2")
