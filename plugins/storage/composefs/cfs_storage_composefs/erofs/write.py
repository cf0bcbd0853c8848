"""Writes trees as EROFS images, byte for byte as mkcomposefs (V0, V1) and composefs-rs (V0, V1, V2) do (formats B)."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from cfs_core.plugin import Directory, FormatVersion, HashAlgorithm, ImageError, RegularFile, Special, walk
from cfs_storage_composefs.erofs import layout
from cfs_storage_composefs.erofs.layout import BLOCK, INODES_START, NULL_CHUNK, SLOT
from cfs_storage_composefs.erofs.order import breadth_first, depth_first, link_count
from cfs_storage_composefs.erofs.shape import Shape, shape_of
from cfs_storage_composefs.erofs.xattr import XattrSet, XattrTable, object_pairs
from cfs_storage_composefs.pause import collector_paused

if TYPE_CHECKING:
    from cfs_core.plugin import Node, ObjectId
    from cfs_storage_composefs.erofs.layout import Listing
    from cfs_storage_composefs.erofs.order import Inodes

_ONE_CHUNK = 1 << layout.CHUNK_BITS_MAX
_PADS = tuple(bytes(count) for count in range(SLOT))
_HEX = re.compile("[0-9a-f]+")


def write_erofs(tree: Directory, version: FormatVersion, algorithm: HashAlgorithm) -> bytes:
    """Return the EROFS image of *tree*. Files with ``data`` go inline, those with ``object`` refer to the object store.

    Raises:
        ImageError: the tree has something that the format cannot hold; the message names it.
    """
    with collector_paused():
        if version is FormatVersion.V2:
            inodes = depth_first(tree, algorithm)
            return _Writer(inodes, version, algorithm).write(tree)
        return _Writer(breadth_first(tree, version, algorithm), version, algorithm).write(tree)


class _FileTypes(dict["Node", int]):
    """File types in directories; what is not listed is a stored file."""

    def __missing__(self, node: Node) -> int:
        return layout.FT_REGULAR


class _Writer:
    """One image in the making: pieces of the inode area in order, some filled in when all places are known."""

    def __init__(self, inodes: Inodes, version: FormatVersion, algorithm: HashAlgorithm) -> None:
        self.inodes = inodes
        self.version = version
        self.algorithm = algorithm
        self.v2 = version is FormatVersion.V2
        self.stored = self._stored()
        objects = [file.object for file in self.stored if file is not None and file.object is not None]
        self.table = XattrTable(version, algorithm, inodes.xattrs, objects)
        self.sets = list(map(self.table.sets.__getitem__, inodes.xattrs))
        self.nids: dict[Node, int] = {}
        self.types = _FileTypes()
        self.pieces: list[bytes] = []
        self.late_plain: list[tuple[int, XattrSet]] = []
        self.late_lead: list[tuple[int, XattrSet]] = []
        self.late_shared: list[tuple[int, XattrSet, ObjectId]] = []
        self.late_tails: list[tuple[int, Listing]] = []
        self.late_headers: list[tuple[int, Node, Shape, int, bool, int, int]] = []
        self.data: list[bytes | Listing] = []
        self.data_blocks = 0
        self.build_time = (0, 0) if self.v2 else self._earliest()

    def _stored(self) -> list[RegularFile | None]:
        """Return, in inode order, the files in the object store, None for everything else."""
        stored = [
            node
            if type(node) is RegularFile and node.object is not None and node.data is None and node.path is None
            else None
            for node in self.inodes.nodes
        ]
        length = 2 * self.algorithm.size
        names = {file.object for file in stored if file is not None}
        for name in names:
            if name is not None and (len(name) != length or not _HEX.fullmatch(name)):
                msg = f"{name!r:.200} is not the {self.algorithm.value} identity of an object"
                raise ImageError(msg, hint="tree and image must use the same hash algorithm")
        return stored

    def _earliest(self) -> tuple[int, int]:
        nodes = self.inodes.nodes
        if self.version is FormatVersion.V0:
            seconds = min([node.mtime_sec for node in nodes])
        else:
            # mkcomposefs compares signed numbers; composefs-rs, and bootc with it, take times before 1970 for very
            # late ones (seen by cfsctl's compute-id). V1 is what bootc seals with.
            seconds = min([node.mtime_sec for node in nodes], key=lambda second: second % (1 << 64))
        return seconds, min([node.mtime_nsec for node in nodes if node.mtime_sec == seconds])

    def write(self, root: Directory) -> bytes:
        """Return the image."""
        try:
            end = self._place_v2() if self.v2 else self._place_v1()
            inodes_end = -(-end // SLOT) * SLOT
            self.pieces.append(bytes(inodes_end - end))
            return self._finish(root, inodes_end)
        except struct.error as error:
            raise _culprit(root) from error

    def _place_v1(self) -> int:
        """Lay out and write inodes for V0 and V1."""
        earliest_sec, earliest_nsec = self.build_time
        nids = self.nids
        pieces = self.pieces
        extend = pieces.extend
        shared_objects = self.table.shared_objects
        unusual = self.table.unusual_objects
        links = self.inodes.links
        pack_compact = layout.COMPACT.pack
        pack_extended = layout.EXTENDED.pack
        from_hex = bytes.fromhex
        end = INODES_START
        for number, (node, xattrs, file) in enumerate(zip(self.inodes.nodes, self.sets, self.stored, strict=True)):
            start = (end + 31) & -32
            if start != end:
                pieces.append(_PADS[start - end])
            if (
                file is None
                or (name := file.object) is None
                or not xattrs.simple
                or name in unusual
                or not 0 < (size := file.size) <= _ONE_CHUNK
            ):
                end = self._place_other_v1(start, number, node, xattrs)
                continue
            nids[node] = start >> 5
            shared = name in shared_objects
            xattr_size = xattrs.shared_object_size if shared else xattrs.object_size
            icount = (xattr_size - 8) >> 2
            bits = (size - 1).bit_length() - 12
            u = bits if bits > 0 else 0  # noqa: FURB136 - max() takes longer
            nlink = file.nlink or links.get(file, 1)
            sec, nsec, uid, gid = file.mtime_sec, file.mtime_nsec, file.uid, file.gid
            mode = 0o100000 | file.mode
            if sec != earliest_sec or nsec != earliest_nsec or (nlink | uid | gid) >> 16 or size >> 32:
                header = pack_extended(9, icount, mode, 0, size, u, number, uid, gid, sec, nsec, nlink)
                end = start + 68 + xattr_size
            else:
                header = pack_compact(8, icount, mode, nlink, size, 0, u, number, uid, gid, 0)
                end = start + 36 + xattr_size
            if shared:
                self.late_shared.append((len(pieces) + 1, xattrs, name))
                extend((header, b"", NULL_CHUNK))
                continue
            if not xattrs.final:
                self.late_lead.append((len(pieces) + 1, xattrs))
            redirect = f"/{name[:2]}/{name[2:]}".encode()
            extend((header, xattrs.lead, from_hex(name), xattrs.between, redirect, xattrs.rest))
        return end

    def _place_other_v1(self, start: int, number: int, node: Node, xattrs: XattrSet) -> int:
        """Write anything but a usual stored file at *start* or, padded, behind it; return where it ends."""
        shape = shape_of(node, self.inodes, v2=False)
        xattrs = self._complete(number, xattrs)
        extended = (node.mtime_sec, node.mtime_nsec) != self.build_time or _is_wide(node, shape.size, self.inodes)
        meta = (64 if extended else 32) + xattrs.plain_size
        tail_size = shape.tail_size
        position = start
        u = shape.u
        if shape.mode == layout.S_IFLNK:
            total = meta + tail_size
            if position // BLOCK != (position + total - 1) // BLOCK:
                position = -(-position // BLOCK) * BLOCK
            if total >= BLOCK:
                shape.blocks = [shape.tail]
                shape.layout = layout.FLAT_PLAIN
                tail_size = 0
        elif tail_size:
            room = BLOCK - (position + meta) % BLOCK
            if room < tail_size:
                pad = -(-room // SLOT) * SLOT
                if tail_size <= BLOCK - (position + meta + pad) % BLOCK:
                    position += pad
                else:
                    shape.blocks = [NULL_CHUNK * layout.CHUNKS_MAX]
                    position = -(-position // BLOCK) * BLOCK
                    tail_size = 0
        if position != start:
            self.pieces.append(bytes(position - start))
        self.nids[node] = position >> 5
        self.types[node] = shape.file_type
        self._add(node, shape, xattrs, extended=extended, number=number, u=u, tail=tail_size > 0)
        return position + meta + tail_size

    def _place_v2(self) -> int:
        """Lay out and write inodes for V2."""
        pieces = self.pieces
        shared_objects = self.table.shared_objects
        unusual = self.table.unusual_objects
        end = INODES_START
        for number, (node, xattrs, file) in enumerate(zip(self.inodes.nodes, self.sets, self.stored, strict=True)):
            start = (end + 31) & -32
            if start != end:
                pieces.append(_PADS[start - end])
            if file is None or (name := file.object) is None or not xattrs.simple or name in unusual or not file.size:
                end = self._place_other_v2(start, number, node, xattrs)
                continue
            self.nids[node] = start >> 5
            shared = name in shared_objects
            xattr_size = xattrs.shared_object_size if shared else xattrs.object_size
            nlink = file.nlink or self.inodes.links.get(file, 1)
            mode = layout.S_IFREG | node.mode
            icount = (xattr_size - 8) >> 2
            header = _header_v2(layout.CHUNKED, icount, mode, nlink, file.size, 31, start >> 5, node)
            end = start + 64 + xattr_size + 4
            if shared:
                self.late_shared.append((len(pieces) + 1, xattrs, name))
                pieces.extend((header, b"", NULL_CHUNK))
            else:
                if not xattrs.final:
                    self.late_lead.append((len(pieces) + 1, xattrs))
                redirect = f"/{name[:2]}/{name[2:]}".encode()
                pieces.extend((header, xattrs.lead, bytes.fromhex(name), xattrs.between, redirect, xattrs.rest))
        return end

    def _place_other_v2(self, start: int, number: int, node: Node, xattrs: XattrSet) -> int:
        shape = shape_of(node, self.inodes, v2=True)
        xattrs = self._complete(number, xattrs)
        meta = 64 + xattrs.plain_size
        position = start
        if shape.layout == layout.FLAT_INLINE:
            last = position + meta - 1
            if last // BLOCK != (last + 1 + shape.tail_size) // BLOCK:
                position += BLOCK - last % BLOCK
                position = -(-position // SLOT) * SLOT
                self.pieces.append(bytes(position - start))
        self.nids[node] = position >> 5
        self.types[node] = shape.file_type
        self._add(node, shape, xattrs, extended=True, number=position >> 5, u=shape.u, tail=shape.tail_size > 0)
        return position + meta + shape.tail_size

    def _complete(self, number: int, xattrs: XattrSet) -> XattrSet:
        """Return the attributes of an inode in full: for an unusual stored file, with the two that name its object."""
        file = self.stored[number]
        if file is None or file.object is None or not file.size:
            return xattrs
        own = self.inodes.xattrs[number]
        pairs = object_pairs(file.object, self.algorithm)
        return self.table.add_set((*pairs, *own) if self.v2 else tuple(sorted((*own, *pairs))))

    def _add(
        self, node: Node, shape: Shape, xattrs: XattrSet, *, extended: bool, number: int, u: int, tail: bool
    ) -> None:
        pieces = self.pieces
        icount = (xattrs.plain_size - 8) >> 2 if xattrs.plain_size else 0
        if shape.blocks:
            self.late_headers.append((len(pieces), node, shape, icount, extended, number, self.data_blocks))
            pieces.append(b"")
            self.data += shape.blocks
            self.data_blocks += len(shape.blocks)
        else:
            pieces.append(self._header(node, shape, icount, extended=extended, number=number, u=u))
        if xattrs.plain_size:
            self.late_plain.append((len(pieces), xattrs))
            pieces.append(b"")
        if tail:
            if isinstance(shape.tail, bytes):
                pieces.append(shape.tail)
            else:
                self.late_tails.append((len(pieces), shape.tail))
                pieces.append(b"")

    def _header(self, node: Node, shape: Shape, icount: int, *, extended: bool, number: int, u: int) -> bytes:
        mode = shape.mode | node.mode
        nlink = link_count(node, self.inodes)
        if self.v2:
            return _header_v2(shape.layout, icount, mode, nlink, shape.size, u, number, node)
        return _header(extended, shape.layout, icount, mode, nlink, shape.size, u, number, node)

    def _finish(self, root: Directory, inodes_end: int) -> bytes:
        table = self.table
        table.place(inodes_end)
        pieces = self.pieces
        for at, xattrs in self.late_lead:
            pieces[at] = xattrs.lead
        for at, xattrs in self.late_plain:
            pieces[at] = xattrs.plain
        for at, xattrs, name in self.late_shared:
            pieces[at] = xattrs.with_shared_object(table, name)
        for at, listing in self.late_tails:
            pieces[at] = layout.encode_listing(listing, self.nids, self.types)
        table_end = inodes_end + len(table.data)
        first_block = -(-table_end // BLOCK)
        for at, node, shape, icount, extended, number, block in self.late_headers:
            u = first_block + block
            if shape.layout == layout.CHUNKED:
                u = u & 0xFFFF0000 | shape.u
            pieces[at] = self._header(node, shape, icount, extended=extended, number=number, u=u)
        blocks = [
            part if isinstance(part, bytes) else layout.encode_listing(part, self.nids, self.types)
            for part in self.data
        ]
        head = layout.front(
            self.version,
            flags=layout.FLAG_HAS_ACL if table.has_acl and not self.v2 else 0,
            root_nid=self.nids[root],
            inodes=len(self.inodes.nodes),
            build_time=self.build_time,
            blocks=first_block + self.data_blocks,
            xattr_block=0 if self.v2 else inodes_end // BLOCK,
        )
        padding = bytes(first_block * BLOCK - table_end)
        return b"".join([head, *pieces, table.data, padding, *[block.ljust(BLOCK, b"\0") for block in blocks]])


def _header(
    extended: bool,  # noqa: FBT001 - called once for each inode, keywords cost
    data_layout: int,
    icount: int,
    mode: int,
    nlink: int,
    size: int,
    u: int,
    number: int,
    node: Node,
) -> bytes:
    """Return a V0 or V1 inode: compact where everything fits and the time is the image's."""
    uid = node.uid
    gid = node.gid
    if not extended and nlink < 65536 and uid < 65536 and gid < 65536 and size < 4294967296:  # noqa: PLR2004 - u16, u32
        return layout.COMPACT.pack(data_layout, icount, mode, nlink, size, 0, u, number, uid, gid, 0)
    return layout.EXTENDED.pack(
        data_layout | 1, icount, mode, 0, size, u, number, uid, gid, node.mtime_sec, node.mtime_nsec, nlink
    )


