"""What cfs-accel-ipsec-mb offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import HasherProvider, ProviderSetting, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import BlockHasher, PluginContext

CFS_PLUGIN_API = (2, 0)


def _make(context: PluginContext) -> BlockHasher:
    from cfs_accel_ipsec_mb.hasher import make

    return make(context)


@hookimpl
def cfs_register_hashers() -> Iterable[HasherProvider]:
    """Offer the library, where it is installed."""
    yield HasherProvider(
        name="ipsec-mb",
        summary="SHA-256 and SHA-512 of 16 and 8 blocks at once, by libipsec-mb 2.0",
        factory=_make,
        settings=(
            ProviderSetting(
                name="library",
                kind="text",
                summary="the library's file, where it is not among the system's",
                default="libIPSec_MB.so.2",
            ),
        ),
    )
