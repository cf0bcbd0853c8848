"""What a registry simulator holds, has seen, and is told to do wrong."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfs_testkit.faults import Fault


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Script:
    method: str
    pattern: re.Pattern[str]
    faults: list[Fault]
    forever: bool


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read. ``kind`` is ``basic``, ``token``, or ``either`` of them; without a user anybody gets a token."""

    kind: str
    user: str | None = None
    password: str = ""
    identity_token: str | None = None
    """Refresh token that is accepted at the token endpoint (OAuth 2)."""

    offers: tuple[str, ...] = ()
    """``WWW-Authenticate`` headers, in which ``{basic}`` and ``{bearer}`` stand for these challenges."""

    def headers(self, bearer: str) -> tuple[str, ...]:
        """Return what ``WWW-Authenticate`` says, one value for each header; *bearer* is the challenge for tokens."""
        basic = 'Basic realm="testkit"'
        offers = self.offers or {"basic": ("{basic}",), "token": ("{bearer}",)}.get(self.kind, ("{bearer}", "{basic}"))
        return tuple(offer.replace("{basic}", basic).replace("{bearer}", bearer) for offer in offers)


class Registry:
    """Blobs and manifests by repository, who may read them, and which requests go wrong. Every answer reads it."""

    host = ""
    scheme = "http"

    def __init__(self, *, access: Access | None = None, referrers: bool = True, token_uses: int | None = None) -> None:
        self.access = access
        self.referrers = referrers
        self.token_uses = token_uses
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.seen: list[Seen] = []
        self.tokens: dict[str, int] = {}
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.uploads: dict[str, bytearray] = {}
        self._scripts: list[_Script] = []

    def url(self, path: str) -> str:
        """Return the absolute URL of *path*."""
        return f"{self.scheme}://{self.host}{path}"

    # --- content ------------------------------------------------------------------------------

    def put_blob(self, repository: str, data: bytes) -> str:
        """Store a blob; return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[repository, digest] = data
        return digest

    def put_manifest(self, repository: str, data: bytes, *, tag: str | None = None, media_type: str = "") -> str:
        """Store a manifest under its digest, and under *tag*; return the digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        kind = media_type or str(json.loads(data).get("mediaType", "application/vnd.oci.image.manifest.v1+json"))
        self.manifests[repository, digest] = (kind, data)
        if tag is not None:
            self.manifests[repository, tag] = (kind, data)
        return digest

    # --- faults and observations --------------------------------------------------------------

    def fault(self, pattern: str, *faults: Fault, method: str = "GET", forever: bool = False) -> None:
        """Give requests whose path matches *pattern* these faults in turn; the last one forever, if asked for."""
        self._scripts.append(_Script(method, re.compile(pattern), list(faults), forever))

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Take the next fault for a request; None for a proper answer."""
        with self.lock:
            for script in self._scripts:
                if script.method == method and script.faults and script.pattern.search(path):
                    if script.forever and len(script.faults) == 1:
                        return script.faults[0]
                    return script.faults.pop(0)
        return None

    def requests(self, pattern: str, method: str = "GET") -> Sequence[Seen]:
        """Return the requests so far whose path matches."""
        with self.lock:
            return [seen for seen in self.seen if seen.method == method and re.search(pattern, seen.path)]