def _header_v2(data_layout: int, icount: int, mode: int, nlink: int, size: int, u: int, nid: int, node: Node) -> bytes:
    """Return a V2 inode: always extended, without nanoseconds, numbered by its place."""
    return layout.EXTENDED.pack(
        data_layout | 1, icount, mode, 0, size, u, nid, node.uid, node.gid, node.mtime_sec, 0, nlink
    )


def _is_wide(node: Node, size: int, inodes: Inodes) -> bool:
    """Return whether a compact inode is too small for *node*."""
    return max(link_count(node, inodes), node.uid, node.gid) > 0xFFFF or size > 0xFFFFFFFF  # noqa: PLR2004 - u16, u32


def _culprit(root: Directory) -> ImageError:
    """Say which file has a value that does not fit its field."""
    for path, node in walk(root):
        fields = (
            ("owner", node.uid, 0, 0xFFFFFFFF),
            ("group", node.gid, 0, 0xFFFFFFFF),
            ("mode", node.mode, 0, 0o7777),
            ("modification time", node.mtime_sec, -(1 << 63), (1 << 63) - 1),
            ("nanoseconds", node.mtime_nsec, 0, 999_999_999),
            ("device number", node.rdev if isinstance(node, Special) else 0, 0, 0xFFFFFFFF),
            ("size", node.size if isinstance(node, RegularFile) else 0, 0, (1 << 63) - 1),
        )
        for name, value, low, high in fields:
            if not low <= value <= high:
                msg = f"{path!r}: {name} {value} is outside {low} to {high}"
                return ImageError(msg, hint="correct the file's metadata")
    return ImageError("the tree is too big for an EROFS image", hint="EROFS has 2^32 blocks and inodes")
