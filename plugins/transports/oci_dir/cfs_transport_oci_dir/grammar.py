"""References to layouts and archives: PATH[:TAG][@DIGEST], as skopeo and podman write them."""

from __future__ import annotations

import re

from cfs_core.plugin import Digest, ImageReference, UsageError, split_scheme

_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_POSITION = re.compile(r"@(\d{1,6})\Z")


def parse_reference(text: str) -> ImageReference:
    """Split ``scheme:PATH[:TAG][@DIGEST]``. The path ends at the first colon; a tag ``@N`` is the N-th image, from 0.

    Raises:
        UsageError: no path, or an empty tag.
    """
    scheme, rest = split_scheme(text)
    digest = None
    if found := _DIGEST.search(rest):
        digest = Digest.parse(found[1])
        rest = rest[: found.start()]
    path, colon, tag = rest.partition(":")
    if not path or (colon and not tag):
        msg = f"{text!r} is not complete"
        raise UsageError(msg, hint=f"write it as {scheme}:PATH, {scheme}:PATH:TAG or {scheme}:PATH@sha256:…")
    return ImageReference(scheme=scheme, name=path, tag=tag or None, digest=digest, text=text)


def position(tag: str | None) -> int | None:
    """Return N of the tag ``@N``."""
    found = _POSITION.match(tag) if tag else None
    return int(found[1]) if found else None
