"""podman's and buildah's store as a place images come from: layers by diff-id, contents from the unpacked files."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    MANIFEST_LIMIT,
    CannotResumeError,
    ChangedError,
    NotFoundError,
    StorageError,
    Transport,
    TransportError,
)
from cfs_transport_containers_storage.beneath import Beneath
from cfs_transport_containers_storage.lookup import Found, find_image, has_manifest, parse, split_name
from cfs_transport_containers_storage.store import StoredLayer, chain, open_stores, plain_name
from cfs_transport_containers_storage.tarsplit import assemble, read_tar_split
from cfs_transport_containers_storage.unreadable import NamespaceOpener

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cfs_core.plugin import CommandRunner, Descriptor, Digest, ImageReference
    from cfs_transport_containers_storage.places import Places
    from cfs_transport_containers_storage.store import ImageRecord, Store
    from cfs_transport_containers_storage.tarsplit import Opener


class StorageTransport(Transport):
    """Reads stores in place. Nothing is written, mounted or unpacked."""

    def __init__(self, places: Places, commands: CommandRunner) -> None:
        self._places = places
        self._unreadable = NamespaceOpener(commands)
        self._stores: dict[str, list[Store]] = {}
        self._found: dict[tuple[str, str | None], Found] = {}

    def parse(self, text: str) -> ImageReference:
        """Turn ``containers-storage:…`` into a reference.

        Raises:
            UsageError: not in the grammar.
        """
        return parse(text)

    def canonical(self, reference: ImageReference) -> ImageReference:
        """Return ``[DRIVER@GRAPHROOT]FULL-NAME@ID``, as containers/image names images to policies.

        Without a full name where only an id was asked for: an image may have any number of names.
        """
        found = self._known(reference)
        store = f"[{found.image.store.driver}@{self._places_of(reference).graph}]"
        tag = reference.tag if reference.tag or reference.digest or not found.name else "latest"
        return replace(reference, name=f"{store}{found.name or ''}@{found.image.id}", tag=tag)

    def close(self) -> None:
        """End the helper process, if one was needed."""
        self._unreadable.close()

    def read_manifest(self, reference: ImageReference, accept: Sequence[str]) -> tuple[str, bytes]:
        """Return the stored manifest of this digest, or the image's."""
        del accept
        image = self._find(reference).image
        keys = ["manifest"] if reference.digest is None else [f"manifest-{reference.digest}", "manifest"]
        for key in keys:
            raw = image.store.item(image, key, MANIFEST_LIMIT)
            if raw is not None:
                return "", raw
        msg = f"image {image.id[:12]} has no manifest {reference.digest or ''}".rstrip()
        raise NotFoundError(msg, hint="it was removed meanwhile, or the store is damaged")

    @contextmanager
    def open_blob(self, reference: ImageReference, descriptor: Descriptor, offset: int) -> Iterator[Iterable[bytes]]:
        """Hand out a stored item, or a layer whose blob is uncompressed."""
        if offset:
            msg = "a container store delivers blobs from their start"
            raise CannotResumeError(msg)
        image = self._known(reference).image
        raw = image.store.item(image, str(descriptor.digest), descriptor.size)
        if raw is not None:
            yield [raw]
            return
        layer = self._layer(image, descriptor.digest)
        if layer is None:
            msg = f"the container store does not keep blob {descriptor.digest} in the form the manifest names"
            raise NotFoundError(msg, hint="stores hold layers uncompressed; to copy such an image use podman push")
        with self._read(layer) as chunks:
            yield chunks

    def open_uncompressed_layer(
        self, reference: ImageReference, descriptor: Descriptor, diff_id: Digest
    ) -> AbstractContextManager[Iterable[bytes]]:
        """Put the layer's tar together again from its files."""
        del descriptor  # stores know layers by what they are uncompressed
        image = self._known(reference).image
        layer = self._layer(image, diff_id)
        if layer is None:
            msg = f"the container store has lost layer {diff_id} of image {image.id[:12]}"
            raise ChangedError(msg, hint="the image was removed meanwhile, or the store is damaged; pull it again")
        return self._read(layer)

    # --- finding ------------------------------------------------------------------------------

    def _places_of(self, reference: ImageReference) -> Places:
        store, _, _ = split_name(reference.name)
        return self._places.narrowed(store) if store else self._places

    def _opened(self, reference: ImageReference) -> list[Store]:
        store, _, _ = split_name(reference.name)
        if store not in self._stores:
            self._stores[store] = open_stores(self._places_of(reference))
        return self._stores[store]

    def _find(self, reference: ImageReference) -> Found:
        if reference.digest is not None:
            for (name, _), found in self._found.items():
                if name == reference.name and has_manifest(found.image, reference.digest):
                    return found
        images = [image for store in self._opened(reference) for image in store.images()]
        found = find_image(images, reference)
        self._found[reference.name, reference.tag] = found
        return found

    def _known(self, reference: ImageReference) -> Found:
        """Return what this run found under that name; a tag that moves does not change it."""
        known = self._found.get((reference.name, reference.tag))
        return known if known is not None else self._find(reference)

    def _layer(self, image: ImageRecord, diff_id: Digest) -> StoredLayer | None:
        """Return the image's own layer of that diff-id, or the same layer of another image."""
        layers: dict[str, StoredLayer] = {}
        for stores in self._stores.values():
            if image.store in stores:
                for store in reversed(stores):
                    layers.update(store.layers())
        wanted = str(diff_id)
        own = list(chain(layers, image.top_layer)) if image.top_layer in layers else []
        return next((layer for layer in [*own, *layers.values()] if layer.diff_id == wanted), None)

    # --- reading ------------------------------------------------------------------------------

    @contextmanager
    def _read(self, layer: StoredLayer) -> Iterator[Iterator[bytes]]:
        store = layer.store
        where = f"layer {layer.id[:12]} in {store.root}"
        with store.layers_lock.held():
            names = _names_of_files(layer, where)
            try:
                files = Beneath(store.diff(layer.id))
            except OSError as error:
                msg = f"{where} has no files: {error.strerror}"
                raise ChangedError(msg, hint="the image was removed meanwhile, or the store is damaged") from error
            with files:
                opener: Opener = files
                if os.geteuid() != 0:
                    opener = _Rootless(files, store.diff(layer.id), self._unreadable)
                if names is not None:
                    opener = _Flat(opener, names)
                yield _explained(assemble(read_tar_split(store.tar_split(layer.id)), opener, where), where)


