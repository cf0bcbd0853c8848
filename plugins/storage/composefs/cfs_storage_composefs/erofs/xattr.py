"""Extended attributes in EROFS images: names, overlayfs attributes, sharing, blocks in inodes (formats B.4, B.5)."""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from cfs_core.plugin import FormatVersion, HashAlgorithm, ImageError, ObjectId
from cfs_storage_composefs.erofs.layout import NAME_MAX, NULL_CHUNK, XATTR_VALUE_MAX
from cfs_storage_composefs.fsverity import kernel_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cfs_core.plugin import Xattrs

OVERLAY = b"trusted.overlay."
METACOPY = OVERLAY + b"metacopy"
REDIRECT = OVERLAY + b"redirect"
OPAQUE = OVERLAY + b"opaque"
ESCAPED = OVERLAY + b"overlay."
ACL_NAMES = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})

# EROFS_XATTR_FILTER_SEED of fs/erofs/erofs_fs.h. A filter bit that is *clear* says that the name may be there.
FILTER_SEED = 0x25BBE08F
ENTRY = struct.Struct("<BBH")
HEAD_SIZE = 12
ICOUNT_MAX = 65535
_SHARED_MAX_C = 128  # EROFS_XATTR_LONG_PREFIX in libcomposefs
_SHARED_MAX = 255  # h_shared_count is a byte

# The first that matches wins, so the order is part of the format where one begins like another.
PREFIXES = (
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
)
PREFIXES_V2 = (*PREFIXES, (b"lustre.", 5))

Pair = tuple[bytes, bytes]
"""Full name and value."""


def prefixes_of(version: FormatVersion) -> Sequence[tuple[bytes, int]]:
    """Return prefix and number of each prefix that *version* abbreviates."""
    return PREFIXES_V2 if version is FormatVersion.V2 else PREFIXES


def split_name(name: bytes, prefixes: Sequence[tuple[bytes, int]]) -> tuple[int, bytes]:
    """Return prefix number (0: none) and stored suffix of a full name."""
    for prefix, number in prefixes:
        if name.startswith(prefix):
            return number, name[len(prefix) :]
    return 0, name


def filter_bit(number: int, suffix: bytes) -> int:
    """Return the bit that a name occupies in an inode's name filter."""
    return 1 << (xxhash.xxh32_intdigest(suffix, FILTER_SEED + number) & 31)


def escape(xattrs: Xattrs) -> Xattrs:
    """Rename ``trusted.overlay.x`` to ``trusted.overlay.overlay.x``: overlayfs passes it on instead of using it."""
    for name, _ in xattrs:
        if name.startswith(OVERLAY):
            return tuple(
                (ESCAPED + name[len(OVERLAY) :] if name.startswith(OVERLAY) else name, value) for name, value in xattrs
            )
    return xattrs


def metacopy_value(digest: bytes, algorithm: HashAlgorithm) -> bytes:
    """Return the value of ``trusted.overlay.metacopy`` (struct ovl_metacopy) that names *digest*."""
    return bytes((0, 4 + algorithm.size, 0, kernel_id(algorithm))) + digest


def object_pairs(object_id: ObjectId, algorithm: HashAlgorithm) -> tuple[Pair, Pair]:
    """Return metacopy and redirect attributes of a file stored as *object_id*."""
    redirect = b"/" + object_id[:2].encode() + b"/" + object_id[2:].encode()
    return (METACOPY, metacopy_value(bytes.fromhex(object_id), algorithm)), (REDIRECT, redirect)


class Entry(NamedTuple):
    """One attribute, encoded."""

    data: bytes
    bit: int
    sort_key: tuple[int, bytes, bytes]


