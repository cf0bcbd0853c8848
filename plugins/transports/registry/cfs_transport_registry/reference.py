"""The strict grammar of image names (distribution/reference): host, path, tag and digest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import Digest, ImageError, ImageReference, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LONGEST_NAME = 255

HUB = "docker.io"
HUB_SERVER = "registry-1.docker.io"
HUB_NAMES = frozenset({HUB, HUB_SERVER, "index.docker.io"})


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of a registry: logical ``host`` (``docker.io``, ``quay.io``, ``localhost:5000``) and ``path``."""

    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"

    @classmethod
    def of(cls, name: str) -> Repository:
        """Split the ``name`` of a parsed reference."""
        host, _, path = name.partition("/")
        return cls(host, path)


def parse(text: str, aliases: Mapping[str, str]) -> ImageReference:
    """Parse ``docker://NAME[:TAG][@DIGEST]`` or ``registry:NAME…``; the tag is ``latest`` if neither is given.

    ``docker://`` normalises names without a host to docker.io and knows no aliases, as docker and skopeo do.
    ``registry:`` wants a host, or a short name that *aliases* (registries.conf) knows.

    Raises:
        UsageError: not in the grammar.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "docker" and not rest.startswith("//"):
        msg = f"{text!r} lacks the slashes"
        raise UsageError(msg, hint=f"write docker://{rest}")
    rest = rest.removeprefix("//")
    remainder, at, digest_text = rest.partition("@")
    digest = _digest(text, digest_text) if at else None
    slash = remainder.rfind("/")
    colon = remainder.find(":", slash + 1)
    name, tag = (remainder, None) if colon < 0 else (remainder[:colon], remainder[colon + 1 :])
    if tag is not None and not _TAG.fullmatch(tag):
        msg = f"{tag!r} in {text!r} is not a tag"
        raise UsageError(msg, hint="a tag has letters, digits, '_', '.' and '-', at most 128 of them")
    repository = _repository(text, name, aliases, short=scheme == "docker")
    if tag is None and digest is None:
        tag = "latest"
    return ImageReference(scheme=scheme, name=str(repository), tag=tag, digest=digest, text=text)


def _digest(text: str, digest: str) -> Digest:
    try:
        return Digest.parse(digest)
    except ImageError as error:
        msg = f"{digest!r} in {text!r} is not a digest"
        raise UsageError(msg, hint=error.hint) from error


def _repository(text: str, name: str, aliases: Mapping[str, str], *, short: bool) -> Repository:
    host, slash, path = name.partition("/")
    if not slash or not _looks_like_host(host):
        if short:
            host, path = HUB, name
        elif (full := aliases.get(name)) is not None:
            host, _, path = full.partition("/")
        else:
            msg = f"{name!r} in {text!r} names no registry host, and there is no alias for it"
            raise UsageError(msg, hint=f"write the host: registry:docker.io/library/{name}, or configure an alias")
    if not _HOST.fullmatch(host):
        msg = f"{host!r} in {text!r} is not a host name"
        raise UsageError(msg, hint="write docker://HOST[:PORT]/NAME[:TAG][@DIGEST]")
    host = host.lower()
    if host in HUB_NAMES:
        host = HUB
        path = path if "/" in path else f"library/{path}"
    if not _PATH.fullmatch(path) or len(host) + 1 + len(path) > _LONGEST_NAME:
        msg = f"{path!r} in {text!r} is not a repository name"
        raise UsageError(
            msg, hint="lower-case letters and digits, single '.', '_' or '-' between them, parts divided by '/'"
        )
    return Repository(host, path)


def _looks_like_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost" or part != part.lower()
