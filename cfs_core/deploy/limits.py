"""The settings ``limits.*``: for whoever runs cfs to say, never for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.archive.decompress import DecompressionLimits
from cfs_core.archive.tar import TarLimits
from cfs_core.image.layers import LayerLimits
from cfs_core.image.limits import ImageLimits

if TYPE_CHECKING:
    from cfs_core.config.settings import Settings


def image_limits(settings: Settings) -> ImageLimits:
    """Return the limits that *settings* have."""
    value = settings.value
    return ImageLimits(
        entries=value("limits.image-entries"),
        contradictions=value("image.contradictions") == "apply",
        layer=LayerLimits(
            blob_bytes=value("limits.layer-size"),
            trailer_bytes=value("limits.layer-trailer"),
            decompression=DecompressionLimits(
                total_bytes=value("limits.layer-unpacked-size"), ratio=value("limits.compression-ratio")
            ),
            tar=TarLimits(
                entries=value("limits.layer-entries"),
                file_bytes=value("limits.file-size"),
                path_bytes=value("limits.path-bytes"),
                path_depth=value("limits.path-depth"),
                extension_bytes=value("limits.extension-bytes"),
                xattr_count=value("limits.xattr-count"),
                xattr_bytes=value("limits.xattr-bytes"),
            ),
        ),
    )
