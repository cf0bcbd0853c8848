"""What cfs-transport-registry offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import PluginContext, ProviderSetting, Transport, TransportProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

CFS_PLUGIN_API = (2, 0)


def make(context: PluginContext) -> Transport:
    """Make the transport from its settings and the environment of the run."""
    from cfs_transport_registry.settings import Settings
    from cfs_transport_registry.transport import RegistryTransport

    return RegistryTransport(context, Settings.of(context.settings, context.environ, context.uid))


@hookimpl
def cfs_register_transports() -> Iterable[TransportProvider]:
    """Offer registries as a place images come from and go to."""
    yield TransportProvider(
        name="registry",
        summary="container registries: docker://HOST/NAME:TAG or registry:HOST/NAME@DIGEST",
        factory=make,
        schemes=("docker", "registry"),
        can_write=True,
        settings=(
            ProviderSetting(name="authfile", kind="text", summary="file with credentials, as podman has it"),
            ProviderSetting(name="tls-verify", kind="flag", summary="whether registries must have valid certificates"),
            ProviderSetting(name="cert-dir", kind="text", summary="directory of certificates"),
            ProviderSetting(name="registries-conf", kind="text", summary="path of registries.conf"),
            ProviderSetting(name="connect-timeout", kind="number", summary="seconds for a connection", default=15),
            ProviderSetting(name="read-timeout", kind="number", summary="longest silence in seconds", default=30),
            ProviderSetting(name="minimum-rate", kind="number", summary="bytes per second, 0 for any", default=1024),
        ),
    )
