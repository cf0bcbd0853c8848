"""How the content of one inode is stored: type, layout, inline tail, data blocks (formats B.6, B.8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.plugin import Directory, ImageError, Node, RegularFile, Special, SpecialKind, Symlink
from cfs_storage_composefs.erofs import layout
from cfs_storage_composefs.erofs.layout import BLOCK, NULL_CHUNK

if TYPE_CHECKING:
    from cfs_storage_composefs.erofs.layout import Listing
    from cfs_storage_composefs.erofs.order import Inodes

# Limits of composefs-rs, which defines V2: it refuses to read more.
INLINE_MAX_V2 = 512
SYMLINK_MAX_V2 = 1024
_DEVICES = (SpecialKind.CHAR, SpecialKind.BLOCK)


@dataclass(slots=True)
class Shape:
    """Everything about an inode that is neither metadata nor attributes."""

    mode: int
    """Type bits of i_mode."""
    file_type: int
    layout: int = layout.FLAT_PLAIN
    size: int = 0
    u: int = 0
    """Device number or chunk format; the first data block takes its place where there is one."""
    tail: bytes | Listing = b""
    tail_size: int = 0
    blocks: list[bytes | Listing] = field(default_factory=list)


def shape_of(node: Node, inodes: Inodes, *, v2: bool) -> Shape:
    """Return how *node* is stored.

    Raises:
        ImageError: the format cannot hold it.
    """
    if isinstance(node, Directory):
        return _directory(inodes.listings[node])
    if isinstance(node, RegularFile):
        return _inline(node.data, v2=v2) if node.data is not None else _external(node, v2=v2)
    if isinstance(node, Symlink):
        return _symlink(node.target, v2=v2)
    if not isinstance(node, Special):
        msg = f"a {type(node).__name__} has no place in an EROFS image"
        raise ImageError(msg, hint="trees are made of the node classes of cfs_core.plugin")
    if node in inodes.whiteouts:
        return Shape(layout.S_IFREG, layout.FT_REGULAR)
    rdev = node.rdev if node.kind in _DEVICES else 0
    return Shape(layout.SPECIAL_MODES[node.kind], layout.SPECIAL_TYPES[node.kind], u=rdev)


def _directory(listing: Listing) -> Shape:
    blocks, tail, tail_size = layout.split_listing(listing)
    return Shape(
        layout.S_IFDIR,
        layout.FT_DIRECTORY,
        layout=layout.FLAT_INLINE if tail else layout.FLAT_PLAIN,
        size=BLOCK * len(blocks) + tail_size,
        tail=tail,
        tail_size=tail_size,
        blocks=list(blocks),
    )


def _inline(data: bytes, *, v2: bool) -> Shape:
    size = len(data)
    if v2 and size > INLINE_MAX_V2:
        msg = f"{size} bytes of inline content; V2 images hold at most {INLINE_MAX_V2}"
        raise ImageError(msg, hint="store the content as an object, or use V1")
    tail_size = size % BLOCK
    if tail_size > BLOCK // 2:
        tail_size = 0
    tail = data[size - tail_size :] if tail_size else b""
    head = data[: size - tail_size]
    return Shape(
        layout.S_IFREG,
        layout.FT_REGULAR,
        layout=layout.FLAT_INLINE if tail else layout.FLAT_PLAIN,
        size=size,
        tail=tail,
        tail_size=tail_size,
        blocks=[head[at : at + BLOCK] for at in range(0, len(head), BLOCK)],
    )


def _external(node: RegularFile, *, v2: bool) -> Shape:
    size = node.size
    # As mkcomposefs; composefs-rs would write a chunked inode without a chunk. In images what is empty is inline, so
    # that only dump files of others can ask for this.
    if size == 0:
        return Shape(layout.S_IFREG, layout.FT_REGULAR)
    if v2:
        tail = NULL_CHUNK if node.object is not None else b""
        return Shape(layout.S_IFREG, layout.FT_REGULAR, layout.CHUNKED, size, u=31, tail=tail, tail_size=len(tail))
    bits = layout.chunk_bits(size)
    count = -(-size >> bits)
    if count > layout.CHUNKS_MAX:
        msg = f"a file of {size} bytes is too big for an EROFS image"
        raise ImageError(msg, hint=f"at most {layout.CHUNKS_MAX} chunks of {1 << layout.CHUNK_BITS_MAX} bytes")
    return Shape(
        layout.S_IFREG,
        layout.FT_REGULAR,
        layout.CHUNKED,
        size,
        u=bits - 12,
        tail=NULL_CHUNK * count,
        tail_size=4 * count,
    )


def _symlink(target: bytes, *, v2: bool) -> Shape:
    longest = SYMLINK_MAX_V2 if v2 else layout.SYMLINK_MAX
    if not 0 < len(target) <= longest or b"\0" in target:
        msg = f"a symbolic link with a target of {len(target)} bytes: {target[:80]!r}"
        raise ImageError(msg, hint=f"targets have 1 to {longest} bytes and no NUL")
    return Shape(layout.S_IFLNK, layout.FT_SYMLINK, layout.FLAT_INLINE, len(target), tail=target, tail_size=len(target))
