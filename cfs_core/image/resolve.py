"""From a reference to one manifest and one configuration; after this only digests travel."""

from __future__ import annotations

import dataclasses
import platform as host
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError, LimitError, VerificationError
from cfs_core.image.manifest import INDEX_TYPES, MANIFEST_TYPES, Index, parse_config, parse_manifest
from cfs_core.model.manifest import Manifest, Platform, ResolvedImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.interfaces.fetcher import Fetcher
    from cfs_core.model.manifest import Descriptor
    from cfs_core.model.reference import ImageReference

# Images for several platforms have one level. Each further one is a request to a server that nobody trusts yet, and
# that could name a new index for ever.
INDEX_DEPTH = 4
INDEX_FETCHES = 32
"""Indexes one reference may lead through."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "i386": "386"}
# Variants that mean the same as none (containerd normalises them away); others that cfs knows have no variants.
_BASELINE = {"amd64": "v1", "arm64": "v8"}


def host_platform() -> Platform:
    """Return the platform of the running machine, in OCI's names."""
    machine = host.machine()
    return Platform("linux", _MACHINES.get(machine, machine))


def resolve(transport: Fetcher, reference: ImageReference, platform: Platform | None = None) -> ResolvedImage:
    """Fetch and check manifest and configuration of *reference*.

    From an index the image for *platform* is taken (None: the running machine's). An image that is not in an index is
    held to *platform* only if one is given.

    Raises:
        ImageError: malformed, or nothing for that platform (the message lists what there is).
        VerificationError: other bytes than a digest names.
        TransportError: it cannot be fetched.
    """
    media_type, raw = transport.fetch_manifest(reference)
    found = parse_manifest(raw, media_type)
    if isinstance(found, Index):
        found = _Search(transport, reference, platform or host_platform()).choose(found)
    config = parse_config(transport.fetch_bytes(reference, found.config))
    if len(config.diff_ids) != len(found.layers):
        msg = f"{reference} has {len(found.layers)} layers and its config describes {len(config.diff_ids)}"
        raise ImageError(msg)
    if platform is not None and not _fits(config.platform, platform):
        msg = f"{reference} is an image for {config.platform}, not for {platform}"
        raise ImageError(
            msg, hint=f"ask for it with --architecture {config.platform.architecture}, or use another image"
        )
    canonical = transport.canonical(reference)
    return ResolvedImage(reference=reference, canonical=canonical, manifest=found, config=config)


class _Search:
    """Looks through an index and the indexes in it."""

    def __init__(self, transport: Fetcher, reference: ImageReference, wanted: Platform) -> None:
        self._transport = transport
        self._reference = reference
        self._wanted = wanted
        self._fetches = 0
        self._offered: list[str] = []

    def choose(self, index: Index) -> Manifest:
        found = sorted(self._candidates(index, INDEX_DEPTH), key=self._rank)
        if not found:
            offered = ", ".join(dict.fromkeys(self._offered)) or "none"
            msg = f"{self._reference} has no image for {self._wanted}; there are: {offered}"
            raise ImageError(msg, hint="choose one with --architecture", facts={"offered": offered})
        manifest = self._fetch(found[0])
        if isinstance(manifest, Index):
            msg = f"{found[0].digest} was announced as a manifest and is an index"
            raise ImageError(msg)
        return manifest

    def _candidates(self, index: Index, depth: int) -> Iterator[Descriptor]:
        for descriptor in index.manifests:
            if descriptor.platform is not None and descriptor.platform.os != "unknown":
                self._offered.append(str(descriptor.platform))
            if descriptor.media_type in MANIFEST_TYPES:
                if descriptor.platform is None:
                    fits = len(index.manifests) == 1
                else:
                    fits = _fits(descriptor.platform, self._wanted)
                if fits:
                    yield descriptor
            elif descriptor.media_type in INDEX_TYPES:
                if descriptor.platform is not None and not _fits(descriptor.platform, self._wanted):
                    continue
                yield from self._nested(descriptor, depth)

    def _nested(self, descriptor: Descriptor, depth: int) -> Iterator[Descriptor]:
        if depth <= 1:
            msg = f"{self._reference} nests indexes deeper than {INDEX_DEPTH} levels"
            raise LimitError(msg, facts={"limit": INDEX_DEPTH})
        nested = self._fetch(descriptor)
        if not isinstance(nested, Index):
            msg = f"{descriptor.digest} was announced as an index and is a manifest"
            raise ImageError(msg)
        yield from self._candidates(nested, depth - 1)

    def _fetch(self, descriptor: Descriptor) -> Manifest | Index:
        self._fetches += 1
        if self._fetches > INDEX_FETCHES:
            msg = f"{self._reference} leads through more than {INDEX_FETCHES} indexes"
            raise LimitError(msg, facts={"limit": INDEX_FETCHES})
        pinned = dataclasses.replace(self._reference, tag=None, digest=descriptor.digest)
        _, raw = self._transport.fetch_manifest(pinned, expected=descriptor.digest)
        if len(raw) != descriptor.size:
            msg = f"manifest {descriptor.digest} has {len(raw)} bytes, its index says {descriptor.size}"
            raise VerificationError(msg, facts={"expected_bytes": descriptor.size, "found_bytes": len(raw)})
        return parse_manifest(raw, descriptor.media_type)

    def _rank(self, descriptor: Descriptor) -> int:
        """Prefer the variant that runs everywhere where none was asked for."""
        variant = descriptor.platform.variant if descriptor.platform else None
        if self._wanted.variant is not None:
            return 0 if variant == self._wanted.variant else 1
        return 0 if variant in {None, _BASELINE.get(self._wanted.architecture)} else 1


def _fits(offered: Platform, wanted: Platform) -> bool:
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return False
    return wanted.variant is None or offered.variant in {None, wanted.variant}
