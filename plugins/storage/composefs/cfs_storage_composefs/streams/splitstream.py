"""Splitstreams: a byte stream with its large parts kept as objects (formats D.5)."""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, BinaryIO, NoReturn, Self, cast

import zstandard

from cfs_storage_composefs.errors import DamagedError
from cfs_storage_composefs.fsverity import kernel_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_core.plugin import HashAlgorithm

LAYER = int.from_bytes(b"ocilayer", "little")
CONFIG = int.from_bytes(b"ociconfg", "little")
MANIFEST = int.from_bytes(b"ocimanif", "little")
BLOB = int.from_bytes(b"oci_blob", "little")

_MAGIC = b"SplitStream"
_HEADER = struct.Struct("<11sBHBBQQ")
_OLD_HEADER = struct.Struct("<QQH11sBBB")
_INFO = struct.Struct("<8QQQ")
_CHUNK = struct.Struct("<q")
_LG_BLOCK = 12

_NAMED_LIMIT = 16 * 1024 * 1024
_WINDOW_LIMIT = 128 * 1024 * 1024
_COMPRESS_STEP = 256 * 1024
_SPOOL_BYTES = 8 * 1024 * 1024
_RUN_LIMIT = 1024 * 1024
_PIECE = 256 * 1024


class SplitStreamWriter:
    """Collects a stream and gives out the file's bytes. Compressed data beyond 8 MiB spills to directory *spool*."""

    def __init__(self, content_type: int, algorithm: HashAlgorithm, spool: str | None = None) -> None:
        self._content_type = content_type
        self._algorithm = algorithm
        self._references: dict[bytes, int] = {}
        self._named: dict[str, bytes] = {}
        self._run: list[bytes] = []
        self._run_bytes = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._size = 0
        self._compressor = zstandard.ZstdCompressor(level=3).compressobj()
        self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=spool)  # noqa: SIM115 - `close`

    def close(self) -> None:
        """Give back what was spilled."""
        self._spool.close()

    def inline(self, data: bytes) -> None:
        """Append bytes that the stream keeps itself."""
        if data:
            self._run.append(data)
            self._run_bytes += len(data)

    def boundary(self) -> None:
        """Say that a tar header starts here: composefs-rs can only read on across inline chunks at such places."""
        if self._run_bytes >= _RUN_LIMIT:
            self._end_run()

    def external(self, digest: bytes, size: int) -> None:
        """Append the content of an object of *size* bytes."""
        self._end_run()
        index = self._references.setdefault(digest, len(self._references))
        self._push(_CHUNK.pack(index))
        self._size += size

    def name(self, name: str, digest: bytes) -> None:
        """Add a named reference to another stream or image."""
        self._named[name] = digest

    def pieces(self) -> Iterator[bytes]:
        """End the stream and yield the file's bytes."""
        self._end_run()
        self._compress()
        self._spool.write(self._compressor.flush())
        stream_bytes = self._spool.tell()
        self._spool.seek(0)

        targets = {digest: index for index, digest in enumerate(dict.fromkeys(self._named.values()))}
        listed = b"".join(
            b"%d:%s\0" % (targets[digest], name.encode("utf-8", "surrogateescape"))
            for name, digest in sorted(self._named.items())
        )
        named = zstandard.ZstdCompressor(level=3).compressobj()
        named_refs = named.compress(listed) + named.flush()

        width = self._algorithm.size
        info_end = _HEADER.size + _INFO.size
        streams_end = info_end + width * len(targets)
        objects_end = streams_end + width * len(self._references)
        named_end = objects_end + len(named_refs)
        yield _HEADER.pack(_MAGIC, 0, 0, kernel_id(self._algorithm), _LG_BLOCK, _HEADER.size, info_end)
        yield _INFO.pack(
            *(info_end, streams_end), *(streams_end, objects_end),
            *(named_end, named_end + stream_bytes), *(objects_end, named_end),
            self._content_type, self._size,
        )  # fmt: skip
        yield b"".join(targets)
        yield b"".join(self._references)
        yield named_refs
        while piece := self._spool.read(_PIECE):
            yield piece

    def _end_run(self) -> None:
        if self._run_bytes:
            self._pending.append(_CHUNK.pack(-self._run_bytes))
            self._pending += self._run
            self._pending_bytes += self._run_bytes
            self._size += self._run_bytes
            self._run = []
            self._run_bytes = 0
            if self._pending_bytes >= _COMPRESS_STEP:
                self._compress()

    def _push(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)

    def _compress(self) -> None:
        self._spool.write(self._compressor.compress(b"".join(self._pending)))
        self._pending = []
        self._pending_bytes = 0


