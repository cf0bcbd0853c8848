"""A composefs repository as cfs uses it: layers in, images out, compatible with composefs-rs and bootc."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    CommittedImage,
    Content,
    FormatOptions,
    FormatVersion,
    ImageError,
    ImageId,
    KernelArgument,
    ObjectId,
    RegularFile,
    Repository,
    StorageError,
    walk,
)
from cfs_core.tar import read_members
from cfs_storage_composefs.errors import DamagedError, MissingError, storage_errors
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.objects.names import INLINE_LIMIT
from cfs_storage_composefs.repository.catalog import Catalog
from cfs_storage_composefs.repository.writers import Writers
from cfs_storage_composefs.streams import oci as streams
from cfs_storage_composefs.streams.importer import LayerImport
from cfs_storage_composefs.streams.splitstream import CONFIG, LAYER, MANIFEST, SplitStreamSource, single_object_stream
from cfs_storage_composefs.trees.stored import StoredTreeReader, copy_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cfs_core.plugin import (
        Action,
        Digest,
        Directory,
        GcReport,
        LayerEntry,
        LayerStream,
        Location,
        Problem,
        ResolvedImage,
        StoredImage,
    )
    from cfs_storage_composefs.objects.names import Store
    from cfs_storage_composefs.objects.store import ObjectStore
    from cfs_storage_composefs.repository.directory import RepositoryDirectory
    from cfs_storage_composefs.streams.importer import Keep

_IMAGE_LIMIT = 2 * 1024 * 1024 * 1024


class ComposefsRepository(Repository):
    """A repository on disk. One may be used by several threads; several processes may use the same directory."""

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
        self._algorithm = directory.metadata.algorithm
        self.options = FormatOptions(
            version=directory.metadata.version, algorithm=self._algorithm, keep_user_xattrs=keep_user_xattrs
        )
        self._catalog = Catalog(directory, self._store, self.options)
        self._writers = Writers(directory, objects, self._catalog)

    def close(self) -> None:
        """Release the lock and temporary files."""
        self._directory.close()

    @property
    def _where(self) -> str:
        return f"writing to the repository at {self._directory.path}"

    # --- layers -------------------------------------------------------------------------------

    def has_layer(self, diff_id: Digest) -> bool:
        """Return whether the layer is here completely: a readable stream, and every object it refers to."""
        name = streams.layer_stream(diff_id)
        try:
            with storage_errors(f"looking for {name}"), self._catalog.open_stream(name) as stream:
                return stream.content_type == LAYER and all(digest in self._store for digest in stream.object_refs)
        except (MissingError, DamagedError):
            return False

    def import_layer(self, layer: LayerStream) -> None:
        """Store the layer's files while reading it, and publish it once it is verified. Memory stays flat.

        Raises:
            StorageError: no space, not writable, damaged. What *layer* raises passes through.
        """
        name = streams.layer_stream(layer.diff_id)
        spool = str(self._directory.path / "objects")
        with self._writers.writing() as created:
            work = LayerImport(self._store, self._where, created, spool=spool, keep=self._keep)
            digest = work.run(layer)
            with storage_errors(self._where):
                self._sync()
                if not self.has_layer(layer.diff_id):
                    self._directory.link_object("streams", name, digest)

    def layer_entries(self, diff_id: Digest) -> Iterator[LayerEntry]:
        """Yield the entries of a stored layer in stream order, contents as ``object`` or ``data``.

        Raises:
            StorageError: not here, or damaged.
        """
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

    # --- trees and images ---------------------------------------------------------------------

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

    def commit(
        self, tree: Directory, image: ResolvedImage, *, options: FormatOptions | None = None, name: str | None = None
    ) -> CommittedImage:
        """Store plain and bootable image of *tree*, manifest and config, and tag them; *tree* stays as it is.

        The plain image never keeps ``user.*`` attributes (composefs-rs knows no such form of it).

        Raises:
            ImageError: the tree cannot become a bootable image (no /usr).
            StorageError: as for `import_layer`; also when a layer is missing.
            UsageError: *name* cannot be a tag.
        """
        chosen = self._complete(options or self.options)
        tag = streams.tag_path(name if name is not None else streams.bootc_tag(image.manifest.digest))
        layers = self._layers(image)
        with self._writers.writing() as created, storage_errors(self._where):
            # one image in memory at a time, and one copy of the tree
            form = self._canonical(tree, replace(chosen, keep_user_xattrs=False))
            plain_id = self._store.put(self._erofs(form, chosen), created)
            if chosen.keep_user_xattrs:
                form = self._canonical(tree, chosen)
            self._make_bootable(form)
            boot_id = self._store.put(self._erofs(form, chosen), created)
            refs = {streams.plain_key(chosen): plain_id, streams.boot_key(chosen): boot_id}
            linked = self._put_json(image, layers, refs, created)
            self._sync()
            for digest in (plain_id, boot_id):
                self._directory.link_object("images", digest.hex(), digest)
            for stream, digest in linked.items():
                self._directory.link_object("streams", stream, digest)
            self._sync()
            self._directory.link(f"streams/refs/{tag}", f"../../{streams.manifest_stream(image.manifest.digest)}")
            self._sync()
        return CommittedImage(
            id=ImageId(boot_id.hex()),
            plain_id=ImageId(plain_id.hex()),
            version=chosen.version or FormatVersion.V1,
            algorithm=self._algorithm,
            manifest_digest=image.manifest.digest,
            config_digest=image.config.digest,
            object_count=_count_objects(form),
            stored_bytes=self._objects.bytes_added,
        )

    def _complete(self, options: FormatOptions) -> FormatOptions:
        """Fill in what *options* leaves open.

        Raises:
            StorageError: another hash than the repository's.
        """
        if options.algorithm not in {None, self._algorithm}:
            msg = f"the repository at {self._directory.path} uses {self._algorithm.value}, not {options.algorithm}"
            raise StorageError(msg, hint="use another repository for it (--repo)")
        return replace(options, algorithm=self._algorithm, version=options.version or self._directory.metadata.version)

    def _canonical(self, tree: Directory, options: FormatOptions) -> Directory:
        from cfs_storage_composefs.trees.canonical import canonicalise

        form = copy_tree(tree)
        canonicalise(form, options.keep_user_xattrs)
        return form

    def _make_bootable(self, form: Directory) -> None:
        from cfs_storage_composefs.trees.canonical import make_bootable

        make_bootable(form, StoredTreeReader(form, self.content))

    def _erofs(self, form: Directory, options: FormatOptions) -> bytes:
        from cfs_storage_composefs.erofs.write import write_erofs

        return write_erofs(form, options.version or FormatVersion.V1, self._algorithm)

    def _layers(self, image: ResolvedImage) -> dict[str, bytes]:
        """Return the stream object of every layer by diff-id."""
        found = {}
        for diff_id in image.config.diff_ids:
            digest = self._directory.linked("streams", streams.layer_stream(diff_id))
            if digest is None:
                msg = f"layer {diff_id} of the image is not in the repository at {self._directory.path}"
                raise MissingError(msg, hint="pull the image again")
            found[str(diff_id)] = digest
        return found

    def _put_json(
        self, image: ResolvedImage, layers: dict[str, bytes], refs: dict[str, bytes], created: list[bytes]
    ) -> dict[str, bytes]:
        """Store config and manifest; return their streams by name. Images that the config refers to already stay."""
        config_name = streams.config_stream(image.config.digest)
        with contextlib.suppress(MissingError, DamagedError), self._catalog.open_stream(config_name) as old:
            refs = {key: target for key, target in old.named_refs.items() if streams.is_image_key(key)} | refs
        config = self._put_stream(CONFIG, image.config.raw, layers | refs, created)
        named = {streams.config_key(image.config.digest): config} | layers
        manifest = self._put_stream(MANIFEST, image.manifest.raw, named, created)
        return {config_name: config, streams.manifest_stream(image.manifest.digest): manifest}

    def _put_stream(self, content_type: int, raw: bytes, named: Mapping[str, bytes], created: list[bytes]) -> bytes:
        digest = self._store.put(raw, created)
        return self._store.put(single_object_stream(content_type, self._algorithm, digest, len(raw), named), created)

    def open_tree(self, image: ImageId) -> Directory:
        """Read a committed image back as a tree.

        Raises:
            StorageError: not here or damaged.
        """
        from cfs_storage_composefs.erofs.read import read_erofs

        digest = self._digest(image)
        data = self._read_object(digest)
        if digest_bytes(data, self._algorithm) != digest:
            msg = f"image {image} is damaged: its bytes do not have this digest"
            raise DamagedError(msg, hint="remove its object and pull the image again")
        return read_erofs(data)

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

    def _read_object(self, digest: bytes) -> bytes:
        content = self._store.content(digest)
        with storage_errors(f"reading object {digest.hex()}"), content.open() as file:
            return file.read()

    def kernel_arguments(self, image: CommittedImage, *, verity: bool) -> tuple[KernelArgument, ...]:
        """Return ``composefs=<id>``, or ``composefs=?<id>``: the initramfs goes on without fs-verity (formats E.6)."""
        mark = "" if verity else "?"
        return (KernelArgument(text=f"composefs={mark}{image.id}", origin="composefs storage"),)

    def plan_export(self, images: Sequence[CommittedImage], root: Location, *, verity: bool) -> Iterator[Action]:
        """Yield actions that make a complete repository with just these images at *root*.

        Raises:
            StorageError: something that the images need is not here.
        """
        from cfs_storage_composefs.repository.export import Exporter

        return Exporter(self._catalog, self._store, self._directory.metadata).plan(images, root, verity=verity)

    # --- housekeeping -------------------------------------------------------------------------

    def images(self) -> tuple[StoredImage, ...]:
        """List tagged images by name."""
        return self._catalog.images()

    def resolved(self, name: str) -> tuple[StoredImage, bytes, bytes]:
        """Return an image by tag, manifest digest or image id, with raw manifest and config.

        Raises:
            MissingError: no such image.
            StorageError: damaged.
        """
        image, found = self._catalog.find(name)
        return image, found.manifest.raw, found.config.raw

    def remove(self, name: str) -> None:
        """Drop a tag; what only it kept goes with the next garbage collection.

        Raises:
            MissingError: no such tag.
        """
        self._directory.require_writable()
        self._catalog.remove_tag(name)

    def fsck(self) -> Iterable[Problem]:
        """Read everything and yield what is wrong; layers are put together again and compared with their diff-ids."""
        from cfs_storage_composefs.repository.check import check_repository
        from cfs_storage_composefs.repository.folder import DirectoryReader

        return check_repository(DirectoryReader(self._directory.path), "/", layers=True)

    def collect_garbage(self, keep: Iterable[ImageId] = (), *, dry_run: bool = False) -> GcReport:
        """Remove what no tag and nothing in *keep* needs. Takes the exclusive lock, unless *dry_run*.

        Raises:
            LockedError: somebody else uses the repository.
            StorageError: damaged so that what is needed cannot be told; nothing was removed then.
        """
        from cfs_storage_composefs.repository.garbage import Collector

        collector = Collector(self._directory, self._objects, self._catalog)
        roots = [self._digest(image) for image in keep]
        with storage_errors(f"collecting garbage in the repository at {self._directory.path}"):
            if dry_run:
                return collector.run(roots, dry_run=True)
            self._directory.require_writable()
            with self._writers.alone():
                return collector.run(roots, dry_run=False)

    def _sync(self) -> None:
        self._directory.sync()


def _count_objects(tree: Directory) -> int:
    return len({node.object for _, node in walk(tree) if isinstance(node, RegularFile) and node.object})
