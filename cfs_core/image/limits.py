"""What an image may be: each of its layers, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field

from cfs_core.image.layers import LayerLimits
from cfs_core.image.merge import ENTRY_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """The limits of one image."""

    layer: LayerLimits = field(default_factory=LayerLimits)
    entries: int = ENTRY_LIMIT
    contradictions: bool = False
    """Whether a layer may take away what it has itself (``image.contradictions``)."""
