"""A journal that was not replayed, as a view: which block of the filesystem has which newer contents in the journal.

JBD2 on disk is described in Documentation/filesystems/ext4/journal.rst; all of its numbers are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cfs_core.plugin import DiskError
from cfs_disk.ext4.crc32c import crc32c, crc32c_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfs_disk.ext4.inode import Extent, Inode, Superblock

MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _SUPERBLOCK_1, _SUPERBLOCK_2, _REVOKE = 1, 2, 3, 4, 5

_REVOKES = 0x1
_WIDE = 0x2
_ASYNC_COMMIT = 0x4
_CHECKSUM_2 = 0x8
_CHECKSUM_3 = 0x10
_FAST_COMMIT = 0x20
_KNOWN = _REVOKES | _WIDE | _ASYNC_COMMIT | _CHECKSUM_2 | _CHECKSUM_3 | _FAST_COMMIT

_ESCAPED, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
_HEAD = struct.Struct(">III")
_MAGIC_BYTES = MAGIC.to_bytes(4)
_FAST_COMMIT_TAG = 0x0009
"""EXT4_FC_TAG_HEAD (fs/ext4/fast_commit.h), followed by a value of 8 bytes."""

_FAST_COMMIT_HEAD = 8
_DEFAULT_FAST_BLOCKS = 256
_BATCH = 1024

REPLAY = "replay it with `e2fsck -p`, on a copy of the disk if nothing may write to it"
"""What helps where the view does not: nothing but a replay writes to the disk."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """A block as the journal has it: where it belongs, where its newer contents are, who wrote it."""

    target: int
    at: int
    escaped: bool
    sequence: int
    checksum: int | None


@dataclass(slots=True)
class _Log:
    """What committed transactions hold."""

    copies: list[_Copy] = field(default_factory=list)
    revoked: dict[int, int] = field(default_factory=dict)


class Journal:
    """The journal of a filesystem, read by *read_block* (number in the journal to its bytes).

    Raises:
        DiskError: it is damaged, or has features this reader does not know.
    """

    def __init__(self, read_block: Callable[[int], bytes], block_size: int, blocks: int) -> None:
        self._read = read_block
        self._block_size = block_size
        raw = read_block(0)
        magic, kind, _ = _HEAD.unpack_from(raw)
        size, self._end, self._first, self._sequence, self._start = struct.unpack_from(">5I", raw, 12)
        if magic != MAGIC or kind not in {_SUPERBLOCK_1, _SUPERBLOCK_2} or size != block_size:
            msg = "the journal has no superblock"
            raise DiskError(msg, hint=REPLAY)
        self._features = struct.unpack_from(">I", raw, 40)[0] if kind == _SUPERBLOCK_2 else 0
        unknown = self._features & ~_KNOWN
        if unknown:
            msg = f"the journal has features this reader does not know: 0x{unknown:x}"
            raise DiskError(msg, hint=REPLAY)
        self._seed = crc32c(raw[48:64])
        self._fast = struct.unpack_from(">I", raw, 84)[0] or _DEFAULT_FAST_BLOCKS
        self._last = self._end - (self._fast if self._features & _FAST_COMMIT else 0)
        if not 0 < self._first < self._last <= self._end <= blocks or (self._start and self._start >= self._last):
            msg = "the journal's superblock has values that do not fit"
            raise DiskError(msg, hint=REPLAY)

    def replayed(self) -> dict[int, bytes]:
        """Return the newest committed contents of every block of the filesystem that the journal has.

        Raises:
            DiskError: a committed block is damaged; what is in the journal is only partly known.
        """
        if not self._start:
            return {}
        log = self._committed()
        wanted: dict[int, _Copy] = {}
        for copy in log.copies:
            if log.revoked.get(copy.target, -1) < copy.sequence:
                wanted[copy.target] = copy
        found: dict[int, bytes] = {}
        copies = list(wanted.values())
        for start in range(0, len(copies), _BATCH):
            found.update(self._contents(copies[start : start + _BATCH]))
        return found

    def _contents(self, copies: list[_Copy]) -> Iterator[tuple[int, bytes]]:
        blocks = [self._read(copy.at) for copy in copies]
        checked = [(copy, block) for copy, block in zip(copies, blocks, strict=True) if copy.checksum is not None]
        seeds = [crc32c(copy.sequence.to_bytes(4), self._seed) for copy, _ in checked]
        sums = crc32c_each([block for _, block in checked], seeds)
        mask = 0xFFFFFFFF if self._features & _CHECKSUM_3 else 0xFFFF
        for (copy, _), found in zip(checked, sums, strict=True):
            if found & mask != copy.checksum:
                msg = f"block {copy.at} of the journal is damaged"
                raise DiskError(msg, hint=REPLAY)
        for copy, block in zip(copies, blocks, strict=True):
            yield copy.target, _MAGIC_BYTES + block[4:] if copy.escaped else block

    def _committed(self) -> _Log:
        """Follow the log from its start; what the last transaction without a commit block holds does not count."""
        log, sequence, at = _Log(), self._sequence, self._start
        pending = _Log()
        for _ in range(self._last):
            block = self._read(at)
            magic, kind, number = _HEAD.unpack_from(block)
            if magic != MAGIC or number != sequence or not self._is_whole(block, kind):
                break
            at = self._after(at)
            if kind == _DESCRIPTOR:
                for target, escaped, checksum in self._tags(block):
                    pending.copies.append(_Copy(target, at, escaped, sequence, checksum))
                    at = self._after(at)
            elif kind == _REVOKE:
                pending.revoked.update(dict.fromkeys(self._revocations(block), sequence))
            elif kind == _COMMIT:
                log.copies += pending.copies
                log.revoked |= pending.revoked
                pending, sequence = _Log(), sequence + 1 & 0xFFFFFFFF
            else:
                break
        self._refuse_fast_commits(sequence)
        return log

    def _refuse_fast_commits(self, sequence: int) -> None:
        """Fast commits are operations, not blocks; without them the view would be older than the machine's own."""
        if not self._features & _FAST_COMMIT:
            return
        head, length, features, transaction = struct.unpack_from("<HHII", self._read(self._last))
        if (head, length, features, transaction) == (_FAST_COMMIT_TAG, _FAST_COMMIT_HEAD, 0, sequence):
            msg = "the journal ends with fast commits, which this reader does not know"
            raise DiskError(msg, hint=REPLAY)

    def _after(self, at: int) -> int:
        return at + 1 if at + 1 < self._last else self._first

    def _has_checksums(self) -> bool:
        return bool(self._features & (_CHECKSUM_2 | _CHECKSUM_3))

    def _is_whole(self, block: bytes, kind: int) -> bool:
        """Return whether the block has the checksum it says: one that has not is left from an earlier round."""
        if not self._has_checksums():
            return True
        at = 16 if kind == _COMMIT else self._block_size - 4
        stored = int.from_bytes(block[at : at + 4])
        return crc32c(block[:at] + bytes(4) + block[at + 4 :], self._seed) == stored

    def _tags(self, block: bytes) -> Iterator[tuple[int, bool, int | None]]:
        """Yield target block, whether its first bytes were replaced, checksum."""
        third, wide = bool(self._features & _CHECKSUM_3), bool(self._features & _WIDE)
        size = 16 if third else 8 + 4 * wide + 2 * bool(self._features & _CHECKSUM_2)
        at, end = _HEAD.size, self._block_size - 4 * self._has_checksums()
        while at + size <= end:
            checksum: int | None = None
            if third:
                low, flags, high, checksum = struct.unpack_from(">4I", block, at)
            else:
                low, short, flags = struct.unpack_from(">IHH", block, at)
                high = struct.unpack_from(">I", block, at + 8)[0] if wide else 0
                checksum = short if self._has_checksums() else None
            yield low | (high << 32 if wide else 0), bool(flags & _ESCAPED), checksum
            at += size + (0 if flags & _SAME_UUID else 16)
            if flags & _LAST:
                return

    def _revocations(self, block: bytes) -> Iterator[int]:
        used = struct.unpack_from(">I", block, _HEAD.size)[0]
        size = 8 if self._features & _WIDE else 4
        for at in range(_HEAD.size + 4, min(used, self._block_size) - size + 1, size):
            yield int.from_bytes(block[at : at + size])


