"""What one layer of an image says about the tree, entry by entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.model.tree import Node


@dataclass(frozen=True, slots=True)
class HardLink:
    """Another name for the file at ``target`` (absolute path in the merged tree so far)."""

    target: bytes
    """The first name of the file."""


@dataclass(frozen=True, slots=True)
class Whiteout:
    """The entry of this path is removed from the layers below."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """The directory of this path is emptied."""


@dataclass(slots=True)
class LayerEntry:
    """One entry, in stream order. ``path`` is absolute, without ``.`` and ``..``; ``/`` is the root."""

    path: bytes
    """Raw bytes, since names in layers need not be UTF-8."""

    what: Node | HardLink | Whiteout | Opaque
    """A node of the tree, another name, or what is taken away."""


@dataclass(slots=True)
class LayerMember:
    """A tar member as it stood in the layer.

    ``raw`` is every byte of the layer between the end of the previous member's content and the start of
    this one's: padding, extension headers and their data, the header. ``size`` counts the content bytes that
    follow (0 for anything but regular files). ``entry`` is None for members that say nothing: global headers, and what
    AUFS kept for itself, which may have content.
    """

    raw: bytes
    """What stands before its content."""

    entry: LayerEntry | None
    """What it says about the tree."""

    size: int
    """Bytes of content that follow."""

    areas: tuple[tuple[int, int], ...] | None = None
    """Of a sparse file: offset and length in it of each stretch of the content that follows; the rest is zeros."""
