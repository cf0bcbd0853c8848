"""Directories with many names, made here: mkfs.ext4 looks through all of a directory for each name that it adds.

mkfs makes what is in such a directory elsewhere, a few names to a directory, and in its place a file with as many
blocks as it needs. Then the file becomes the directory, with an index, and the other directories are taken away.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_disk.ext4 import index
from cfs_disk.ext4.inode import FLAG_EXTENTS
from cfs_disk.ext4.nodes import Ext4Contents, Ext4Node
from cfs_disk.ext4.read import Ext4Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import BinaryIO

    from cfs_core.plugin import Region
    from cfs_disk.ext4.inode import Inode

WIDE = 1000
"""More names than this in one directory, and it is made here."""

_FAN = 256
_INDEXED = 0x1000
_MOST_LINKS = 65_000
"""EXT4_LINK_MAX: a directory with more subdirectories has the count 1, which says that nobody counts (dir_nlink)."""

_BATCH = 1024
_KINDS = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


@dataclass(frozen=True, slots=True)
class Wide:
    """One directory: where it will be, where mkfs makes each of its names."""

    path: bytes
    leaves: tuple[index.Leaf, ...]
    places: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Spread:
    """What mkfs is to make, and what is to be made of it. ``places`` has every path that is elsewhere or above such."""

    contents: Ext4Contents
    wide: tuple[Wide, ...] = ()
    places: dict[bytes, bytes] | None = None
    shards: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Placeholder:
    """A `Content` without a block of zeros, which would become a hole."""

    size: int

    def open(self) -> BinaryIO:
        return io.BytesIO(b"\xff" * self.size)


def wide_directories(contents: Ext4Contents) -> dict[bytes, list[bytes]]:
    """Return names by directory, of those that have many; the root is never among them, its inode is mkfs's."""
    paths = [node.path for node in contents.nodes] + [name for name, _ in contents.links]
    counts = Counter(path.rpartition(b"/")[0] for path in paths)
    found: dict[bytes, list[bytes]] = {path: [] for path, count in counts.items() if path and count > WIDE}
    if found:
        for path in paths:
            parent, _, name = path.rpartition(b"/")
            if parent in found:
                found[parent].append(name)
    return found


