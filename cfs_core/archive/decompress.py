"""Layer blobs become tar streams: gzip (many members), zstd (many frames, zstd:chunked included), or as they are."""

from __future__ import annotations

import enum
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import zstandard

from cfs_core.archive.tar_fields import raising
from cfs_core.archive.zstd_frames import ZstdFrames
from cfs_core.errors import ImageError, LimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CHUNK = 1 << 20
"""Most bytes handed on at once."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_FOREIGN = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4", b"\x02\x21\x4c\x18": "lz4"}
"""Compressions by their first bytes that the image specification has no media type for."""

_MAGIC_BYTES = 6
# The library's own default (ZSTD_WINDOWLOG_LIMIT_DEFAULT); more takes --long or --ultra, and that much memory.
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
    # Deflate ends at 1032 to 1 and real layers below 100; zstd makes gigabytes of a few bytes.
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


def decompress(
    chunks: Iterable[bytes],
    media_type: str,
    limits: DecompressionLimits | None = None,
    *,
    mismatch: Callable[[str], None] = lambda _what: None,
) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a layer blob, in chunks of at most `CHUNK` bytes.

    The first bytes decide what it is packed with: media types often lie, and the diff-id proves the contents in any
    case. Where an OCI type does (Docker's ``.tar.gzip`` always stood for whatever it is), *mismatch* is told.

    Raises:
        ImageError: damaged, truncated, of a compression that no image may have, or an unknown media type.
        LimitError: past *limits*, or a zstd window past 128 MiB.
    """
    stated = stated_compression(media_type)
    source = _Source(chunks)
    found = source.detect()
    if source.empty and stated is not Compression.NONE:
        msg = "a layer is empty, and not even compressed so"
        raise ImageError(msg, hint="the image was not written completely; make or copy it again")
    if found is not stated and not media_type.startswith(_DOCKER):
        mismatch(f"announced as {media_type} and {_NAMES[found]}")
    return _bounded(_READERS[found](source), source, limits or DecompressionLimits())


class _Source:
    """A chunk iterator as something that can be read, with a first look at it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = b""
        self.taken = 0

    def detect(self) -> Compression:
        while len(self._left) < _MAGIC_BYTES and (chunk := next(self._chunks, None)) is not None:
            self._left += chunk
        if self._left.startswith(_GZIP_MAGIC):
            return Compression.GZIP
        for magic, name in _FOREIGN.items():
            if self._left.startswith(magic):
                msg = f"a layer is compressed with {name}, which no image may use"
                raise ImageError(msg, hint="make the image again with gzip or zstd layers")
        skippable = self._left[1:4] == b"\x2a\x4d\x18" and self._left[0] & 0xF0 == 0x50  # noqa: PLR2004 - RFC 8878 3.1.2
        return Compression.ZSTD if skippable or self._left.startswith(_ZSTD_MAGIC) else Compression.NONE

    @property
    def empty(self) -> bool:
        """Whether nothing is left to read, after `detect`."""
        return not self._left

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
        # What the last call held back, since it had given out as much as it may at once.
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
        if "memory" in str(error):  # ZSTD_error_frameParameter_windowTooLarge has no other mark
            msg = f"a zstd layer needs a window of more than {_ZSTD_WINDOW_LIMIT >> 20} MiB"
            hint = "compress the layer without zstd's --ultra and --long"
            raise LimitError(msg, hint=hint, facts={"limit_bytes": _ZSTD_WINDOW_LIMIT}) from error
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
            facts = {"limit_bytes": limits.total_bytes, "setting": "limits.layer-unpacked-size"}
            raise LimitError(msg, hint=raising("limits.layer-unpacked-size"), facts=facts)
        if total > limits.ratio_free_bytes and total > source.taken * limits.ratio:
            msg = f"a layer grew from {source.taken} to more than {total} bytes when it was uncompressed"
            hint = f"this looks like a decompression bomb; {raising('limits.compression-ratio')}"
            facts = {"limit_ratio": limits.ratio, "setting": "limits.compression-ratio"}
            raise LimitError(msg, hint=hint, facts=facts)
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
