"""The grammar ``http-tarball:URL[@sha256:DIGEST][#arch=ARCHITECTURE]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from cfs_core.plugin import Architecture, Digest, ImageReference, UsageError, split_scheme

_REST = re.compile(r"(?P<url>https?://[!-~]+?)(?:@(?P<digest>sha256:[0-9a-f]{64}))?(?:#arch=(?P<arch>[a-z0-9]+))?")
_HINT = "write http-tarball:https://HOST/FILE.tar.gz@sha256:DIGEST, and #arch=arm64 behind it where that cannot be seen"
URL_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Tarball:
    """What a reference names. ``digest`` is the file's."""

    url: str
    digest: Digest | None
    architecture: str | None


def parse(text: str) -> ImageReference:
    """Check *text*; its name keeps URL, digest of the file and architecture, since the manifest's digest is another.

    Raises:
        UsageError: not in the grammar.
    """
    scheme, rest = split_scheme(text)
    tarball = take_apart(rest)
    if tarball.url.startswith("http:") and tarball.digest is None:
        msg = f"{text}: over plain http anybody on the way can change the file"
        raise UsageError(msg, hint="name its digest, @sha256:DIGEST, or use https")
    return ImageReference(scheme=scheme, name=rest, text=text)


def take_apart(rest: str) -> Tarball:
    """Take the part behind the scheme apart.

    Raises:
        UsageError: not in the grammar.
    """
    match = _REST.fullmatch(rest) if len(rest) <= URL_LIMIT else None
    if match is None or "#" in match["url"] or "@sha" in match["url"]:
        msg = f"{rest[:100]!r} is no URL of a tar file"
        raise UsageError(msg, hint=_HINT)
    try:
        parts = urlsplit(match["url"])
        port_is_sane = parts.port is None or parts.port > 0
    except ValueError:
        port_is_sane = False
    if not port_is_sane or not parts.hostname or parts.path in {"", "/"}:
        msg = f"{match['url']!r} names no file on a server"
        raise UsageError(msg, hint=_HINT)
    if parts.username is not None or parts.password is not None:
        msg = f"the URL for {parts.hostname} has a user or password in it; references end up in the installed system"
        raise UsageError(msg, hint="serve the file without, or fetch it yourself")
    if match["arch"] is not None and match["arch"] not in set(Architecture):
        msg = f"{match['arch']!r} is no architecture that cfs knows"
        raise UsageError(msg, hint=f"one of {', '.join(Architecture)}")
    return Tarball(match["url"], Digest.parse(match["digest"]) if match["digest"] else None, match["arch"])
