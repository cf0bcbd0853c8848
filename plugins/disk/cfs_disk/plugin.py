"""What cfs-disk offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import FilesystemProvider, LayoutProvider, ProviderSetting, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import DiskLayout, Filesystem, PluginContext

CFS_PLUGIN_API = (2, 0)


@hookimpl
def cfs_register_layouts() -> Iterable[LayoutProvider]:
    """Offer the GUID partition table."""
    size = ProviderSetting(
        name="boot_volume_mib", kind="number", summary="least size of ESP, XBOOTLDR and BOOT in MiB", default=512
    )
    yield LayoutProvider(
        name="gpt", summary="GUID partition table, written without host tools", factory=_make_gpt, settings=(size,)
    )


@hookimpl
def cfs_register_filesystems() -> Iterable[FilesystemProvider]:
    """Offer ext4 and FAT."""
    yield FilesystemProvider(
        name="ext4", summary="ext4 with fs-verity written offline", factory=_make_ext4, verity=True
    )
    yield FilesystemProvider(name="vfat", summary="FAT32 for boot partitions", factory=_make_vfat)


def _make_gpt(context: PluginContext) -> DiskLayout:
    from cfs_disk.gpt.layout import GptLayout

    return GptLayout(context.settings)


def _make_ext4(context: PluginContext) -> Filesystem:
    from cfs_disk.ext4.filesystem import Ext4Filesystem

    return Ext4Filesystem(context)


def _make_vfat(context: PluginContext) -> Filesystem:
    from cfs_disk.vfat.filesystem import VfatFilesystem

    return VfatFilesystem(context)