def single_object_stream(
    content_type: int, algorithm: HashAlgorithm, digest: bytes, size: int, named: Mapping[str, bytes]
) -> bytes:
    """Return a whole splitstream that is just one object, as configs, manifests and blobs are kept."""
    writer = SplitStreamWriter(content_type, algorithm)
    try:
        writer.external(digest, size)
        for name, target in named.items():
            writer.name(name, target)
        return b"".join(writer.pieces())
    finally:
        writer.close()


@dataclass(slots=True)
class SplitStream:
    """An open splitstream. Read its chunks once, front to back; it closes the file it was given."""

    content_type: int
    size: int
    stream_refs: tuple[bytes, ...]
    object_refs: tuple[bytes, ...]
    named_refs: dict[str, bytes]
    _file: BinaryIO = field(repr=False)
    _body: BinaryIO = field(repr=False)
    _where: str
    _buffer: bytes = field(default=b"", repr=False)
    _at: int = 0

    @classmethod
    def open(cls, file: BinaryIO, algorithm: HashAlgorithm, where: str) -> SplitStream:
        """Read header and references from a seekable *file*; *where* names the stream in messages.

        Raises:
            DamagedError: not a splitstream, of another hash, or its parts do not fit.
        """
        try:
            return cls._read(file, algorithm, where)
        except BaseException:
            file.close()
            raise

    @classmethod
    def _read(cls, file: BinaryIO, algorithm: HashAlgorithm, where: str) -> SplitStream:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        start, end = _read_header(file.read(_HEADER.size), algorithm, where)
        if not _HEADER.size <= start <= end <= length or end - start < _INFO.size:
            _damaged(where, "its info section is out of range")
        file.seek(start)
        info = _INFO.unpack(_exactly(file, _INFO.size, where))
        ranges = [(info[at], info[at + 1]) for at in range(0, 8, 2)]
        if not all(start <= end <= length for start, end in ranges):
            _damaged(where, "a section is out of range")
        stream_refs = _digests(file, ranges[0], algorithm.size, where)
        object_refs = _digests(file, ranges[1], algorithm.size, where)
        named_refs = _named_refs(_section(file, ranges[3], where), stream_refs, where)
        file.seek(ranges[2][0])
        body = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).stream_reader(
            cast("IO[bytes]", _Window(file, ranges[2][1] - ranges[2][0])), read_across_frames=False, closefd=False
        )
        return cls(info[8], info[9], stream_refs, object_refs, named_refs, file, body, where)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._body.close()
        self._file.close()

    def chunks(self) -> Iterator[bytes | int]:
        """Yield the stream: inline bytes in pieces of at most 256 KiB, and indices into ``object_refs``.

        Raises:
            DamagedError: undecodable, truncated, or a reference to nothing.
        """
        while (number := self.next_chunk()) is not None:
            if number >= 0:
                yield number
                continue
            left = -number
            while left:
                piece = self.inline(min(left, _PIECE))
                left -= len(piece)
                yield piece

    def next_chunk(self) -> int | None:
        """Return the next chunk's head: an index into ``object_refs``, a negated count of bytes, or None at the end.

        Raises:
            DamagedError: as for `chunks`.
        """
        head = self._take(_CHUNK.size)
        if not head:
            return None
        if len(head) != _CHUNK.size:
            _damaged(self._where, "it ends in the middle of a chunk")
        number: int = _CHUNK.unpack(head)[0]
        if number >= len(self.object_refs):
            _damaged(self._where, f"it refers to object number {number} of {len(self.object_refs)}")
        return number

    def inline(self, count: int) -> bytes:
        """Return *count* bytes of the inline chunk that `next_chunk` has announced.

        Raises:
            DamagedError: truncated or undecodable.
        """
        data = self._take(count)
        if len(data) != count:
            _damaged(self._where, "it ends in the middle of inline data")
        return data

    def _take(self, count: int) -> bytes:
        """Return *count* decompressed bytes, fewer at the end."""
        end = self._at + count
        if end > len(self._buffer):
            self._fill(count)
            end = count
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def _fill(self, count: int) -> None:
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        try:
            while have < count and (more := self._body.read(_PIECE)):
                parts.append(more)
                have += len(more)
        except zstandard.ZstdError as error:
            msg = f"{self._where} cannot be decompressed: {error}"
            raise DamagedError(msg, hint="pull the image again") from error
        self._buffer = b"".join(parts)
        self._at = 0