class Unreplayed(Protocol):
    """The reader of a filesystem as it is on the disk."""

    superblock: Superblock

    def inode(self, number: int) -> Inode:
        """Read an inode by number."""

    def extents(self, inode: Inode) -> list[Extent]:
        """Return where its data is."""

    def read_blocks(self, extents: list[Extent], offset: int, size: int) -> bytes:
        """Read *size* bytes at *offset* of a file."""


def newer_blocks(reader: Unreplayed) -> dict[int, bytes]:
    """Return the blocks that a replay of the journal would write to the filesystem of *reader*.

    Raises:
        DiskError: the journal must be replayed, and cannot be followed.
    """
    number, size = reader.superblock.journal_inode, reader.superblock.block_size
    try:
        if not number:
            msg = "the journal is on another disk"
            raise DiskError(msg)  # noqa: TRY301 - all that goes wrong here is told in the same words
        inode = reader.inode(number)
        extents = reader.extents(inode)
        journal = Journal(lambda block: reader.read_blocks(extents, block * size, size), size, inode.size // size)
        return {block: data for block, data in journal.replayed().items() if block < reader.superblock.blocks}
    except DiskError as error:
        msg = f"the journal of this ext4 must be replayed before it can be read: {error.message}"
        raise DiskError(msg, hint=REPLAY) from error
