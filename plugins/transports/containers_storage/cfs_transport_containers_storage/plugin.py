"""What cfs-transport-containers-storage offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import ProviderSetting, TransportProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import PluginContext, RunningImage, Transport

CFS_PLUGIN_API = (2, 0)


def _make(context: PluginContext) -> Transport:
    import os

    from cfs_transport_containers_storage.places import Places
    from cfs_transport_containers_storage.transport import StorageTransport

    return StorageTransport(Places.of(context.settings, os.environ, os.getuid()), context.commands)


def _running_image() -> RunningImage | None:
    from cfs_transport_containers_storage.running import running_image

    return running_image()


@hookimpl
def cfs_register_transports() -> Iterable[TransportProvider]:
    """Offer the image store of podman, buildah and skopeo."""
    yield TransportProvider(
        name="containers-storage",
        summary="podman's and buildah's store (containers-storage:[[DRIVER@ROOT]]NAME[:TAG][@DIGEST] or an image id)",
        factory=_make,
        schemes=("containers-storage",),
        running_image=_running_image,
        settings=(
            ProviderSetting(name="storage-conf", kind="text", summary="path of storage.conf"),
            ProviderSetting(name="root", kind="text", summary="directory of the store"),
            ProviderSetting(name="driver", kind="text", summary="overlay or vfs; what is found there by default"),
        ),
    )