class XattrSet:
    """The attributes that some inodes have in common, and what a stored file's two extra attributes make of them.

    A stored file's block is ``lead``, digest, ``between``, redirect path, and ``rest`` with the chunk index behind it;
    that of other inodes is ``plain``. ``plain`` and ``lead`` are there when the shared table has its place, or at once
    if ``final``.
    """

    __slots__ = (
        "_blocks",
        "_local",
        "_object_filter",
        "_plain_filter",
        "_shared",
        "between",
        "final",
        "lead",
        "object_size",
        "plain",
        "plain_size",
        "rest",
        "shared_object_size",
        "simple",
    )

    def __init__(self, shared: Pairs3, local: Pairs3, table: XattrTable) -> None:
        self._shared = shared
        self._local = local
        pairs = [pair for group in (*shared, *local) for pair in group]
        bits = 0
        for pair in pairs:
            bits |= table.entry(pair).bit
        self._plain_filter = ~bits & 0xFFFFFFFF
        self._object_filter = ~(bits | table.object_bits) & 0xFFFFFFFF
        count = sum(map(len, shared))
        size = HEAD_SIZE + 4 * count + sum(len(table.entry(pair).data) for group in local for pair in group)
        if size + table.object_entries_size > HEAD_SIZE + 4 * (ICOUNT_MAX - 1):
            msg = f"{size} bytes of extended attributes on one file, the first being {pairs[0][0]!r}"
            raise ImageError(msg, hint="an EROFS inode holds at most 262144 bytes of them")
        self.plain_size = size if pairs else 0
        self.object_size = size + table.object_entries_size
        self.shared_object_size = size + 8
        self.simple = count + 2 <= _SHARED_MAX_C
        self.between = table.join(local[1]) + table.redirect_head
        self.rest = b"\0\0" + table.join(local[2]) + NULL_CHUNK
        self.plain = self.lead = b""
        self.final = count == 0
        self._blocks: dict[ObjectId, bytes] = {}
        if self.final:
            self.finish(table)

    def finish(self, table: XattrTable) -> None:
        """Encode what depends on offsets in the shared table."""
        refs = [table.references[pair] for group in self._shared for pair in group]
        encoded = struct.pack(f"<{len(refs)}I", *refs)
        if self.plain_size:
            blobs = [table.join(group) for group in self._local]
            self.plain = b"".join([_HEAD.pack(self._plain_filter, len(refs)), encoded, *blobs])
        head = _HEAD.pack(self._object_filter, len(refs))
        self.lead = b"".join([head, encoded, table.join(self._local[0]), table.metacopy_head])

    def with_shared_object(self, table: XattrTable, object_id: ObjectId) -> bytes:
        """Return the whole block of a file whose object has several files."""
        block = self._blocks.get(object_id)
        if block is not None:
            return block
        metacopy, redirect = object_pairs(object_id, table.algorithm)
        shared = self._shared
        refs = [table.references[pair] for pair in (*shared[0], metacopy, *shared[1], redirect, *shared[2])]
        head = _HEAD.pack(self._object_filter, len(refs)) + struct.pack(f"<{len(refs)}I", *refs)
        block = self._blocks[object_id] = b"".join([head, *map(table.join, self._local)])
        return block


_HEAD = struct.Struct("<IB7x")
Pairs3 = tuple[list[Pair], list[Pair], list[Pair]]
"""Pairs that stand before metacopy, between metacopy and redirect, and after redirect."""


