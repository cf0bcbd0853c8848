"""Which requirements of policy.json apply to a reference: its most specific scope (containers-policy.json(5))."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cfs_policies.names import intended_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.plugin import ImageReference
    from cfs_policies.names import Named

_PATHS = frozenset({"oci", "oci-archive"})


def transport_name(reference: ImageReference) -> str:
    """Return the transport's name in policy files."""
    return "docker" if reference.scheme == "registry" else reference.scheme


def scopes(reference: ImageReference) -> Iterator[str]:
    """Yield scopes from the most specific to ``""``, which is the transport's default."""
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
    store, bracket, rest = reference.name.rpartition("]")
    stores = [""]
    if bracket:
        place = store.removeprefix("[").partition("+")[0].partition(":")[0]
        stores = [f"[{place}]"]
        if "@" in place:
            stores.append(f"[{place.partition('@')[2]}]")
    if named is not None:
        if wanted_id := rest.partition("@")[2]:
            yield f"{stores[0]}{named}@{wanted_id}"
        yield f"{stores[0]}{named}"
        if named.tag and named.digest:
            yield f"{stores[0]}{named.name}:{named.tag}"
        name = named.name
        while name:
            yield stores[0] + name
            name = name.rpartition("/")[0]
    yield from (each for each in stores if each)
