"""What a repository holds, by name: streams, manifests, configs, tags, images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cfs_core.plugin import Digest, FormatOptions, ImageError, ImageId, StorageError, StoredImage, UsageError
from cfs_storage_composefs.errors import DamagedError, MissingError, storage_errors
from cfs_storage_composefs.streams import oci as streams
from cfs_storage_composefs.streams.splitstream import CONFIG, MANIFEST, SplitStream

if TYPE_CHECKING:
    from cfs_storage_composefs.objects.names import Store
    from cfs_storage_composefs.repository.directory import RepositoryDirectory
    from cfs_storage_composefs.streams.oci import ConfigFacts, ManifestFacts

_JSON_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJson:
    """A stored manifest or config: its bytes, the object they are in, and the stream's named references."""

    raw: bytes = field(repr=False)
    object: bytes
    named_refs: dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredManifest:
    """A stored image: manifest and config with what they say."""

    digest: Digest
    manifest: StoredJson
    manifest_facts: ManifestFacts
    config: StoredJson
    config_facts: ConfigFacts

    def image(self, name: str, options: FormatOptions) -> StoredImage:
        """Return the entry of a list; the image id is that of *options*, or else any."""
        refs = self.config.named_refs
        boot = refs.get(streams.boot_key(options))
        if boot is None:
            boot = next((refs[key] for key in sorted(refs) if key.startswith("composefs.image.boot")), None)
        return StoredImage(
            name=name,
            manifest_digest=self.digest,
            config_digest=self.manifest_facts.config,
            id=None if boot is None else ImageId(boot.hex()),
            architecture=self.config_facts.architecture,
            size=self.manifest_facts.layers_bytes,
            labels=self.config_facts.labels,
        )


class Catalog:
    """Reads what is linked in a repository's directory."""

    def __init__(self, directory: RepositoryDirectory, store: Store, options: FormatOptions) -> None:
        self._directory = directory
        self._store = store
        self._options = options

    def open_stream(self, name: str) -> SplitStream:
        """Open ``streams/NAME``.

        Raises:
            MissingError: not there.
            DamagedError: not a splitstream.
        """
        digest = self._directory.linked("streams", name)
        if digest is None:
            msg = f"the repository at {self._directory.path} has no {name}"
            raise MissingError(msg, hint="pull the image first")
        return self.open_object(digest, name)

    def open_object(self, digest: bytes, where: str) -> SplitStream:
        """Open a splitstream by its object.

        Raises:
            MissingError: not there.
            DamagedError: not a splitstream.
        """
        content = self._store.content(digest)
        with storage_errors(f"reading {where}"):
            file = content.open()
            return SplitStream.open(file, self._directory.metadata.algorithm, where)

    def read_json(self, name: str, content_type: int, expected: Digest) -> StoredJson:
        """Return the JSON text that a config or manifest stream keeps, checked against its OCI digest.

        Raises:
            MissingError: not there.
            DamagedError: not one object, too long, or other bytes than its digest says.
        """
        with self.open_stream(name) as stream:
            if stream.content_type != content_type or len(stream.object_refs) != 1:
                msg = f"{name} is not a stream of one JSON object"
                raise DamagedError(msg, hint="pull the image again")
            digest = stream.object_refs[0]
            named_refs = stream.named_refs
        content = self._store.content(digest)
        if content.size > _JSON_LIMIT:
            msg = f"{name} has {content.size} bytes, more than {_JSON_LIMIT}"
            raise DamagedError(msg, hint="pull the image again")
        with storage_errors(f"reading {name}"), content.open() as file:
            raw = file.read(_JSON_LIMIT)
        if Digest.of(raw, expected.algorithm) != expected:
            msg = f"the bytes of {name} are not what its digest says"
            raise DamagedError(msg, hint="pull the image again")
        return StoredJson(raw=raw, object=digest, named_refs=named_refs)

    def manifest(self, digest: Digest) -> StoredManifest:
        """Return a stored image by its manifest's digest.

        Raises:
            MissingError, DamagedError: as for `read_json`.
        """
        name = streams.manifest_stream(digest)
        manifest = self.read_json(name, MANIFEST, digest)
        facts = streams.manifest_facts(manifest.raw, name)
        config_name = streams.config_stream(facts.config)
        config = self.read_json(config_name, CONFIG, facts.config)
        return StoredManifest(
            digest=digest,
            manifest=manifest,
            manifest_facts=facts,
            config=config,
            config_facts=streams.config_facts(config.raw, config_name),
        )

    def manifests(self) -> list[Digest]:
        """Return the digests of all stored manifests, tagged or not."""
        with storage_errors(f"listing the repository at {self._directory.path}"):
            names = self._directory.names("streams")
        return [digest for name in names if (digest := streams.digest_in(name, "manifest"))]

    def tags(self) -> dict[str, Digest]:
        """Return the tags whose manifests are there, by name.

        Raises:
            StorageError: unreadable.
        """
        found = {}
        with storage_errors(f"listing the repository at {self._directory.path}"):
            there = self._directory.names("streams")
            for path, target in sorted(self._directory.refs("streams").items()):
                tag, digest = streams.tag_of(path), streams.digest_in(target, "manifest")
                if tag is not None and digest is not None and target in there:
                    found[tag] = digest
        return dict(sorted(found.items()))

    def images(self) -> tuple[StoredImage, ...]:
        """List tagged images by name."""
        read = {digest: self.manifest(digest) for digest in set(self.tags().values())}
        return tuple(read[digest].image(tag, self._options) for tag, digest in self.tags().items())

    def find(self, name: str) -> tuple[StoredImage, StoredManifest]:
        """Find an image by tag, manifest digest (with or without ``@``) or image id.

        Raises:
            MissingError: no such image.
        """
        tags = self.tags()
        if name in tags:
            found = self.manifest(tags[name])
            return found.image(name, self._options), found
        digest = _as_digest(name.removeprefix("@"))
        if digest is not None and digest in self.manifests():
            found = self.manifest(digest)
            return found.image(next((tag for tag in tags if tags[tag] == digest), name), self._options), found
        if (wanted := self._as_image_id(name)) is not None:
            for digest in self.manifests():
                found = self.manifest(digest)
                if wanted in (target for key, target in found.config.named_refs.items() if streams.is_image_key(key)):
                    return replace(found.image(name, self._options), id=ImageId(wanted.hex())), found
        msg = f"the repository at {self._directory.path} has no image {name!r:.300}"
        raise MissingError(msg, hint="cfs image list shows what it has")

    def _as_image_id(self, text: str) -> bytes | None:
        if len(text) != 2 * self._directory.metadata.algorithm.size:
            return None
        try:
            return bytes.fromhex(text)
        except ValueError:
            return None

    def remove_tag(self, name: str) -> None:
        """Remove a tag, or bootc's tag of a manifest digest.

        Raises:
            MissingError: no such tag.
        """
        candidates = [name]
        digest = _as_digest(name.removeprefix("@"))
        if digest is not None:
            candidates.append(streams.bootc_tag(digest))
        for tag in candidates:
            try:
                path = streams.tag_path(tag)
            except UsageError:
                continue
            try:
                with storage_errors(f"removing the tag {tag}"):
                    self._directory.unlink(f"streams/refs/{path}")
            except StorageError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    continue
                raise
            return
        msg = f"the repository at {self._directory.path} has no image named {name!r:.300}"
        raise MissingError(msg, hint="cfs image list shows what it has")


def _as_digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except ImageError:
        return None
