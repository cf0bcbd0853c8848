"""Images and layers of one or several stores, read from their JSON files (containers/storage)."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import NotFoundError, StorageError
from cfs_transport_containers_storage.locks import SharedLock
from cfs_transport_containers_storage.places import DRIVERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cfs_transport_containers_storage.places import Places

_JSON_LIMIT = 512 * 1024 * 1024
_ID = re.compile(r"[0-9a-f]{64}")
_IMAGES, _LAYERS = "images", "layers"
_CONTENTS = "zstd-chunked-manifest"
_PLAIN_KEY = re.compile(r"[.0-9a-z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """One layer. ``diff_id`` is None where the store does not know it (pulled in part by its table of contents)."""

    id: str
    parent: str | None
    diff_id: str | None
    store: Store = field(repr=False)
    partial: bool = False
    """Whether only files that were missing were fetched (zstd:chunked, by a table of contents)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image. ``digests`` are those of the data items it has, by item name."""

    id: str
    names: tuple[str, ...]
    top_layer: str | None
    digests: Mapping[str, str]
    store: Store = field(repr=False)


class Store:
    """One graph root, read with one driver."""

    def __init__(self, root: Path, driver: str) -> None:
        self.root = root
        self.driver = driver
        self.images_lock = SharedLock(root / f"{driver}-images/images.lock")
        self.layers_lock = SharedLock(root / f"{driver}-layers/layers.lock")

    def images(self) -> list[ImageRecord]:
        """Read the images.

        Raises:
            StorageError: damaged.
        """
        with self.images_lock.held():
            entries = _read(self.root / f"{self.driver}-images/images.json")
        return [self._image(entry) for entry in entries]

    def layers(self) -> dict[str, StoredLayer]:
        """Read the layers by id.

        Raises:
            StorageError: damaged.
        """
        folder = self.root / f"{self.driver}-layers"
        with self.layers_lock.held():
            # Layers that containers/storage may lose in a crash ("volatile") are listed in a file of their own.
            entries = [*_read(folder / "layers.json"), *_read(folder / "volatile-layers.json")]
        return {layer.id: layer for layer in map(self._layer, entries)}

    def item(self, image: ImageRecord, key: str, limit: int) -> bytes | None:
        """Return a data item of an image (a manifest, its config), at most ``limit + 1`` bytes of it."""
        folder = self.root / f"{self.driver}-images" / image.id
        try:
            with (folder / _item_name(key)).open("rb") as file:
                return file.read(limit + 1)
        except FileNotFoundError:
            return None

    def diff(self, layer_id: str) -> Path:
        """Return the directory that the layer's files are in."""
        if self.driver == "vfs":
            return self.root / "vfs/dir" / layer_id
        return self.root / self.driver / layer_id / "diff"

    def uses_composefs(self, layer_id: str) -> bool:
        """Return whether the layer's files are kept by their digests, with a composefs image that names them."""
        return self.driver == "overlay" and (self.root / self.driver / layer_id / "composefs-data").exists()

    def flat_names(self, layer_id: str) -> Mapping[bytes, bytes] | None:
        """Return under which names the directory of such a layer has the files of the archive; None if nothing says so.

        They are the SHA-256 of the contents, as the layer's table of contents (zstd:chunked) has it, with a slash after
        two digits.

        Raises:
            StorageError: damaged.
        """
        path = self.root / f"{self.driver}-layers" / layer_id / _item_name(_CONTENTS)
        try:
            with path.open("rb") as file:
                raw = file.read(_JSON_LIMIT + 1)
            found = json.loads(raw) if len(raw) <= _JSON_LIMIT else {}
            files = [entry for entry in found["entries"] if entry["type"] == "reg" and entry.get("digest")]
            return {plain_name(os.fsencode(entry["name"])): _flat(entry["digest"]) for entry in files}
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            msg = f"{path} is not what containers/storage writes"
            raise StorageError(msg, hint="remove the image from the store and pull it again") from error

    def tar_split(self, layer_id: str) -> Path:
        """Return the file that holds what the directory does not."""
        return self.root / f"{self.driver}-layers" / f"{layer_id}.tar-split.gz"

    def _image(self, entry: dict[str, Any]) -> ImageRecord:
        names = entry.get("names") or []
        digests = entry.get("big-data-digests") or {}
        top = entry.get("layer") or None
        if not isinstance(names, list) or not isinstance(digests, dict) or not (top is None or _is_id(top)):
            raise self._damaged(_IMAGES)
        return ImageRecord(
            id=self._id(entry, "images"),
            names=tuple(map(str, names)),
            top_layer=top,
            digests={str(key): str(value) for key, value in digests.items()},
            store=self,
        )

    def _layer(self, entry: dict[str, Any]) -> StoredLayer:
        parent = entry.get("parent") or None
        if parent is not None and not _is_id(parent):
            raise self._damaged(_LAYERS)
        flags = entry.get("flags")
        # What a pull in part was told by the image's config; the diff-id is checked when the layer is read in any case.
        expected = flags.get("expected-layer-diffid") if isinstance(flags, dict) else None
        diff_id = entry.get("diff-digest") or expected or None
        return StoredLayer(
            id=self._id(entry, "layers"),
            parent=parent,
            diff_id=str(diff_id) if diff_id else None,
            store=self,
            partial=bool(entry.get("toc-digest") or (expected and not entry.get("diff-digest"))),
        )

    def _id(self, entry: dict[str, Any], what: str) -> str:
        found = entry.get("id")
        if not _is_id(found):
            raise self._damaged(what)
        return str(found)

    def _damaged(self, what: str) -> StorageError:
        msg = f"{self.root}/{self.driver}-{what}/{what}.json is not what containers/storage writes"
        return StorageError(msg)


