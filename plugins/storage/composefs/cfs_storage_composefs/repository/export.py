"""A repository with just some images, as actions on a target (formats D.8 says what bootc needs of it)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    Attributes,
    BytesContent,
    Content,
    CopyObject,
    FormatOptions,
    MakeDirectory,
    MakeSymlink,
)
from cfs_storage_composefs.errors import MissingError
from cfs_storage_composefs.fsverity import digest_bytes
from cfs_storage_composefs.objects.names import object_path
from cfs_storage_composefs.repository import metadata
from cfs_storage_composefs.streams import oci as streams
from cfs_storage_composefs.streams.splitstream import CONFIG, MANIFEST, single_object_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cfs_core.plugin import Action, CommittedImage, HashAlgorithm, Location
    from cfs_storage_composefs.objects.names import Store
    from cfs_storage_composefs.repository.catalog import Catalog, StoredManifest
    from cfs_storage_composefs.repository.metadata import Metadata


@dataclass(slots=True)
class _Contents:
    """What the new repository will hold: objects by digest, links by path below its root."""

    objects: dict[bytes, Content] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


class Exporter:
    """Plans copies out of one repository."""

    def __init__(self, catalog: Catalog, store: Store, facts: Metadata) -> None:
        self._catalog = catalog
        self._store = store
        self._metadata = facts
        self._algorithm = facts.algorithm

    def plan(self, images: Sequence[CommittedImage], root: Location, *, verity: bool) -> Iterator[Action]:
        """Yield the actions, parents first. The same images give the same actions, whatever else the repository holds.

        Config and manifest streams are made anew: they refer to these images only.

        Raises:
            StorageError: something that the images need is not here.
        """
        contents = _Contents()
        for image in images:
            # Objects are copied as they are: what is made is read back, and each must have the digest it is named by.
            self._collect(
                image, [other for other in images if other.manifest_digest == image.manifest_digest], contents
            )
        seal: HashAlgorithm | None = self._algorithm if verity else None
        why = "composefs repository"

        yield MakeDirectory(why=why, location=root, attributes=Attributes(mode=0o700))
        yield CopyObject(
            why=why, location=root / metadata.NAME, source=BytesContent(self._metadata.to_bytes()), verity=seal
        )
        for path in self._directories(contents):
            yield MakeDirectory(why=why, location=root / path)
        for digest, content in sorted(contents.objects.items()):
            yield CopyObject(why=why, location=root / f"objects/{object_path(digest)}", source=content, verity=seal)
        # Links last: a copy that ends early has objects without names, which is garbage, and not names without objects.
        for path, target in sorted(contents.links.items()):
            yield MakeSymlink(why=why, location=root / path, target=target)

    @staticmethod
    def _directories(contents: _Contents) -> list[str]:
        found = {"objects", "images", "streams"}
        found |= {f"objects/{digest.hex()[:2]}" for digest in contents.objects}
        for path in contents.links:
            parts = path.split("/")[:-1]
            found |= {"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
        return sorted(found)

    def _collect(self, image: CommittedImage, siblings: Sequence[CommittedImage], contents: _Contents) -> None:
        found = self._catalog.manifest(image.manifest_digest)
        refs = self._image_refs(found, siblings)
        for digest in refs.values():
            contents.objects[digest] = self._store.unchecked(digest)
            contents.links[f"images/{digest.hex()}"] = f"../objects/{object_path(digest)}"
        layers = self._collect_layers(found, contents)
        config_digest = found.manifest_facts.config
        # Not copied: the stored streams also name other images made from this config, whose objects are not exported,
        # and a check of the new repository would miss them.
        config = self._stream(CONFIG, found.config.raw, layers | refs, contents)
        manifest = self._stream(
            MANIFEST, found.manifest.raw, {streams.config_key(config_digest): config} | layers, contents
        )
        self._link(contents, streams.config_stream(config_digest), config)
        self._link(contents, streams.manifest_stream(found.digest), manifest)
        tag = streams.tag_path(streams.bootc_tag(found.digest))
        contents.links[f"streams/refs/{tag}"] = f"../../{streams.manifest_stream(found.digest)}"

    def _image_refs(self, found: StoredManifest, siblings: Sequence[CommittedImage]) -> dict[str, bytes]:
        """Return the named references of the config to these images, under the keys they were committed with.

        Raises:
            MissingError: the config knows no such image.
        """
        refs: dict[str, bytes] = {}
        for image in siblings:
            options = FormatOptions(version=image.version)
            wanted = bytes.fromhex(image.id)
            keys = [key for key, target in found.config.named_refs.items() if target == wanted and ".boot" in key]
            if not keys:
                msg = f"image {image.id} does not belong to {found.digest} in this repository"
                raise MissingError(msg, hint="commit it again")
            refs |= dict.fromkeys(keys, wanted)
            refs[streams.plain_key(options)] = bytes.fromhex(image.plain_id)
        return refs

    def _collect_layers(self, found: StoredManifest, contents: _Contents) -> dict[str, bytes]:
        layers = {}
        for diff_id in found.config_facts.diff_ids:
            name = streams.layer_stream(diff_id)
            digest = found.config.named_refs.get(str(diff_id))
            if digest is None:
                msg = f"the config of {found.digest} does not refer to layer {diff_id}"
                raise MissingError(msg, hint="pull the image again")
            with self._catalog.open_object(digest, name) as stream:
                for reference in stream.object_refs:
                    if reference not in contents.objects:
                        contents.objects[reference] = self._store.unchecked(reference)
            contents.objects[digest] = self._store.unchecked(digest)
            self._link(contents, name, digest)
            layers[str(diff_id)] = digest
        return layers

    def _stream(self, content_type: int, raw: bytes, named: Mapping[str, bytes], contents: _Contents) -> bytes:
        digest = self._add(raw, contents)
        return self._add(single_object_stream(content_type, self._algorithm, digest, len(raw), named), contents)

    def _add(self, data: bytes, contents: _Contents) -> bytes:
        digest = digest_bytes(data, self._algorithm)
        contents.objects[digest] = BytesContent(data)
        return digest

    @staticmethod
    def _link(contents: _Contents, name: str, digest: bytes) -> None:
        contents.links[f"streams/{name}"] = f"../objects/{object_path(digest)}"
