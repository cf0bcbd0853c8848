"""What cfs-transport-oci-dir offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import TransportProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import PluginContext, Transport

CFS_PLUGIN_API = (2, 0)


def _oci(context: PluginContext) -> Transport:
    from cfs_transport_oci_dir.layout import LayoutTransport

    del context
    return LayoutTransport()


def _oci_archive(context: PluginContext) -> Transport:
    from cfs_transport_oci_dir.oci_archive import ArchiveTransport

    return ArchiveTransport(context.scratch)


def _docker_archive(context: PluginContext) -> Transport:
    from cfs_transport_oci_dir.docker_archive import DockerArchiveTransport

    return DockerArchiveTransport(context.scratch)


@hookimpl
def cfs_register_transports() -> Iterable[TransportProvider]:
    """Offer OCI layouts, archives of them, and what ``docker save`` writes."""
    return (
        TransportProvider(
            name="oci",
            summary="OCI image layout in a directory (oci:DIRECTORY[:TAG][@DIGEST])",
            factory=_oci,
            schemes=("oci",),
            can_write=True,
        ),
        TransportProvider(
            name="oci-archive",
            summary="OCI image layout in a tar file (oci-archive:FILE[:TAG][@DIGEST])",
            factory=_oci_archive,
            schemes=("oci-archive",),
            can_write=True,
        ),
        TransportProvider(
            name="docker-archive",
            summary="what docker save and podman save write (docker-archive:FILE[:NAME])",
            factory=_docker_archive,
            schemes=("docker-archive",),
        ),
    )