class XattrTable:
    """Which attributes of an image are shared, and where.

    *own* are the inodes' attributes (escaped, with overlay attributes other than those of stored files), *objects* the
    names of stored files: both once for each inode.
    """

    def __init__(
        self,
        version: FormatVersion,
        algorithm: HashAlgorithm,
        own: Iterable[Xattrs],
        objects: Iterable[ObjectId],
    ) -> None:
        self.algorithm = algorithm
        self.references: dict[Pair, int] = {}
        self._v2 = version is FormatVersion.V2
        self._prefixes = prefixes_of(version)
        self._entries: dict[Pair, Entry] = {}
        self._names: dict[bytes, tuple[int, bytes, int]] = {}
        hash_size = algorithm.size
        self.metacopy_head = ENTRY.pack(16, 4, 4 + hash_size) + b"overlay.metacopy" + metacopy_value(b"", algorithm)
        self.redirect_head = ENTRY.pack(16, 4, 2 * hash_size + 2) + b"overlay.redirect"
        self.object_entries_size = 24 + hash_size + 24 + 2 * hash_size
        self.object_bits = filter_bit(4, b"overlay.metacopy") | filter_bit(4, b"overlay.redirect")

        sets = Counter(own)
        uses: Counter[Pair] = Counter()
        for xattrs, times in sets.items():
            for pair in xattrs:
                uses[pair] += times
        self.has_acl = any(name in ACL_NAMES for name, _ in uses)
        counted = Counter(objects)
        self.shared_objects = {name for name, times in counted.items() if times > 1}
        self.unusual_objects = self._named_by_hand(uses) & counted.keys()
        for name in self.unusual_objects | self.shared_objects:
            for pair in object_pairs(name, algorithm):
                uses[pair] += counted[name]
        self._shared = {pair for pair, times in uses.items() if times > 1}
        self.sets = {xattrs: XattrSet(*self._group(xattrs), self) for xattrs in sets}
        self.data = b""

    @staticmethod
    def _named_by_hand(uses: Mapping[Pair, int]) -> set[ObjectId]:
        """Return objects named in attributes that were spelled out: equal ones count together."""
        named = {ObjectId(value.replace(b"/", b"").decode("latin-1")) for name, value in uses if name == REDIRECT}
        return named | {ObjectId(value[4:].hex()) for name, value in uses if name == METACOPY}

    def join(self, pairs: Iterable[Pair]) -> bytes:
        """Return *pairs* encoded, back to back."""
        return b"".join([self.entry(pair).data for pair in pairs])

    def entry(self, pair: Pair) -> Entry:
        """Return *pair* encoded.

        Raises:
            ImageError: name or value too long.
        """
        found = self._entries.get(pair)
        if found is None:
            name, value = pair
            known = self._names.get(name)
            if known is None:
                number, suffix = split_name(name, self._prefixes)
                known = self._names[name] = number, suffix, filter_bit(number, suffix)
            number, suffix, bit = known
            if not name or len(suffix) > NAME_MAX or len(value) > XATTR_VALUE_MAX:
                msg = f"extended attribute {name[:300]!r} with a value of {len(value)} bytes cannot be stored"
                hint = f"names have 1 to {NAME_MAX} bytes, values at most {XATTR_VALUE_MAX}"
                raise ImageError(msg, hint=hint)
            data = ENTRY.pack(len(suffix), number, len(value)) + suffix + value
            data = data.ljust(-(-len(data) // 4) * 4, b"\0")
            found = Entry(data, bit, (number, suffix, value))
            self._entries[pair] = found
        return found

    def _group(self, xattrs: Xattrs) -> tuple[Pairs3, Pairs3]:
        shared: Pairs3 = ([], [], [])
        local: Pairs3 = ([], [], [])
        room = _SHARED_MAX if self._v2 else _SHARED_MAX_C
        for pair in xattrs:
            place = 2 if self._v2 or pair[0] > REDIRECT else pair[0] > METACOPY
            if pair in self._shared and room:
                shared[place].append(pair)
                room -= 1
            else:
                local[place].append(pair)
        return shared, local

    def add_set(self, xattrs: Xattrs) -> XattrSet:
        """Return the set for *xattrs*, which were not among the inodes' own but are counted."""
        found = self.sets.get(xattrs)
        if found is None:
            found = self.sets[xattrs] = XattrSet(*self._group(xattrs), self)
        return found

    def place(self, inodes_end: int) -> None:
        """Fix the shared table at *inodes_end* and encode everything that refers to it."""
        if self._v2:
            # As composefs-rs: by what is on disk, prefix number first. xattr_blkaddr is 0: references
            # count from the first byte.
            order = sorted(self._shared, key=lambda pair: self.entry(pair).sort_key)
            offset = inodes_end
        else:
            # As mkcomposefs: descending. References count from the block that the table begins in (xattr_blkaddr).
            order = sorted(self._shared, key=lambda pair: (pair[0], len(pair[1]), pair[1]), reverse=True)
            offset = inodes_end % 4096
        parts = []
        for pair in order:
            data = self.entry(pair).data
            self.references[pair] = offset // 4
            offset += len(data)
            parts.append(data)
        self.data = b"".join(parts)
        for item in self.sets.values():
            item.finish(self)
