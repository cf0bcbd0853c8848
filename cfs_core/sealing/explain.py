"""Why an image is not what was sealed, where the sealer left no dump: what else the digest fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.image.difference import differences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.model.deployment import FormatOptions
    from cfs_core.sealing.opened import OpenedImage

LAYERS = 4
"""So many of the uppermost layers are taken away, one after the other: each time all of the image is measured."""


_PLAIN = (
    "it is the digest of the layers below as they are, not of the form that is installed, which "
    "`cfs image digest --bootable` prints"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """``text`` says what the digest is of; ``different`` are paths with what changed there, if that can be told."""

    text: str
    different: tuple[str, ...] = ()


def explain(image: OpenedImage, digest: str, forms: Sequence[FormatOptions]) -> Explanation | None:
    """Say what of *image* has the identity *digest* under one of *forms*; None if nothing has that was thought of."""
    count = image.layer_count
    for gone in range(1, min(LAYERS, count - 1) + 1):
        layers = count - gone
        for options, found in zip(forms, image.identities(forms, layers=layers), strict=True):
            if found == digest:
                before, now = image.dump(options, layers=layers), image.dump(options)
                what = "its last layer" if gone == 1 else f"its last {gone} layers"
                different = tuple(differences(before, now))
                return Explanation(text=f"it fits without {what}, which changed what was sealed", different=different)
        if digest in image.plain_identities(forms, layers=layers):
            return Explanation(text=_PLAIN)
    return None
