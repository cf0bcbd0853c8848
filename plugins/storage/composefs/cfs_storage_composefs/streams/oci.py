"""How OCI images lie in a repository: names of streams, tags, facts read from manifests and configs (formats D.6)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import Digest, FormatVersion, ImageError, StorageError, UsageError
from cfs_storage_composefs.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfs_core.plugin import FormatOptions

TAGS = "oci"
"""Directory below streams/refs that holds tags."""

_NAME_BYTES = 255


def layer_stream(diff_id: Digest) -> str:
    """Return the name in streams/ of a layer."""
    return f"oci-layer-{diff_id}"


def config_stream(digest: Digest) -> str:
    """Return the name in streams/ of a config."""
    return f"oci-config-{digest}"


def manifest_stream(digest: Digest) -> str:
    """Return the name in streams/ of a manifest."""
    return f"oci-manifest-{digest}"


def digest_in(name: str, kind: str) -> Digest | None:
    """Return the digest in the name of a stream of *kind* (layer, config, manifest), None for other names."""
    prefix = f"oci-{kind}-"
    if not name.startswith(prefix):
        return None
    try:
        return Digest.parse(name.removeprefix(prefix))
    except ImageError:
        return None


def bootc_tag(manifest: Digest) -> str:
    """Return the tag by which bootc keeps an image alive."""
    return f"localhost/bootc-{manifest}"


def tag_path(tag: str) -> str:
    """Return where below streams/refs a tag's link is.

    Raises:
        UsageError: not usable as a tag.
    """
    encoded = tag.replace("%", "%25").replace("/", "%2F")
    if not tag or tag.startswith("@") or tag in {".", ".."} or "\0" in tag or len(encoded.encode()) > _NAME_BYTES:
        msg = f"{tag!r:.300} cannot be the name of a stored image"
        raise UsageError(msg, hint="a name has 1 to 255 bytes, no NUL, and does not start with @")
    return f"{TAGS}/{encoded}"


def tag_of(path: str) -> str | None:
    """Return the tag of a link below streams/refs, None if it is no tag."""
    directory, slash, encoded = path.partition("/")
    if directory != TAGS or not slash or "/" in encoded:
        return None
    return encoded.replace("%2F", "/").replace("%25", "%")


def plain_key(options: FormatOptions) -> str:
    """Return the named reference of a config to the plain image."""
    return "composefs.image" if options.version is FormatVersion.V2 else "composefs.image.v1"


def boot_key(options: FormatOptions) -> str:
    """Return the named reference of a config to the bootable image."""
    base = "composefs.image.boot" if options.version is FormatVersion.V2 else "composefs.image.boot.v1"
    return base + ".xattrs=keep-user-xattrs" if options.keep_user_xattrs else base


def is_image_key(name: str) -> bool:
    """Return whether a config's named reference leads to an EROFS image and not to a layer."""
    return name.startswith("composefs.image")


def config_key(config: Digest) -> str:
    """Return the named reference of a manifest to its config."""
    return f"config:{config}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFacts:
    """What listing and exporting need of a manifest."""

    config: Digest
    layers_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """What listing and exporting need of a config."""

    architecture: str
    labels: Mapping[str, str]
    diff_ids: tuple[Digest, ...]


def manifest_facts(raw: bytes, where: str) -> ManifestFacts:
    """Read a stored manifest.

    Raises:
        DamagedError: not an image manifest.
    """
    try:
        value = json.loads(raw)
        config = Digest.parse(value["config"]["digest"])
        size = sum(int(layer["size"]) for layer in value["layers"])
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError, ImageError) as error:
        raise _not_readable(where, error) from error
    return ManifestFacts(config=config, layers_bytes=size)


def config_facts(raw: bytes, where: str) -> ConfigFacts:
    """Read a stored image config.

    Raises:
        DamagedError: not an image config.
    """
    try:
        value = json.loads(raw)
        labels = (value.get("config") or {}).get("Labels") or {}
        return ConfigFacts(
            architecture=str(value.get("architecture", "")),
            labels={str(key): str(text) for key, text in labels.items()},
            diff_ids=tuple(Digest.parse(text) for text in value["rootfs"]["diff_ids"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ImageError) as error:
        raise _not_readable(where, error) from error


def _not_readable(where: str, error: Exception) -> StorageError:
    return DamagedError(f"{where} cannot be read: {error!r:.200}", hint="pull the image again")
