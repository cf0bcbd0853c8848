"""Layers in, identities out: what a repository on disk and one that keeps nothing do in the same way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    ChosenFormat,
    Digest,
    FormatOptions,
    Identifier,
    ImageError,
    ImageId,
    ObjectId,
    RegularFile,
    StorageError,
)
from cfs_core.tar import read_members
from cfs_storage_composefs.errors import DamagedError, MissingError, storage_errors
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.objects.names import INLINE_LIMIT
from cfs_storage_composefs.pause import collector_paused
from cfs_storage_composefs.repository.catalog import Catalog
from cfs_storage_composefs.repository.syncing import SharedSync
from cfs_storage_composefs.repository.writers import Writers
from cfs_storage_composefs.streams import oci as streams
from cfs_storage_composefs.streams.entries import PACKED_BYTES, unpacked
from cfs_storage_composefs.streams.importer import LayerImport
from cfs_storage_composefs.streams.job import ImportJob, StoredLayer
from cfs_storage_composefs.streams.splitstream import LAYER, SplitStreamSource
from cfs_storage_composefs.trees.stored import StoredTreeReader, copy_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cfs_core.plugin import Content, Directory, HashAlgorithm, JobResult, LayerEntry, LayerJob, LayerStream
    from cfs_storage_composefs.objects.names import Store
    from cfs_storage_composefs.objects.store import ObjectStore
    from cfs_storage_composefs.repository.directory import RepositoryDirectory
    from cfs_storage_composefs.streams.entries import Packed
    from cfs_storage_composefs.streams.importer import Keep
    from cfs_storage_composefs.streams.splitstream import SplitStream

_BLOCK = 1 << 20


class ComposefsIdentifier(Identifier):
    """Layers are splitstreams in *directory*, with their contents in *store* (*objects*, unless told otherwise)."""

    def __init__(
        self,
        directory: RepositoryDirectory,
        objects: ObjectStore,
        *,
        store: Store | None = None,
        keep: Keep | None = None,
        keep_user_xattrs: bool = False,
    ) -> None:
        self._directory = directory
        self._objects = objects
        self._store: Store = store or objects
        self._keep = keep
        self._rejected: set[Digest] = set()
        self._imported: dict[Digest, Packed] = {}
        self._imported_lock = threading.Lock()
        self._algorithm = directory.metadata.algorithm
        self.options = ChosenFormat(
            version=directory.metadata.version, algorithm=self._algorithm, keep_user_xattrs=keep_user_xattrs
        )
        self._catalog = Catalog(directory, self._store, self.options)
        self._writers = Writers(directory, objects, self._catalog)
        self._shared_sync = SharedSync(self._sync)

    def close(self) -> None:
        """Release the lock and temporary files."""
        self._directory.close()

    @property
    def _where(self) -> str:
        return f"writing to the repository at {self._directory.path}"

    # --- layers -------------------------------------------------------------------------------

    def has_layer(self, diff_id: Digest) -> bool:
        """Return whether the layer is here completely: a readable stream, and every object it refers to."""
        if diff_id in self._rejected:
            return False
        name = streams.layer_stream(diff_id)
        try:
            with storage_errors(f"looking for {name}"), self._catalog.open_stream(name) as stream:
                return stream.content_type == LAYER and all(digest in self._store for digest in stream.object_refs)
        except (MissingError, DamagedError):
            return False

    def verify_layer(self, diff_id: Digest) -> bool:
        """Return whether the layer is here and is what *diff_id* says: every object and the whole stream are hashed.

        Raises:
            StorageError: something cannot be read.
        """
        name = streams.layer_stream(diff_id)
        try:
            with self._catalog.open_stream(name) as stream:
                # all of them: each that is not is written anew by the import
                damaged = [digest for digest in stream.object_refs if not self._objects.is_intact(digest)]
                if (
                    not damaged
                    and stream.content_type == LAYER
                    and self._digest_of(stream, diff_id.algorithm) == diff_id
                ):
                    return True
        except MissingError:
            return False
        except DamagedError:
            pass
        self._rejected.add(diff_id)
        return False

    def _digest_of(self, stream: SplitStream, algorithm: HashAlgorithm) -> Digest:
        """Put the layer together again and hash it."""
        hasher = algorithm.new()
        for chunk in stream.chunks():
            if isinstance(chunk, bytes):
                hasher.update(chunk)
                continue
            with self._store.unchecked(stream.object_refs[chunk]).open() as file:
                while block := file.read(_BLOCK):
                    hasher.update(block)
        return Digest(algorithm, hasher.hexdigest())

    def import_layer(self, layer: LayerStream) -> None:
        """Store the layer's files while reading it, and publish it once it is verified. Memory stays flat.

        Raises:
            StorageError: no space, not writable, damaged. What *layer* raises passes through.
        """
        spool = str(self._directory.path / "objects")
        with self._writers.writing() as created:
            work = LayerImport(self._store, self._where, created, spool=spool, keep=self._keep)
            digest = work.run(layer)
            self._publish(layer.diff_id, digest)
        self._remember(layer.diff_id, work.entries())

    def layer_job(self) -> LayerJob | None:
        """Return what imports layers for this repository in other processes."""
        return ImportJob(
            repository=self._directory.fd,
            objects=self._directory.objects,
            path=self._directory.path / "objects",
            algorithm=self._algorithm,
            secure=self._directory.secure,
            where=self._where,
        )

    def import_with_job(self, diff_id: Digest, run: Callable[[], JobResult]) -> None:
        """Publish a layer that another process imports.

        Raises:
            StorageError: as for `import_layer`. What is in the result's ``error``, and what *run* raises.
        """
        with self._writers.writing() as created:
            result = run()
            stored = result.value
            if isinstance(stored, StoredLayer):
                created.extend(stored.created)
                self._objects.adopt(stored.created, stored.bytes_added)
            if result.error is not None:
                raise result.error
            if not isinstance(stored, StoredLayer) or stored.stream is None:
                msg = f"{self._where} failed: a worker process did not say what became of layer {diff_id}"
                raise StorageError(msg)
            self._publish(diff_id, stored.stream)
        self._remember(diff_id, stored.entries)

    def _remember(self, diff_id: Digest, entries: Packed | None) -> None:
        """Keep what a layer says about the tree until it is asked for, once."""
        size = sum(map(len, entries or ()))
        with self._imported_lock:
            before = sum(len(piece) for pieces in self._imported.values() for piece in pieces)
            if entries is not None and before + size <= PACKED_BYTES:
                self._imported[diff_id] = entries

    def _publish(self, diff_id: Digest, stream: bytes) -> None:
        """Give a layer its name, once everything it needs is on the disk."""
        with storage_errors(self._where):
            self._shared_sync()
            # Another process may have stored the same layer meanwhile. Compressed by another libzstd its stream has
            # another digest, and streams of configs that exist refer to that one: the first stays.
            if not self.has_layer(diff_id):
                self._directory.link_object("streams", streams.layer_stream(diff_id), stream)
                self._rejected.discard(diff_id)

    def layer_entries(self, diff_id: Digest) -> Iterator[LayerEntry]:
        """Yield the entries of a stored layer in stream order, contents as ``object`` or ``data``.

        Raises:
            StorageError: not here, or damaged.
        """
        with self._imported_lock:
            imported = self._imported.pop(diff_id, None)
        if imported is not None:
            yield from unpacked(imported)
            return
        name = streams.layer_stream(diff_id)
        with self._catalog.open_stream(name) as stream:
            source = SplitStreamSource(stream, name)
            try:
                for member in read_members(source):
                    external = source.external() if member.size > INLINE_LIMIT else None
                    data = b"" if external else source.read(member.size)
                    if external is not None and external not in self._store:
                        msg = f"{name} needs object {external.hex()}, which is not in the repository"
                        raise MissingError(msg, hint="pull the image again")
                    entry = member.entry
                    if entry is None:
                        continue
                    if isinstance(entry.what, RegularFile):
                        if external is None:
                            entry.what.data = data
                        else:
                            entry.what.object = ObjectId(external.hex())
                    yield entry
            except ImageError as error:
                msg = f"{name} does not hold a readable layer: {error.message}"
                raise DamagedError(msg, hint="pull the image again") from error

    # --- identities ---------------------------------------------------------------------------

    def image_ids(
        self, tree: Directory, options: Sequence[FormatOptions] = (), *, bootable: bool
    ) -> tuple[ImageId, ...]:
        """Return the identity of *tree* (merged layers) under each of *options*; writes nothing.

        Raises:
            ImageError: the tree cannot become an image (no /usr).
            StorageError: another hash than the repository's.
        """
        wanted = [self._complete(choice) for choice in options] or [self.options]
        forms: dict[bool, Directory] = {}
        found = []
        for choice in wanted:
            form = forms.get(choice.keep_user_xattrs)
            if form is None:
                form = forms[choice.keep_user_xattrs] = self._canonical(tree, choice)
                if bootable:
                    self._make_bootable(form)
            found.append(ImageId(digest_bytes(self._erofs(form, choice), self._algorithm).hex()))
        return tuple(found)

    def content(self, object_id: ObjectId) -> Content:
        """Return stored content.

        Raises:
            StorageError: not here.
        """
        return self._store.content(self._digest(object_id))

    def _digest(self, text: str) -> bytes:
        try:
            digest = bytes.fromhex(text)
        except ValueError:
            digest = b""
        if len(digest) != self._algorithm.size:
            msg = f"{text!r:.300} is not the name of an object"
            raise MissingError(msg, hint=f"objects are named by {2 * self._algorithm.size} hex digits here")
        return digest

    def _complete(self, options: FormatOptions) -> ChosenFormat:
        """Fill in what *options* leaves open.

        Raises:
            StorageError: another hash than the repository's.
        """
        if options.algorithm not in {None, self._algorithm}:
            msg = f"the repository at {self._directory.path} uses {self._algorithm.value}, not {options.algorithm}"
            raise StorageError(msg, hint="use another repository for it (--repo)")
        return ChosenFormat(
            version=options.version or self.options.version,
            algorithm=self._algorithm,
            keep_user_xattrs=options.keep_user_xattrs,
        )

    def _canonical(self, tree: Directory, options: FormatOptions) -> Directory:
        from cfs_storage_composefs.trees.canonical import canonicalise

        with collector_paused():
            form = copy_tree(tree)
            canonicalise(form, options.keep_user_xattrs)
        return form

    def _make_bootable(self, form: Directory) -> None:
        from cfs_storage_composefs.trees.canonical import make_bootable

        make_bootable(form, StoredTreeReader(form, self.content))

    def _erofs(self, form: Directory, chosen: ChosenFormat) -> bytes:
        from cfs_storage_composefs.erofs.write import write_erofs

        return write_erofs(form, chosen.version, self._algorithm)

    def _sync(self) -> None:
        self._directory.sync()