def open_stores(places: Places) -> list[Store]:
    """Open all stores that are there, with the configured driver or with each one that is found.

    Raises:
        NotFoundError: none is there.
        StorageError: there, and not readable for this user.
    """
    drivers = (places.driver,) if places.driver else DRIVERS
    found = []
    for root in places.roots:
        for driver in drivers:
            try:
                if (root / f"{driver}-images").is_dir():
                    found.append(Store(root, driver))
            except PermissionError as error:
                msg = f"the store at {root} may not be read by this user"
                raise StorageError(msg, hint="run cfs as the user who owns the store") from error
    if not found:
        where = " or ".join(map(str, places.roots))
        msg = f"there is no container store at {where} (from {places.origin})"
        raise NotFoundError(
            msg, hint="check storage.conf and the user, or name it: containers-storage:[overlay@/PATH]NAME"
        )
    return found


def chain(layers: Mapping[str, StoredLayer], top: str | None) -> Iterator[StoredLayer]:
    """Yield an image's layers from the top down.

    Raises:
        StorageError: one is missing, or they form a circle.
    """
    seen: set[str] = set()
    while top is not None:
        layer = layers.get(top)
        if layer is None or top in seen:
            msg = f"layer {top[:12]} of the image is not in the store"
            raise StorageError(msg, hint="the store is damaged: try podman system check, or pull the image again")
        seen.add(top)
        yield layer
        top = layer.parent


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            raw = file.read(_JSON_LIMIT + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise StorageError(msg, hint="run cfs as the user who owns the store") from error
    try:
        entries = json.loads(raw or b"[]") if len(raw) <= _JSON_LIMIT else None
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        msg = f"{path} is not what containers/storage writes"
        raise StorageError(msg, hint="podman itself should complain too: try podman images")
    return entries


def plain_name(name: bytes) -> bytes:
    """Return a name of an archive without what does not matter in front of it."""
    return name.removeprefix(b".").lstrip(b"/") if name.startswith(b"./") else name.lstrip(b"/")


def _flat(digest: str) -> bytes:
    algorithm, _, text = digest.partition(":")
    if algorithm != "sha256" or not _is_id(text):
        raise ValueError(digest)
    return f"{text[:2]}/{text[2:]}".encode()


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _item_name(key: str) -> str:
    """Return the file name of a data item: itself if harmless, else base64 behind ``=``."""
    return key if _PLAIN_KEY.fullmatch(key) else "=" + base64.b64encode(key.encode()).decode()
