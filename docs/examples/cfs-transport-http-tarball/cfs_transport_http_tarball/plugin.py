"""What cfs-transport-http-tarball offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import ProviderSetting, TransportProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import PluginContext, Transport

CFS_PLUGIN_API = (2, 0)


def _make(context: PluginContext) -> Transport:
    from cfs_transport_http_tarball.settings import Settings
    from cfs_transport_http_tarball.transport import HttpTarballTransport

    return HttpTarballTransport(Settings.of(context.settings), context.scratch, context.retrier)


@hookimpl
def cfs_register_transports() -> Iterable[TransportProvider]:
    """Offer tar files on web servers."""
    yield TransportProvider(
        name="http-tarball",
        summary="a root filesystem as one tar file: http-tarball:URL[@sha256:DIGEST][#arch=ARCHITECTURE]",
        factory=_make,
        schemes=("http-tarball",),
        settings=(
            ProviderSetting(name="architecture", kind="text", summary="architecture of images that do not say theirs"),
            ProviderSetting(name="max-bytes", kind="number", summary="longest file in bytes", default=16 << 30),
            ProviderSetting(
                name="max-uncompressed-bytes", kind="number", summary="longest tar file in bytes", default=64 << 30
            ),
            ProviderSetting(name="timeout", kind="number", summary="seconds of silence that are waited for", default=30),
            ProviderSetting(name="ca-file", kind="text", summary="certificates that servers may have"),
        ),
    )