class SplitStreamSource:
    """A layer's splitstream as the tar reader wants it: inline bytes by count, large contents as digests."""

    def __init__(self, stream: SplitStream, where: str) -> None:
        self._stream = stream
        self._where = where
        self._inline = 0

    def read(self, count: int) -> bytes:
        """Return exactly *count* inline bytes, fewer only at the end of the stream.

        Raises:
            DamagedError: an object stands where bytes should be, or the stream is damaged.
        """
        if count <= self._inline:
            self._inline -= count
            return self._stream.inline(count)
        parts = []
        while count:
            if not self._inline:
                head = self._stream.next_chunk()
                if head is None:
                    break
                if head >= 0:
                    _damaged(self._where, "an object stands where a tar header should be")
                self._inline = -head
            part = self._stream.inline(min(count, self._inline))
            self._inline -= len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def external(self) -> bytes:
        """Return the digest of the object that comes next.

        Raises:
            DamagedError: something else comes next.
        """
        head = None if self._inline else self._stream.next_chunk()
        if head is None or head < 0:
            _damaged(self._where, "bytes stand where an object should be")
        return self._stream.object_refs[head]


class _Window:
    """The next *length* bytes of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._left = length

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(data)
        return data


def _read_header(data: bytes, algorithm: HashAlgorithm, where: str) -> tuple[int, int]:
    if len(data) != _HEADER.size:
        _damaged(where, "it is too short to be a splitstream")
    magic, version, _flags, hash_id, lg_block, start, end = _HEADER.unpack(data)
    if magic != _MAGIC:
        start, end, _flags, magic, version, hash_id, lg_block = _OLD_HEADER.unpack(data)
    if magic != _MAGIC:
        _damaged(where, "it is not a splitstream")
    if version:
        _damaged(where, f"it has the unknown splitstream version {version}")
    if hash_id != kernel_id(algorithm) or lg_block != _LG_BLOCK:
        _damaged(where, f"it is not made for {algorithm.value} and blocks of 4096 bytes")
    return start, end


def _exactly(file: BinaryIO, count: int, where: str) -> bytes:
    data = file.read(count)
    if len(data) != count:
        _damaged(where, "it is truncated")
    return data


def _section(file: BinaryIO, span: tuple[int, int], where: str) -> bytes:
    file.seek(span[0])
    return _exactly(file, span[1] - span[0], where)


def _digests(file: BinaryIO, span: tuple[int, int], width: int, where: str) -> tuple[bytes, ...]:
    data = _section(file, span, where)
    if len(data) % width:
        _damaged(where, "its table of references has a torn entry")
    return tuple(data[at : at + width] for at in range(0, len(data), width))


def _named_refs(data: bytes, targets: tuple[bytes, ...], where: str) -> dict[str, bytes]:
    try:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT)
        with decompressor.stream_reader(data) as reader:
            text = reader.read(_NAMED_LIMIT + 1)
    except zstandard.ZstdError as error:
        msg = f"the named references of {where} cannot be decompressed: {error}"
        raise DamagedError(msg, hint="pull the image again") from error
    if len(text) > _NAMED_LIMIT or (text and not text.endswith(b"\0")):
        _damaged(where, "its named references are too long or torn")
    named = {}
    for item in text.split(b"\0")[:-1]:
        index, colon, name = item.partition(b":")
        if not colon or not index.isdigit() or len(index) > 9 or int(index) >= len(targets):  # noqa: PLR2004 - digits
            _damaged(where, "a named reference is malformed")
        named[name.decode("utf-8", "surrogateescape")] = targets[int(index)]
    return named


def _damaged(where: str, what: str) -> NoReturn:
    msg = f"{where} is damaged: {what}"
    raise DamagedError(msg, hint="pull the image again")