def _names_of_files(layer: StoredLayer, where: str) -> Mapping[bytes, bytes] | None:
    """Return where the contents are if not under their own names; that is what use_composefs does.

    Raises:
        StorageError: the layer is in the store in a form that gives no archive back.
    """
    store = layer.store
    if layer.partial and not store.tar_split(layer.id).exists():
        msg = f"{where} was pulled in part (zstd:chunked), and nothing says what its archive was"
        hint = (
            'set pull_options = {enable_partial_images = "false"} in storage.conf, remove the image and pull it again; '
            "or name it where it came from: docker://…"
        )
        raise StorageError(msg, hint=hint)
    if not store.uses_composefs(layer.id):
        return None
    names = store.flat_names(layer.id)
    if names is None:
        msg = f"{where} is kept with use_composefs, and nothing says under which names"
        hint = 'set use_composefs = "false" in storage.conf and pull the image again, or name it where it came from'
        raise StorageError(msg, hint=hint)
    return names


class _Flat:
    """Opens files by their names in the layer where the store has them by digest."""

    def __init__(self, files: Opener, names: Mapping[bytes, bytes]) -> None:
        self._files = files
        self._names = names

    def open(self, name: bytes) -> int:
        """Open one.

        Raises:
            OSError: it is not there.
        """
        stored = self._names.get(plain_name(name))
        if stored is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(name))
        return self._files.open(stored)


class _Rootless:
    """Opens files as this user, or as root of the user's namespace where that is not enough."""

    def __init__(self, files: Beneath, folder: Path, unreadable: NamespaceOpener) -> None:
        self._files = files
        self._folder = folder
        self._unreadable = unreadable

    def open(self, name: bytes) -> int:
        try:
            return self._files.open(name)
        except PermissionError:
            return self._unreadable.open(self._folder, name)


def _explained(chunks: Iterator[bytes], where: str) -> Iterator[bytes]:
    try:
        yield from chunks
    except PermissionError as error:
        msg = f"{error.filename!r} of {where} may not be read by this user"
        raise StorageError(msg, hint="in a rootless store run: podman unshare cfs …") from error
    except FileNotFoundError as error:
        msg = f"{where} has no record of its archive: {error.filename}"
        raise TransportError(msg, hint="it was never a layer of an image; commit the container first") from error
