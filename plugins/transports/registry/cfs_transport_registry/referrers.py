"""What refers to an image: the referrers API, and the tag that stands in for it (distribution-spec 1.1)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from cfs_core.plugin import MANIFEST_LIMIT, Descriptor, Digest, ImageError, LimitError
from cfs_transport_registry.transfer import read_body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_transport_registry.oras_client import OrasClient

_INDEX = "application/vnd.oci.image.index.v1+json"
_PAGES = 32
_REFERRERS = 10_000
_OK, _NOT_FOUND = 200, 404


def list_referrers(client: OrasClient, path: str, digest: Digest, artifact_type: str | None) -> tuple[Descriptor, ...]:
    """Return descriptors of what refers to *digest*, of *artifact_type* if given.

    Raises:
        TransportError: no answer, or an answer other than yes or no.
        ImageError: an index that is none.
        LimitError: more pages or entries than anybody needs.
    """
    query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
    url: str | None = f"/v2/{path}/referrers/{digest}{query}"
    found: list[Descriptor] = []
    pages = 0
    while url is not None:
        pages += 1
        if pages > _PAGES:
            msg = f"{client.host} lists referrers of {digest} on more than {_PAGES} pages"
            raise LimitError(msg)
        raw, following = _page(client, url)
        # A registry without the referrers API says 404; clients then keep the list under a tag (distribution-spec 1.1).
        if raw is None and pages == 1:
            raw, following = _page(client, f"/v2/{path}/manifests/{digest.algorithm.value}-{digest.hex}")
        found += _descriptors(raw or b'{"manifests":[]}', artifact_type)
        if len(found) > _REFERRERS:
            msg = f"{client.host} lists more than {_REFERRERS} referrers of {digest}"
            raise LimitError(msg, facts={"limit": _REFERRERS})
        url = following
    return tuple(found)


def _page(client: OrasClient, url: str) -> tuple[bytes | None, str | None]:
    response = client.request(url, headers={"Accept": _INDEX})
    if response.status_code == _NOT_FOUND:
        response.close()
        return None, None
    if response.status_code != _OK:
        raise client.error_of(response, "referrers")
    link = re.match(r'\s*<([^>]*)>\s*;.*rel="?next"?', response.headers.get("Link", ""))
    following = _next(client, url, link[1]) if link else None
    raw = read_body(response, client.host, MANIFEST_LIMIT)
    if len(raw) > MANIFEST_LIMIT:
        msg = f"the list of referrers at {client.host} is longer than {MANIFEST_LIMIT} bytes"
        raise LimitError(msg, facts={"limit_bytes": MANIFEST_LIMIT})
    return raw, following


def _next(client: OrasClient, url: str, link: str) -> str | None:
    """Return the path of the next page; None if it is not at this registry."""
    try:
        following = urljoin(client.base + url, link)
        at_home = urlsplit(following)[:2] == urlsplit(client.base)[:2]
    except ValueError:
        return None
    return following.removeprefix(client.base) if at_home else None


def _descriptors(raw: bytes, artifact_type: str | None) -> Iterator[Descriptor]:
    try:
        entries = json.loads(raw)["manifests"]
        for entry in entries:
            if artifact_type is None or entry.get("artifactType") == artifact_type:
                yield _descriptor(entry)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        msg = "the list of referrers is not an image index"
        raise ImageError(msg) from error


def _descriptor(entry: dict[str, Any]) -> Descriptor:
    annotations = entry.get("annotations") or {}
    return Descriptor(
        media_type=str(entry["mediaType"]),
        digest=Digest.parse(entry["digest"]),
        size=int(entry["size"]),
        annotations={str(key): str(value) for key, value in annotations.items()},
    )
