"""Finding one image by what a person wrote: a name, a tag, a digest, an id or the beginning of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cfs_core.plugin import Digest, ImageError, ImageReference, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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


@dataclass(frozen=True, slots=True)
class Found:
    """An image, and the full name (no tag) by which a reference leads to it; None where it has only an id."""

    image: ImageRecord
    name: str | None


def find_image(images: Sequence[ImageRecord], reference: ImageReference) -> Found:
    """Return the image that *reference* names; the first store wins.

    Raises:
        NotFoundError: none.
        UsageError: more than one image begins with that id, or more than one full name ends with that short name.
    """
    _, name, wanted_id = split_name(reference.name)
    if wanted_id:
        image = _by_id(images, wanted_id, reference)
        if not name:
            return Found(image, None)
        return _first_named([image], name, image_names, reference) or _raise_missing(reference, images)
    if reference.digest is not None:
        with_digest = [image for image in images if has_manifest(image, reference.digest)]
        return _first_named(with_digest, name, image_names, reference) or _raise_missing(reference, images)
    tag = f":{reference.tag or 'latest'}"

    def tagged(image: ImageRecord) -> Iterator[str]:
        return (each.removesuffix(tag) for each in image.names if each.endswith(tag) and "@" not in each)

    if found := _first_named(images, name, tagged, reference):
        return found
    if len(name) >= _SHORTEST_ID and _HEX.fullmatch(name) and tag == ":latest":
        return Found(_by_id(images, name, reference), None)
    return _raise_missing(reference, images)


def _by_id(images: Sequence[ImageRecord], beginning: str, reference: ImageReference) -> ImageRecord:
    matching = {image.id: image for image in reversed(images) if image.id.startswith(beginning)}
    if not matching:
        _raise_missing(reference, images)
    if len(matching) > 1:
        _raise_unclear(reference, [image.names[0] if image.names else each[:12] for each, image in matching.items()])
    return next(iter(matching.values()))


def _first_named(
    images: Sequence[ImageRecord],
    name: str,
    names: Callable[[ImageRecord], Iterator[str]],
    reference: ImageReference,
) -> Found | None:
    for spelling in _spellings(name):
        for image in images:
            if spelling in names(image):
                return Found(image, spelling)
    short = {each: image for image in reversed(images) for each in names(image) if each.endswith(f"/{name}")}
    if len(short) > 1:
        _raise_unclear(reference, list(short))
    return next((Found(image, each) for each, image in short.items()), None)


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


def _raise_unclear(reference: ImageReference, names: Sequence[str]) -> NoReturn:
    msg = f"{reference} could be any of: {', '.join(sorted(names))}"
    raise UsageError(msg, hint="write the full name or the full id")


def _raise_missing(reference: ImageReference, images: Sequence[ImageRecord]) -> NoReturn:
    msg = f"the container store has no image {reference.text.partition(':')[2]!r}"
    some = ", ".join(sorted(name for image in images for name in image.names)[:5])
    raise NotFoundError(
        msg, hint=f"there are: {some}" if some else "see `podman images`; the store of another user is separate"
    )
