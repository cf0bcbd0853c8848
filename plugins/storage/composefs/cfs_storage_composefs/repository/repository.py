"""A composefs repository as cfs uses it: layers in, images out, compatible with composefs-rs and bootc."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    CommittedImage,
    FormatOptions,
    ImageId,
    KernelArgument,
    RegularFile,
    Repository,
)
from cfs_storage_composefs.errors import DamagedError, MissingError, storage_errors
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.repository.identities import ComposefsIdentifier
from cfs_storage_composefs.streams import oci as streams
from cfs_storage_composefs.streams.splitstream import CONFIG, MANIFEST, single_object_stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cfs_core.plugin import (
        Action,
        Directory,
        Finding,
        GcReport,
        Location,
        ResolvedImage,
        StoredImage,
    )

_IMAGE_LIMIT = 2 * 1024 * 1024 * 1024


class ComposefsRepository(ComposefsIdentifier, Repository):
    """A repository on disk. One may be used by several threads; several processes may use the same directory."""

    # --- trees and images ---------------------------------------------------------------------

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
            # Objects reach the disk before any name leads to them, names before the tag that promises the whole image.
            # A power failure in between leaves garbage, never a tag over something incomplete. One syncfs is far
            # cheaper than an fsync for each of thousands of objects, and composefs-rs and bootc rely on the same order.
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
            version=chosen.version,
            algorithm=self._algorithm,
            manifest_digest=image.manifest.digest,
            config_digest=image.config.digest,
            object_count=_count_objects(form),
            stored_bytes=self._objects.bytes_added,
        )

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
        # The config stream names the images made from it. Its object changes with them, and so does the manifest
        # stream, which names that object; the digests of the JSON documents do not.
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

    def fsck(self) -> Iterable[Finding]:
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


def _count_objects(tree: Directory) -> int:
    from cfs_storage_composefs.trees.canonical import nodes_of

    return len({node.object for node in nodes_of(tree) if isinstance(node, RegularFile) and node.object})
