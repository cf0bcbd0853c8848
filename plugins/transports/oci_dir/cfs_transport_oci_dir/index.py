"""The index.json of an image layout (OCI image-spec 1.1, image-layout.md): which image a reference means."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import Descriptor, Digest, ImageError, JsonFields, NotFoundError, UsageError, parse_json
from cfs_transport_oci_dir.grammar import position

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cfs_core.plugin import ImageReference

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_REFERENCE_TYPE = "vnd.docker.reference.type"
_COSIGN = re.compile(r"(?:.*:)?sha256-[0-9a-f]{64}\.(?:sig|att|sbom)")
_ENTRIES_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the index."""

    media_type: str
    digest: Digest
    size: int
    names: tuple[str, ...]
    has_platform: bool
    is_artifact: bool = False
    """Whether the index itself says that this is no image: by its type, as an attestation, by cosign's tag."""


class LayoutIndex:
    """A parsed index.json."""

    def __init__(self, raw: bytes, where: str, is_artifact: Callable[[Entry], bool] = lambda _entry: False) -> None:
        """*is_artifact* looks into a manifest; it is asked only where the index leaves several to choose from."""
        self._looks_like_artifact = is_artifact
        fields = parse_json(raw, f"{where}/index.json")
        found = fields.array("manifests", _ENTRIES_LIMIT)
        self.raw = raw
        self.where = where
        self.entries = tuple(
            _entry(JsonFields(each, f"image {n} in {where}/index.json")) for n, each in enumerate(found)
        )

    def choose(self, reference: ImageReference) -> Entry | None:
        """Return what *reference* names; None means the index itself: one untagged image for each of several platforms.

        Raises:
            NotFoundError: nothing of that name.
            UsageError: several images and no name.
        """
        place = position(reference.tag)
        if place is not None:
            if place >= len(self.entries):
                msg = f"{self.where} has {len(self.entries)} images, so there is no image {place}"
                raise NotFoundError(msg, hint="positions count from 0")
            return self.entries[place]
        if reference.tag is not None:
            return self._named(reference.tag)
        if len({entry.digest for entry in self.entries}) == 1:
            return self.entries[0]
        # What stands beside an image (a signature, an attestation, an inventory) is not meant where nothing is named.
        images = [entry for entry in self.entries if not entry.is_artifact and not self._looks_like_artifact(entry)]
        images = images or list(self.entries)
        if len({entry.digest for entry in images}) == 1:
            return images[0]
        if not images:
            msg = f"{self.where} has no images in it"
            raise NotFoundError(msg, hint="copy one into it: cfs image copy SOURCE oci:DIRECTORY:TAG")
        if not any(entry.names for entry in images) and all(entry.has_platform for entry in images):
            return None
        msg = f"{self.where} has {len(images)} images and {reference} names none of them"
        raise UsageError(msg, hint=self._offer(reference.scheme))

    def _named(self, tag: str) -> Entry:
        found = {entry.digest: entry for entry in self.entries if tag in entry.names}
        if not found:
            msg = f"{self.where} has no image tagged {tag!r}"
            raise NotFoundError(msg, hint=self._offer("oci"))
        if len(found) > 1:
            msg = f"{self.where} has {len(found)} different images tagged {tag!r}"
            raise ImageError(msg, hint="name one by its digest: " + ", ".join(map(str, found)))
        return next(iter(found.values()))

    def media_type(self, digest: Digest) -> str:
        """Return the type the index states for *digest*, empty if it does not mention it."""
        return next((entry.media_type for entry in self.entries if entry.digest == digest), "")

    def _offer(self, scheme: str) -> str:
        names = list(dict.fromkeys(entry.names[0] for entry in self.entries if entry.names))
        untagged = sum(not entry.names for entry in self.entries)
        parts = [f"tags: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"] if names else []  # noqa: PLR2004
        if untagged:
            parts.append(f"{untagged} without a tag, which {scheme}:PATH:@N names by position")
        return "; ".join(parts) or "there are no images in it"


def replace_entry(raw: bytes | None, descriptor: Descriptor, tag: str | None, where: str) -> bytes:
    """Return *raw* (None: a new index) with *descriptor* under *tag*, which is taken from whatever had it before."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}
    if raw is not None:
        LayoutIndex(raw, where)  # refuses what we would not read either
        document = json.loads(raw)
    kept = [each for each in document["manifests"] if not _replaced(each, descriptor, tag)]
    added: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    annotations = {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}
    if tag is not None:
        annotations[REF_NAME] = tag
    if annotations:
        added["annotations"] = annotations
    document["manifests"] = [*kept, added]
    return json.dumps(document, separators=(",", ":")).encode()


def _replaced(entry: Mapping[str, object], descriptor: Descriptor, tag: str | None) -> bool:
    annotations = entry.get("annotations")
    found = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    if tag is None:
        return found is None and entry.get("digest") == str(descriptor.digest)
    return bool(found == tag)


def _entry(fields: JsonFields) -> Entry:
    annotations = fields.strings("annotations")
    names = (annotations.get(REF_NAME), annotations.get(_FULL_NAME))
    return Entry(
        fields.string("mediaType"),
        Digest.parse(fields.get("digest")),
        fields.size("size"),
        tuple(name for name in names if name),
        fields.has("platform"),
        fields.has("artifactType")
        or annotations.get(_REFERENCE_TYPE) == "attestation-manifest"
        or any(_COSIGN.fullmatch(name) for name in names if name),
    )
