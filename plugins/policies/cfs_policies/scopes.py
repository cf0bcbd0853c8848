"""Which requirements of policy.json apply to a reference: its most specific scope (containers-policy.json(5))."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from cfs_policies.documents import DocumentError
from cfs_policies.names import intended_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.plugin import ImageReference
    from cfs_policies.names import Named

_PATHS = frozenset({"oci", "oci-archive"})
_STORE = re.compile(
    r"\[(?:[^]@]+@)?/[^]@]*\]"  # [DRIVER@GRAPHROOT] or [GRAPHROOT]
    r"[^@]*(?:@[a-z0-9+._-]+:[0-9a-f]{32,})?(?:@[0-9a-f]{64})?"  # NAME[:TAG][@DIGEST][@ID]
)


def transport_name(reference: ImageReference) -> str:
    """Return the transport's name in policy files."""
    return "docker" if reference.scheme == "registry" else reference.scheme


def scopes(reference: ImageReference) -> Iterator[str]:
    """Yield scopes of a canonical reference from the most specific to ``""``, which is the transport's default.

    Raises:
        DocumentError: the reference is not canonical.
    """
    named = intended_name(reference)
    if reference.scheme in ("docker", "registry") and named is not None:
        yield from docker_scopes(named)
    elif reference.scheme == "containers-storage":
        yield from _store_scopes(reference, named)
    elif reference.scheme in _PATHS:
        path = os.path.realpath(reference.name)
        while path.strip("/"):
            yield path
            path = path.rpartition("/")[0]
    yield ""


def check_scope(transport: str, scope: str, where: str) -> None:
    """Check that a scope of policy.json can match anything: one that never does would protect nobody.

    Raises:
        DocumentError: the transport has no such scopes.
    """
    form = ""
    if transport == "containers-storage" and not _STORE.fullmatch(scope):
        form = "[DRIVER@/GRAPHROOT]NAME"
    elif transport in _PATHS and (not scope.strip("/") or os.path.normpath(scope) != scope or scope[0] != "/"):
        form = "/ABSOLUTE/PATH"
    elif transport == "docker-archive":
        form = '""'
    if scope and form:
        msg = f"{where} has the scope {scope!r:.200} for {transport}, which no image can have"
        raise DocumentError(msg, hint=f"write it as {form} (containers-policy.json(5))")


def docker_scopes(named: Named) -> Iterator[str]:
    """Yield the scopes of an image in a registry: itself, its namespaces, the host, wildcards of the domain."""
    if named.tag:
        yield f"{named.name}:{named.tag}"
    if named.digest:
        yield f"{named.name}@{named.digest}"
    name = named.name
    while True:
        yield name
        if "/" not in name:
            break
        name = name.rpartition("/")[0]
    host = name.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"


def _store_scopes(reference: ImageReference, named: Named | None) -> Iterator[str]:
    """Yield scopes of ``[DRIVER@GRAPHROOT]NAME@ID``; a root behind a link also goes by the path it leads to."""
    store, bracket, rest = reference.name.partition("]")
    driver, at, root = store.removeprefix("[").partition("@")
    if not bracket or not at:
        msg = f"{reference.name!r:.200} does not say which store the image is in"
        raise DocumentError(msg, hint="this is a fault of the transport: policies judge canonical references")
    roots = dict.fromkeys((root, os.path.realpath(root)))
    for name in _store_names(named, rest.rpartition("@")[2]):
        yield from (f"[{driver}@{each}]{name}" for each in roots)
    yield from (f"[{each}]" for each in roots)


def _store_names(named: Named | None, image_id: str) -> Iterator[str]:
    yield f"{named or ''}@{image_id}"
    if named is not None:
        yield str(named)
        if named.tag and named.digest:
            yield f"{named.name}:{named.tag}"
        name = named.name
        while name:
            yield name
            name = name.rpartition("/")[0]
    yield ""
