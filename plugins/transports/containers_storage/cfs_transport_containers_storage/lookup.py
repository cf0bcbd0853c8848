"""Finding one image by what a person wrote: a name, a tag, a digest, an id or the beginning of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.plugin import Digest, ImageError, ImageReference, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfs_transport_containers_storage.store import ImageRecord

_SHORTEST_ID = 7
_HEX = re.compile(r"[0-9a-f]{7,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/\[\]-]*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_FULL_ID = 64


def parse(text: str) -> ImageReference:
    """Parse ``containers-storage:[[STORE]]NAME[:TAG][@DIGEST][@ID]`` or an id (``sha256:`` before it is allowed).

    ``name`` keeps the store in its brackets before the image's name, or before its id as ``@id``.

    Raises:
        UsageError: not in the grammar.
    """
    scheme, _, rest = text.partition(":")
    store, rest = _split_store(text, rest)
    bare = rest.removeprefix("@").removeprefix("sha256:")
    if _HEX.fullmatch(bare) and (len(bare) == _FULL_ID or rest.startswith(("@", "sha256:"))):
        return ImageReference(scheme=scheme, name=f"{store}@{bare}", text=text)
    name, *qualifiers = rest.split("@")
    digest = None
    wanted_id = ""
    for qualifier in qualifiers:
        if _HEX.fullmatch(qualifier) and not wanted_id:
            wanted_id = f"@{qualifier}"
            continue
        try:
            digest = Digest.parse(qualifier)
        except ImageError as error:
            msg = f"{qualifier!r} in {text!r} is neither a digest nor an image id"
            raise UsageError(msg, hint=error.hint) from error
    colon = name.find(":", name.rfind("/") + 1)
    name, tag = (name, None) if colon < 0 else (name[:colon], name[colon + 1 :])
    if not _NAME.fullmatch(name) or (tag is not None and not _TAG.fullmatch(tag)):
        msg = f"{rest!r} in {text!r} is not an image name"
        raise UsageError(msg, hint="write NAME[:TAG], NAME@DIGEST or an image id, as `podman images` shows them")
    if tag is None and digest is None and not wanted_id:
        tag = "latest"
    return ImageReference(scheme=scheme, name=f"{store}{name}{wanted_id}", tag=tag, digest=digest, text=text)


def _split_store(text: str, rest: str) -> tuple[str, str]:
    if not rest.startswith("["):
        return "", rest
    store, closing, rest = rest.partition("]")
    if not closing:
        msg = f"{text!r} has a bracket that is not closed"
        raise UsageError(msg, hint="write containers-storage:[DRIVER@/PATH]NAME")
    return store + closing, rest


def split_name(name: str) -> tuple[str, str, str]:
    """Split the ``name`` of a parsed reference into store, image name and id; each may be empty."""
    store, rest = _split_store(name, name)
    image, _, wanted_id = rest.partition("@")
    return store, image, wanted_id


def find_image(images: Sequence[ImageRecord], reference: ImageReference) -> ImageRecord:
    """Return the image that *reference* names; the first store wins.

    Raises:
        NotFoundError: none.
        UsageError: more than one image begins with that id, or ends with that short name.
    """
    _, name, wanted_id = split_name(reference.name)
    if wanted_id:
        return _only({image.id: image for image in reversed(images) if image.id.startswith(wanted_id)}, reference)
    if reference.digest is not None:
        with_digest = [image for image in images if has_manifest(image, reference.digest)]
        named = [image for image in with_digest if set(image_names(image)) & set(_spellings(name))]
        short = [image for image in with_digest if any(each.endswith(f"/{name}") for each in image_names(image))]
        if found := (named or short):
            return found[0]
        raise _missing(reference, images)
    tag = reference.tag or "latest"
    for spelling in _spellings(name):
        for image in images:
            if f"{spelling}:{tag}" in image.names:
                return image
    matching = {image.id: image for image in images if any(each.endswith(f"/{name}:{tag}") for each in image.names)}
    if not matching and len(name) >= _SHORTEST_ID and _HEX.fullmatch(name) and tag == "latest":
        matching = {image.id: image for image in images if image.id.startswith(name)}
    if not matching:
        raise _missing(reference, images)
    return _only(matching, reference)


def has_manifest(image: ImageRecord, digest: Digest) -> bool:
    """Return whether the image was stored with a manifest or index of that digest."""
    text = str(digest)
    return any(value == text and key.startswith("manifest") for key, value in image.digests.items())


def image_names(image: ImageRecord) -> Iterator[str]:
    """Yield an image's names without tag and digest."""
    for name in image.names:
        bare = name.partition("@")[0]
        colon = bare.find(":", bare.rfind("/") + 1)
        yield bare if colon < 0 else bare[:colon]


def _spellings(name: str) -> Iterator[str]:
    yield name
    first, slash, _ = name.partition("/")
    if not slash:
        yield f"localhost/{name}"
        yield f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        yield f"localhost/{name}"
        yield f"docker.io/{name}"
    elif first == "docker.io" and name.count("/") == 1:
        yield name.replace("docker.io/", "docker.io/library/", 1)


def _only(found: dict[str, ImageRecord], reference: ImageReference) -> ImageRecord:
    if not found:
        raise _missing(reference, [])
    if len(found) > 1:
        names = ", ".join(sorted(image.names[0] if image.names else image.id[:12] for image in found.values()))
        msg = f"{reference} could be any of: {names}"
        raise UsageError(msg, hint="write the full name or the full id")
    return next(iter(found.values()))


def _missing(reference: ImageReference, images: Sequence[ImageRecord]) -> NotFoundError:
    msg = f"the container store has no image {reference.text.partition(':')[2]!r}"
    some = ", ".join(sorted(name for image in images for name in image.names)[:5])
    return NotFoundError(
        msg, hint=f"there are: {some}" if some else "see `podman images`; the store of another user is separate"
    )
