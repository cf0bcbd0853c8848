"""What cfs-policies offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import PolicyProvider, ProviderSetting, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import PluginContext, Policy

CFS_PLUGIN_API = (2, 0)


def _digest_pinned(context: PluginContext) -> Policy:
    from cfs_policies.digest_pinned import DigestPinned

    return DigestPinned.of(context.settings)


def _containers_policy(context: PluginContext) -> Policy:
    import os

    from cfs_policies.containers_policy import ContainersPolicy
    from cfs_policies.places import Places

    return ContainersPolicy(Places.of(context.settings, os.environ, os.getuid()), context.commands, context.scratch)


@hookimpl
def cfs_register_policies() -> Iterable[PolicyProvider]:
    """Offer judgements about images."""
    return (
        PolicyProvider(
            name="digest-pinned",
            summary="only images that are asked for by digest",
            factory=_digest_pinned,
            settings=(ProviderSetting(name="digests", kind="texts", summary="digests of images that are accepted"),),
        ),
        PolicyProvider(
            name="containers-policy",
            summary="what policy.json demands, as podman and skopeo read it",
            factory=_containers_policy,
            settings=(
                ProviderSetting(name="policy-json", kind="text", summary="path of policy.json"),
                ProviderSetting(name="registries-d", kind="text", summary="path of the directory registries.d"),
            ),
        ),
    )
