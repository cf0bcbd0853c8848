"""Image names as signatures claim them (docker references, normalised), and what a policy accepts as the same image."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_policies.documents import DocumentError

if TYPE_CHECKING:
    from cfs_core.plugin import ImageReference

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)")
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_REFERENCE = re.compile(rf"(?P<name>[^@]+?)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>[a-z0-9+._-]+:[0-9a-fA-F]{{32,}}))?")
_HUB = "docker.io"


@dataclass(frozen=True, slots=True)
class Named:
    """A normalised name: ``docker.io/library/busybox`` with tag or digest."""

    name: str
    tag: str | None = None
    digest: str | None = None

    @property
    def bare(self) -> bool:
        """Return whether there is neither tag nor digest."""
        return self.tag is None and self.digest is None

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_named(text: str) -> Named:
    """Parse a docker reference; names without a host are docker.io's.

    Raises:
        DocumentError: it is none.
    """
    match = _REFERENCE.fullmatch(text)
    name = _NAME.fullmatch(match["name"]) if match else None
    if match is None or name is None:
        msg = f"{text!r:.100} is not an image name"
        raise DocumentError(msg)
    first, slash, rest = match["name"].partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        host, path = _HUB, match["name"]
    else:
        host, path = first, rest
    if host == f"index.{_HUB}":
        host = _HUB
    if host == _HUB and "/" not in path:
        path = f"library/{path}"
    if not re.fullmatch(rf"{_PART}(?:/{_PART})*", path):
        msg = f"{text!r:.100} is not an image name"
        raise DocumentError(msg)
    return Named(f"{host}/{path}", match["tag"], match["digest"])


def intended_name(reference: ImageReference) -> Named | None:
    """Return what the operator asked for as a docker reference, None where a transport has no such names."""
    digest = str(reference.digest) if reference.digest else None
    if reference.scheme in ("docker", "registry"):
        return Named(reference.name, reference.tag, digest)
    if reference.scheme == "containers-storage":
        name = reference.name.rpartition("]")[2].partition("@")[0]
        if name:
            found = parse_named(name)
            return replace(found, tag=reference.tag, digest=digest)
    return None


def exact(intended: Named, signed: Named) -> bool:
    """Return whether both are the same name with the same tag or digest; bare names never match."""
    return not intended.bare and not signed.bare and str(intended) == str(signed)


def exact_or_digest(intended: Named, signed: Named) -> bool:
    """Return as `exact`; a name that is pinned by digest matches any signature for that repository."""
    if signed.bare or intended.bare:
        return False
    if intended.tag is not None:
        return str(intended) == str(signed)
    return intended.name == signed.name


def remapped(intended: Named, prefix: str, signed_prefix: str) -> Named:
    """Return *intended* with the namespace *prefix* replaced, itself if it is not in there."""
    if intended.name == prefix or intended.name.startswith(f"{prefix}/"):
        return replace(intended, name=signed_prefix + intended.name[len(prefix) :])
    return intended
