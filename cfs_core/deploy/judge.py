"""Asking the required policies (``policy.require``) about an image, wherever one comes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.errors import CfsError, LimitError, PluginError, VerificationError
from cfs_core.image.manifest import INDEX_TYPES, MANIFEST_TYPES, Index, parse_config, parse_manifest
from cfs_core.image.resolve import INDEX_DEPTH, resolve
from cfs_core.model.manifest import ResolvedImage
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.deploy.services import Services
    from cfs_core.interfaces.fetcher import Fetcher
    from cfs_core.model.manifest import Manifest, Platform
    from cfs_core.model.reference import ImageReference


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedImage:
    """An image that every required policy accepted, and where it is. Only `judge` makes one, and pulling takes one."""

    image: ResolvedImage
    transport: Fetcher
    verified: tuple[str, ...]
    """What policies proved about it, by policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSource:
    """What may be copied: every image of it was accepted. Only `judged_for_copy` makes one, and copying takes one."""

    reference: ImageReference
    transport: Fetcher
    platform: Platform | None


def judge(image: ResolvedImage, transport: Fetcher, services: Services) -> JudgedImage:
    """Ask every required policy.

    Raises:
        VerificationError: one said no, or failed.
        PluginError: one breaks its contract.
    """
    verified: list[str] = []
    for name in services.settings.value("policy.require"):
        policy = services.make(families.POLICIES, name)
        owner = services.host.collect(families.POLICIES).owner(name)
        facts = {"policy": name, "distribution": owner.distribution, "version": owner.version}
        try:
            verdict = policy.judge(image, transport)
        except PluginError:
            raise
        except CfsError as cause:
            msg = f"policy {name} of {owner} could not judge {image.reference}: {cause.message}"
            raise VerificationError(msg, hint=cause.hint, facts=facts) from cause
        except Exception as cause:
            msg = f"policy {name} of {owner} could not judge {image.reference}: {services.host.describe(owner, cause)}"
            raise VerificationError(
                msg, hint=f"report it to the authors of {owner.distribution}", facts=facts
            ) from cause
        if verdict.accepted is not True:
            msg = f"policy {name} refuses {image.reference}: {verdict.reason}"
            hint = "`cfs config show` lists what has to hold (`policy.*`), and who wants it"
            raise VerificationError(msg, hint=hint, facts=facts)
        verified += [f"{name}: {what}" for what in verdict.verified or (verdict.reason,)]
    return JudgedImage(image=image, transport=transport, verified=tuple(verified))


def judged_for_copy(
    reference: ImageReference, transport: Fetcher, services: Services, platform: Platform | None
) -> JudgedSource:
    """Judge every image that a copy of *reference* takes; return it pinned to what was judged.

    Of an index all images are judged, or the one for *platform*. Without required policies nothing is fetched.

    Raises:
        VerificationError: a policy said no to one of them, or failed.
        ImageError: what is to be copied is no image, so no policy can judge it.
    """
    if not services.settings.value("policy.require"):
        return JudgedSource(reference=reference, transport=transport, platform=platform)
    media_type, raw = transport.fetch_manifest(reference)
    top = parse_manifest(raw, media_type)
    if isinstance(top, Index) and platform is not None:
        top = resolve(transport, replace(reference, digest=top.digest), platform).manifest
    canonical = transport.canonical(reference)
    pinned = replace(reference, digest=top.digest)
    for manifest in _manifests(top, transport, reference, INDEX_DEPTH):
        config = parse_config(transport.fetch_bytes(pinned, manifest.config))
        judge(
            ResolvedImage(reference=reference, canonical=canonical, manifest=manifest, config=config),
            transport,
            services,
        )
    return JudgedSource(reference=pinned, transport=transport, platform=platform)


def _manifests(
    found: Manifest | Index, transport: Fetcher, reference: ImageReference, depth: int
) -> Iterator[Manifest]:
    if not isinstance(found, Index):
        yield found
        return
    if depth < 1:
        msg = f"{reference} nests indexes deeper than {INDEX_DEPTH} levels"
        raise LimitError(msg, facts={"limit": INDEX_DEPTH})
    for descriptor in found.manifests:
        pinned = replace(reference, tag=None, digest=descriptor.digest)
        media_type, raw = transport.fetch_manifest(pinned, expected=descriptor.digest)
        known = descriptor.media_type in MANIFEST_TYPES | INDEX_TYPES
        inner = parse_manifest(raw, descriptor.media_type if known else media_type)
        yield from _manifests(inner, transport, reference, depth - 1)
