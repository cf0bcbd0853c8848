"""Layer blobs become tar streams: gzip (many members), zstd (many frames, zstd:chunked included), or as they are."""

from __future__ import annotations

import enum
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import zstandard

from cfs_core.archive.zstd_frames import ZstdFrames
from cfs_core.errors import ImageError, LimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CHUNK = 1 << 20
"""Most bytes handed on at once."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_LIMIT = 1 << 27
_READ_SIZE = 1 << 17


class Compression(enum.StrEnum):
    """How a layer blob is packed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecompressionLimits:
    """What one layer may become; sizes in bytes."""

    total_bytes: int = 128 << 30
    ratio: int = 1000
    """Uncompressed to compressed, once more than ``ratio_free_bytes`` came out."""

    ratio_free_bytes: int = 256 << 20


_OCI = "application/vnd.oci.image.layer."
_DOCKER = "application/vnd.docker.image.rootfs."
_MEDIA_TYPES: dict[str, Compression] = {
    f"{_OCI}v1.tar": Compression.NONE,
    f"{_OCI}v1.tar+gzip": Compression.GZIP,
    f"{_OCI}v1.tar+zstd": Compression.ZSTD,
    f"{_OCI}nondistributable.v1.tar": Compression.NONE,
    f"{_OCI}nondistributable.v1.tar+gzip": Compression.GZIP,
    f"{_OCI}nondistributable.v1.tar+zstd": Compression.ZSTD,
    f"{_DOCKER}diff.tar": Compression.NONE,
    f"{_DOCKER}diff.tar.gzip": Compression.GZIP,
    f"{_DOCKER}diff.tar.zstd": Compression.ZSTD,
    f"{_DOCKER}foreign.diff.tar": Compression.NONE,
    f"{_DOCKER}foreign.diff.tar.gzip": Compression.GZIP,
}


class _Gunzip(Protocol):
    """What zlib and isal have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def stated_compression(media_type: str) -> Compression:
    """Return what a layer's media type says.

    Raises:
        ImageError: not the type of a tar layer.
    """
    found = _MEDIA_TYPES.get(media_type)
    if found is None:
        hint = "encrypted layers must be decrypted first" if media_type.endswith("+encrypted") else None
        msg = f"a layer has the unsupported media type {media_type!r:.100}"
        raise ImageError(msg, hint=hint)
    return found


def decompress(chunks: Iterable[bytes], media_type: str, limits: DecompressionLimits | None = None) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a layer blob, in chunks of at most `CHUNK` bytes.

    OCI media types must tell the truth. Docker's never did (``.tar.gzip`` stands for whatever it is), so for those the
    first bytes decide.

    Raises:
        ImageError: damaged, truncated, of another compression than stated, or an unknown media type.
        LimitError: past *limits*.
    """
    stated = stated_compression(media_type)
    source = _Source(chunks)
    found = source.detect()
    if found is not stated and not media_type.startswith(_DOCKER):
        msg = f"a layer is announced as {media_type} and is {_NAMES[found]}"
        raise ImageError(msg, hint="push or copy the image again with a current tool, which corrects the type")
    return _bounded(_READERS[found](source), source, limits or DecompressionLimits())


class _Source:
    """A chunk iterator as something that can be read, with a first look at it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = b""
        self.taken = 0

    def detect(self) -> Compression:
        while len(self._left) < len(_ZSTD_MAGIC) and (chunk := next(self._chunks, None)) is not None:
            self._left += chunk
        if self._left.startswith(_GZIP_MAGIC):
            return Compression.GZIP
        skippable = self._left[1:4] == b"\x2a\x4d\x18" and self._left[0] & 0xF0 == 0x50  # noqa: PLR2004 - RFC 8878 3.1.2
        return Compression.ZSTD if skippable or self._left.startswith(_ZSTD_MAGIC) else Compression.NONE

    def read(self, size: int) -> bytes:
        """Return between one and *size* bytes, none at the end."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left = chunk
        found, self._left = self._left[:size], self._left[size:]
        self.taken += len(found)
        return found


def _plain(source: _Source) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk


def _gunzip(source: _Source) -> Iterator[bytes]:
    new, errors = _gzip_library()
    member = new()
    try:
        data = source.read(_READ_SIZE)
        while data:
            yield member.decompress(data, CHUNK)
            if not member.eof:
                data = member.unconsumed_tail or source.read(_READ_SIZE)
                continue
            data = member.unused_data or source.read(_READ_SIZE)
            if not data:
                return
            if not data.startswith(_GZIP_MAGIC[: len(data)]):
                _check_after_gzip(data, source)
                return
            member = new()
        while out := member.decompress(b"", CHUNK):
            yield out
    except errors as error:
        msg = f"a gzip layer is damaged: {error}"
        raise ImageError(msg) from error
    if not member.eof:
        msg = "a gzip layer ends too early"
        raise ImageError(msg, hint="the image was not written completely; make or copy it again")


def _check_after_gzip(data: bytes, source: _Source) -> None:
    """Accept what gzip(1) accepts behind the last member: zeros."""
    while data:
        if data.strip(b"\0"):
            msg = "a gzip layer has something else behind its last member"
            raise ImageError(msg)
        data = source.read(_READ_SIZE)


def _gzip_library() -> tuple[Callable[[], _Gunzip], tuple[type[BaseException], ...]]:
    try:
        from isal import igzip_lib, isal_zlib  # the extra "fast": twice the speed
    except ImportError:
        return lambda: zlib.decompressobj(wbits=31), (zlib.error,)
    return lambda: isal_zlib.decompressobj(wbits=31), (cast("type[BaseException]", igzip_lib.IsalError), zlib.error)


def _unzstd(source: _Source) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_LIMIT)
    frames = ZstdFrames(source.read)
    # the reader's bounded reads keep a bomb out of memory, which decompressobj() would not
    reader = decompressor.stream_reader(cast("BinaryIO", frames), read_size=_READ_SIZE, read_across_frames=True)
    try:
        while chunk := reader.read(CHUNK):
            yield chunk
    except zstandard.ZstdError as error:
        msg = f"a zstd layer is damaged: {error}"
        raise ImageError(msg) from error
    if not frames.whole:
        msg = "a zstd layer ends too early"
        raise ImageError(msg, hint="the image was not written completely; make or copy it again")


def _bounded(chunks: Iterator[bytes], source: _Source, limits: DecompressionLimits) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limits.total_bytes:
            msg = f"a layer is longer than {limits.total_bytes} bytes when it is uncompressed"
            raise LimitError(msg, limit_bytes=limits.total_bytes)
        if total > limits.ratio_free_bytes and total > source.taken * limits.ratio:
            msg = f"a layer grew from {source.taken} to more than {total} bytes when it was uncompressed"
            raise LimitError(msg, hint="this looks like a decompression bomb", limit_ratio=limits.ratio)
        yield chunk


_READERS: dict[Compression, Callable[[_Source], Iterator[bytes]]] = {
    Compression.NONE: _plain,
    Compression.GZIP: _gunzip,
    Compression.ZSTD: _unzstd,
}
_NAMES = {
    Compression.NONE: "not compressed",
    Compression.GZIP: "compressed with gzip",
    Compression.ZSTD: "compressed with zstd",
}
