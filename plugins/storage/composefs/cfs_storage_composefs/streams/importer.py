"""Layers into objects: the caller's thread reads and verifies, a worker hashes, writes and compresses."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cfs_core.plugin import RegularFile, hashes_together
from cfs_storage_composefs.digest_batch import DigestBatch
from cfs_storage_composefs.errors import storage_errors
from cfs_storage_composefs.objects.names import INLINE_LIMIT
from cfs_storage_composefs.streams.entries import EntryPacker
from cfs_storage_composefs.streams.splitstream import LAYER, SplitStreamWriter

if TYPE_CHECKING:
    from cfs_core.plugin import LayerEntry, LayerMember, LayerStream, SourceFile
    from cfs_storage_composefs.objects.names import Store, Writer
    from cfs_storage_composefs.streams.entries import Packed

Keep = Callable[[bytes], bool]
"""Says by path whether content will be asked for again; real repositories keep everything."""

_SMALL = 1024 * 1024
"""Files up to this size travel in one piece."""

# Most members are headers of 512 bytes and small files: handing each to the other thread alone costs more than the
# work. A queue of few batches bounds the memory and still keeps both threads busy.
_BATCH_BYTES = 512 * 1024
_BATCH_STEPS = 512
_QUEUE_DEPTH = 4

# A larger file has blocks enough of its own, and copying it costs more than is won.
_HASHED_TOGETHER = 128 * 1024

_RAW, _INLINE, _FILE, _BEGIN, _DATA, _END = range(6)
_Step = tuple[int, bytes, int, "SourceFile | None", "LayerEntry | None"]
"""What to do, with which bytes, a number (padding before a header, or whether to keep the content), a file, and the
entry whose last step it is."""


class LayerImport:
    """One layer on its way into a store; objects that were not there before are added to *created*."""

    def __init__(self, store: Store, where: str, created: list[bytes], *, spool: str, keep: Keep | None = None) -> None:
        self._created = created
        self._store = store
        self._where = where
        self._keep = keep
        self._stream = SplitStreamWriter(LAYER, store.algorithm, spool)
        self._entries = EntryPacker()
        self._hashes = DigestBatch(store.algorithm)
        self._open: Writer | None = None
        self._open_size = 0
        self._queue: queue.Queue[list[_Step] | None] = queue.Queue(_QUEUE_DEPTH)
        self._failure: BaseException | None = None
        self._batch: list[_Step] = []
        self._batch_bytes = 0

    def run(self, layer: LayerStream) -> bytes:
        """Read *layer* to its end and return the digest of its splitstream; nothing is synced or linked.

        Raises:
            StorageError: it could not be stored. What *layer* raises passes through.
        """
        worker = threading.Thread(target=self._work, name="cfs-import", daemon=True)
        worker.start()
        try:
            try:
                self._read(layer)
                self._send()
            finally:
                self._queue.put(None)
                worker.join()
            if self._failure is not None:
                raise self._failure
            with storage_errors(self._where):
                return self._finish()
        finally:
            self._stream.close()

    def entries(self) -> Packed | None:
        """Return the layer's entries, after `run`; None where they are too many."""
        return self._entries.packed()

    # --- the caller's thread ------------------------------------------------------------------

    def _read(self, layer: LayerStream) -> None:
        padding = 0
        for member in layer.members():
            self._step(_RAW, member.raw, padding, entry=None if member.size else member.entry)
            padding = -member.size % 512
            if member.size:
                self._read_content(layer, member)
        for chunk in layer.trailer():
            self._step(_RAW, chunk, 0)

    def _read_content(self, layer: LayerStream, member: LayerMember) -> None:
        size = member.size
        if size <= INLINE_LIMIT:
            self._step(_INLINE, b"".join(layer.content()), 0, entry=member.entry)
            return
        keep = self._keep is None or _wanted(member, self._keep)
        source = layer.source()
        if size <= _SMALL:
            chunks = list(layer.content())
            self._step(_FILE, chunks[0] if len(chunks) == 1 else b"".join(chunks), keep, source, member.entry)
            return
        self._step(_BEGIN, b"", keep, source)
        for chunk in layer.content():
            self._step(_DATA, chunk, 0)
        self._step(_END, b"", 0, entry=member.entry)

    def _step(
        self, what: int, data: bytes, number: int, source: SourceFile | None = None, entry: LayerEntry | None = None
    ) -> None:
        self._batch.append((what, data, number, source, entry))
        self._batch_bytes += len(data)
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_STEPS:
            self._send()

    def _send(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._queue.put(self._batch)
        self._batch = []
        self._batch_bytes = 0

    # --- the worker ---------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            if self._failure is not None:
                continue
            try:
                with storage_errors(self._where):
                    for step, digest in zip(batch, self._hashed(batch), strict=True):
                        self._apply(*step, digest)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self._failure = error
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open.abort()
            self._open = None

    def _hashed(self, batch: list[_Step]) -> list[bytes | None]:
        """Return the digests of small files by their places in *batch*: together they fill the lanes of a hasher."""
        found: list[bytes | None] = [None] * len(batch)
        if not hashes_together(self._store.algorithm):
            return found
        for number, (what, data, *_) in enumerate(batch):
            if what == _FILE and len(data) <= _HASHED_TOGETHER:
                self._hashes.slot(len(data))[:] = data
                self._hashes.add(len(data), functools.partial(found.__setitem__, number))
        self._hashes.flush()
        return found

    def _apply(
        self,
        what: int,
        data: bytes,
        number: int,
        source: SourceFile | None,
        entry: LayerEntry | None,
        digest: bytes | None,
    ) -> None:
        if what == _RAW:
            if number:
                self._stream.inline(data[:number])
                data = data[number:]
            self._stream.boundary()
            self._stream.inline(data)
            data = b""
        elif what == _INLINE:
            self._stream.inline(data)
        elif what == _FILE:
            digest = self._store.put(data, self._created, keep=bool(number), source=source, digest=digest)
            self._stream.external(digest, len(data))
        elif what == _BEGIN:
            self._open = self._store.writer(keep=bool(number), source=source)
            self._open_size = 0
        elif self._open is not None:
            if what == _DATA:
                self._open.write(data)
                self._open_size += len(data)
                return
            writer, self._open = self._open, None
            digest = writer.finish(self._created)
            self._stream.external(digest, self._open_size)
        if entry is not None:
            self._entries.add(entry, digest, data)

    def _finish(self) -> bytes:
        writer = self._store.writer()
        try:
            for piece in self._stream.pieces():
                writer.write(piece)
            return writer.finish(self._created)
        finally:
            writer.abort()


def _wanted(member: LayerMember, keep: Keep) -> bool:
    entry = member.entry
    return entry is not None and isinstance(entry.what, RegularFile) and keep(entry.path)
