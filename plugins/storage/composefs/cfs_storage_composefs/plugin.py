"""What cfs-storage-composefs offers to cfs: hook functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.plugin import StorageProvider, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import PluginContext, StorageFormat

CFS_PLUGIN_API = (2, 0)


def _make(context: PluginContext) -> StorageFormat:
    from cfs_storage_composefs.format import make

    return make(context)


@hookimpl
def cfs_register_storage_formats() -> Iterable[StorageProvider]:
    """Offer composefs."""
    yield StorageProvider(
        name="composefs",
        summary="composefs repositories and EROFS images, shared with composefs-rs and bootc",
        factory=_make,
    )