def wide_blocks(names: int, size: int) -> int:
    """Return the most blocks a wide directory of so many names takes, *size* bytes as entries, while it is made."""
    leaves = size // (index.FILLED - index.LARGEST_ENTRY) + 1
    return leaves + index.nodes_of(leaves) + 1 + 2 * (names // _FAN) + 4


def spread(contents: Ext4Contents, hash_seed: str) -> Spread:
    """Return *contents* with the names of wide directories elsewhere.

    Raises:
        DiskError: a directory has more names than can be found.
    """
    names = wide_directories(contents)
    if not names:
        return Spread(contents)
    seed = hash_words(hash_seed)
    arranged = {path: index.arrange(each, seed) for path, each in names.items()}
    top = b"/.cfs-wide"
    taken = {node.path for node in contents.nodes if node.path.startswith(top)}
    while top in taken:
        top += b"_"
    moving = _Moving(top, {path: len(each) for path, each in names.items()})
    nodes: list[Ext4Node] = []
    for node in contents.nodes:
        place = moving.place(node.path, nodes)
        moved = replace(node, path=place)
        if node.path in names:
            size = index.block_count(arranged[node.path]) * index.BLOCK
            mode = stat.S_IFREG | stat.S_IMODE(node.mode)
            moved = replace(moved, mode=mode, content=_Placeholder(size))
        nodes.append(moved)
    links = tuple((moving.place(name, nodes), moving.places[existing]) for name, existing in contents.links)
    prefixes = {path: path + b"/" for path in names}
    wide = tuple(
        Wide(path, arranged[path], {name: moving.places[prefixes[path] + name] for name in each})
        for path, each in names.items()
    )
    shards = tuple(sorted(moving.shards, key=len, reverse=True))
    return Spread(Ext4Contents(nodes=tuple(nodes), links=links), wide, moving.places, shards)


def hash_words(hash_seed: str) -> tuple[int, int, int, int]:
    """Return the four words that hashes of names start with."""
    one, two, three, four = struct.unpack("<4I", uuid.UUID(hash_seed).bytes)
    return one, two, three, four


class _Moving:
    """Gives every path its place, and makes the directories that takes."""

    def __init__(self, top: bytes, sizes: dict[bytes, int]) -> None:
        self._top = top
        self._numbers = {path: number for number, path in enumerate(sizes)}
        self._levels = {path: _levels(size) for path, size in sizes.items()}
        self._next = dict.fromkeys(sizes, 0)
        self.places: dict[bytes, bytes] = {b"/": b"/", b"": b""}
        self.shards: set[bytes] = set()

    def place(self, path: bytes, nodes: list[Ext4Node]) -> bytes:
        """Return where mkfs makes *path*; directories that are needed first are added to *nodes*."""
        if path == b"/":
            return path
        parent, _, name = path.rpartition(b"/")
        if parent not in self._numbers:
            place = self.places[parent] + b"/" + name
        else:
            number = self._next[parent]
            self._next[parent] += 1
            parts = [b"%x" % self._numbers[parent]]
            parts += [b"%x" % (number // _FAN**level % _FAN) for level in range(self._levels[parent], 0, -1)]
            folder = self._top
            self._make(folder, nodes)
            for part in parts:
                folder += b"/" + part
                self._make(folder, nodes)
            place = folder + b"/%x" % (number % _FAN)
        self.places[path] = place
        return place

    def _make(self, folder: bytes, nodes: list[Ext4Node]) -> None:
        if folder not in self.shards:
            self.shards.add(folder)
            nodes.append(Ext4Node(path=folder, mode=stat.S_IFDIR | 0o700, uid=0, gid=0, mtime=(0, 0), xattrs={}))


def _levels(size: int) -> int:
    levels = 0
    while size > _FAN:
        size = -(-size // _FAN)
        levels += 1
    return levels


def make_directories(made: Spread, region: Region, edit: Callable[[Iterable[bytes]], None]) -> None:
    """Make directories of the placeholders that mkfs made; *edit* gives commands to debugfs.

    Raises:
        DiskError: mkfs or debugfs did not do as they were told.
    """
    if not made.wide:
        return
    with Ext4Reader(region) as reader:
        work = _Work(made, reader, region)
        work.write()
        edit(work.commands())
        groups = work.groups
    with Ext4Reader(region) as reader:
        edit(_directory_counts(reader, groups))


class _Work:
    """Everything done while the names are still where mkfs made them."""

    def __init__(self, made: Spread, reader: Ext4Reader, region: Region) -> None:
        self._made = made
        self._reader = reader
        self._region = region
        self._places = made.places or {}
        self._filesystem = uuid.UUID(reader.superblock.uuid).bytes
        self._wide = {self._number(wide.path): wide for wide in made.wide}
        self._subdirectories: dict[int, int] = {}
        self.groups = Counter((number - 1) // reader.superblock.inodes_per_group for number in self._wide)

    def _number(self, path: bytes) -> int:
        return self._inode(self._places[path]).number

    def _inode(self, place: bytes) -> Inode:
        return self._reader.lookup(place.decode("utf-8", "surrogateescape") or "/")

    def write(self) -> None:
        """Write the blocks of all wide directories, and tell their subdirectories who their parent is."""
        descriptor = os.open(self._region.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for number, wide in self._wide.items():
                self._write_one(descriptor, number, wide)
            self._tell_parents(descriptor)
        finally:
            os.close(descriptor)

    def _write_one(self, descriptor: int, number: int, wide: Wide) -> None:
        inode = self._reader.inode(number)
        children: dict[bytes, tuple[int, int]] = {}
        plain: list[Inode] = []
        self._subdirectories[number] = 0
        for name, place in wide.places.items():
            child = self._inode(place)
            is_wide = child.number in self._wide
            kind = stat.S_IFDIR if is_wide else stat.S_IFMT(child.mode)
            children[name] = (child.number, _KINDS[kind])
            self._subdirectories[number] += kind == stat.S_IFDIR
            if kind == stat.S_IFDIR and not is_wide:
                plain.append(child)
        parent = self._parent(wide)
        numbers = index.DirectoryNumbers(number, parent, self._seed(inode), children)
        physical = _physical(self._reader, inode)
        for block in index.blocks(wide.leaves, numbers):
            self._put(descriptor, next(physical), block)
        for start in range(0, len(plain), _BATCH):
            self._adopt(descriptor, number, plain[start : start + _BATCH])

    def _tell_parents(self, descriptor: int) -> None:
        """Change, where placeholders are named as files, what kind of file they are."""
        names: dict[int, set[bytes]] = {}
        for wide in self._made.wide:
            names.setdefault(self._parent(wide), set()).add(self._places[wide.path].rpartition(b"/")[2])
        for number, those in names.items():
            if number not in self._wide:
                inode = self._reader.inode(number)
                seed = self._seed(inode)
                for place in _physical(self._reader, inode):
                    block = self._reader.block(place)
                    changed = index.with_kinds(block, dict.fromkeys(those, _KINDS[stat.S_IFDIR]), seed)
                    if changed != block:
                        self._put(descriptor, place, changed)

    def _adopt(self, descriptor: int, parent: int, directories: Sequence[Inode]) -> None:
        places = [next(_physical(self._reader, inode)) for inode in directories]
        firsts = [self._reader.block(place) for place in places]
        seeds = [self._seed(inode) for inode in directories]
        for place, block in zip(places, index.with_parents(firsts, parent, seeds), strict=True):
            self._put(descriptor, place, block)

    def _put(self, descriptor: int, place: int, block: bytes) -> None:
        os.pwrite(descriptor, block, self._region.offset + place * index.BLOCK)

    def _seed(self, inode: Inode) -> int:
        generation = struct.unpack_from("<I", inode.raw, 100)[0]
        return index.checksum_seed(self._filesystem, inode.number, generation)

    def commands(self) -> Iterator[bytes]:
        """Yield commands that make placeholders directories, and take away what the names were in."""
        yield b"ssv flags 1"
        gained = Counter(self._parent(wide) for wide in self._made.wide)
        for number, wide in self._wide.items():
            mode = stat.S_IFDIR | stat.S_IMODE(self._reader.inode(number).mode)
            yield b"sif <%d> mode %d" % (number, mode)
            yield b"sif <%d> flags %d" % (number, FLAG_EXTENTS | _INDEXED)
            yield b"sif <%d> size %d" % (number, index.block_count(wide.leaves) * index.BLOCK)
            links = self._subdirectories[number] + 2
            yield b"sif <%d> links_count %d" % (number, links if links <= _MOST_LINKS else 1)
        root = self._reader.inode(self._number(b"/"))
        gained[root.number] -= 1
        for number, more in gained.items():
            if more and number not in self._wide:
                yield b"sif <%d> links_count %d" % (number, self._reader.inode(number).links + more)
        for shard in self._made.shards:
            number = self._inode(shard).number
            yield b"kill_file <%d>" % number
            yield b"clri <%d>" % number
        yield b"unlink " + min(self._made.shards, key=len)

    def _parent(self, wide: Wide) -> int:
        return self._number(wide.path.rpartition(b"/")[0] or b"/")


def _physical(reader: Ext4Reader, inode: Inode) -> Iterator[int]:
    for _, length, physical in reader.extents(inode):
        yield from range(physical, physical + length)


def _directory_counts(reader: Ext4Reader, groups: Counter[int]) -> Iterator[bytes]:
    """Yield commands that count the placeholders among the directories of their groups."""
    for group, more in groups.items():
        yield b"set_bg %d used_dirs_count %d" % (group, reader.directory_count(group) + more)
        yield b"set_bg %d checksum calc" % group
