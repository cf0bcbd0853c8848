"""An EROFS writer made of page B of the formats, sentence by sentence, and of nothing else.

Slow and short: it tells where the text and what cfs writes part. Numbers in comments are the page's headings.
"""

import struct

import xxhash

from cfs_core.plugin import Directory, RegularFile, Special, SpecialKind, Symlink

BLOCK = 4096
PREFIXES = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6), (b"system.posix_acl_access", 2)]
PREFIXES += [(b"system.posix_acl_default", 3), (b"lustre.", 5)]  # B.5
OVERLAY = b"trusted.overlay."
KINDS = {SpecialKind.CHAR: (0o020000, 3), SpecialKind.BLOCK: (0o060000, 4), SpecialKind.FIFO: (0o010000, 5)}
KINDS |= {SpecialKind.SOCKET: (0o140000, 6)}
CHUNK = b"\xff\xff\xff\xff"


def up(value, step):
    return -(-value // step) * step


class Inode:
    """A node with what the page makes of it."""

    def __init__(self, node, entries=()):
        self.node = node
        self.entries = entries  # of a directory: (name, Inode), with the dots
        self.whiteout = False
        self.pairs = []
        self.links = 1
        self.nid = self.number = self.block = None


class Writer:
    """Writes one tree, as bytes, with `write`."""

    def __init__(self, version, algorithm):
        self.version = version
        self.v2 = version == 2
        self.hash_number, self.hash_size = {"sha256": (1, 32), "sha512": (2, 64)}[algorithm]

    # --- B.3 and B.4 --------------------------------------------------------------------------------

    def tree(self, node, parent, seen, *, is_root=False):
        """Wrap *node* and all below it, depth first; a leaf's first name makes its inode."""
        if id(node) in seen:
            seen[id(node)].links += 1
            return seen[id(node)], False
        inode = seen[id(node)] = Inode(node)
        if not isinstance(node, Directory):
            inode.whiteout = not self.v2 and self.is_whiteout(node)
            return inode, True
        children = [(name, *self.tree(child, inode, seen)) for name, child in sorted(node.entries.items())]
        inode.links = 2 + sum(isinstance(child.node, Directory) for _, child, _ in children)
        inode.own = {name for name, _, first in children if first}
        listed = [(name, child) for name, child, _ in children]
        if is_root and not self.v2:
            for number in range(256):
                name = b"%02x" % number
                if name not in node.entries:
                    label = tuple(pair for pair in node.xattrs if pair[0] == b"security.selinux")
                    of_root = (node.uid, node.gid, node.mtime_sec, node.mtime_nsec, label)
                    listed.append((name, Inode(Special(0o644, *of_root, SpecialKind.CHAR))))
                    inode.own.add(name)
        inode.children = sorted(listed, key=lambda entry: entry[0])
        dots = [(b".", inode), (b"..", parent or inode)]
        inode.entries = sorted([*listed, *dots], key=lambda entry: entry[0])
        return inode, True

    @staticmethod
    def is_whiteout(node):
        return isinstance(node, Special) and node.kind is SpecialKind.CHAR and node.rdev == 0

    def order(self, root):
        owned = [child for name, child in root.children if name in root.own]
        if self.v2:
            rest = [self.order(child) if isinstance(child.node, Directory) else [child] for child in owned]
            return [root, *(inode for part in rest for inode in part)]
        found, queue = [root], [root]
        for directory in queue:
            own = [child for name, child in directory.children if name in directory.own]
            found += own
            queue += [child for child in own if isinstance(child.node, Directory)]
        return found

    def xattrs(self, inode, *, is_root):
        node = inode.node
        renamed = [(self.renamed(name), value) for name, value in sorted(node.xattrs)]
        added = []
        if isinstance(node, RegularFile) and node.data is None and node.size:
            path = node.path
            if node.object is not None:
                digest = bytes.fromhex(node.object)
                value = bytes([0, 4 + len(digest), 0, self.hash_number]) + digest
                added.append((OVERLAY + b"metacopy", value))
                path = f"{node.object[:2]}/{node.object[2:]}".encode() if path is None else path
            else:
                added.append((OVERLAY + b"metacopy", b""))
            if path:
                added.append((OVERLAY + b"redirect", b"/" + path.removeprefix(b"/")))
        if self.v2:
            return [*added, *renamed]
        marks = {}
        if inode.whiteout:
            marks |= {OVERLAY + b"overlay.whiteout": b"", b"user.overlay.whiteout": b""}
        if isinstance(node, Directory) and any(child.whiteout for name, child in inode.children if name in inode.own):
            marks |= {OVERLAY + b"overlay.whiteouts": b"", b"user.overlay.whiteouts": b""}
            if self.version == 1:
                marks |= {OVERLAY + b"overlay.opaque": b"x", b"user.overlay.opaque": b"x"}
        if is_root:
            marks[OVERLAY + b"opaque"] = b"y"
        return sorted((dict(renamed) | dict(added) | marks).items())

    @staticmethod
    def renamed(name):
        return OVERLAY + b"overlay." + name[len(OVERLAY) :] if name.startswith(OVERLAY) else name

    # --- B.5 ----------------------------------------------------------------------------------------

    def split(self, name):
        for prefix, number in PREFIXES[: None if self.v2 else -1]:
            if name.startswith(prefix):
                return number, name[len(prefix) :]
        return 0, name

    def entry(self, pair):
        number, rest = self.split(pair[0])
        data = struct.pack("<BBH", len(rest), number, len(pair[1])) + rest + pair[1]
        return data.ljust(up(len(data), 4), b"\0")

    def share(self, inodes):
        counts = {}
        for inode in inodes:
            for pair in inode.pairs:
                counts[pair] = counts.get(pair, 0) + 1
        shared = [pair for pair, count in counts.items() if count > 1]
        if self.v2:
            return sorted(shared, key=lambda pair: (*self.split(pair[0]), pair[1]))
        return sorted(shared, key=lambda pair: (pair[0], len(pair[1]), pair[1]), reverse=True)

    def divide(self, inode, table):
        """Return an inode's shared and own pairs."""
        most = 255 if self.v2 else 128
        shared = [pair for pair in inode.pairs if pair in table][:most]
        return shared, [pair for pair in inode.pairs if pair not in shared]

    def xattr_bytes(self, inode, table, offsets):
        shared, own = self.divide(inode, table)
        if not inode.pairs:
            return b""
        bits = 0
        for name, _ in inode.pairs:
            number, rest = self.split(name)
            bits |= 1 << (xxhash.xxh32_intdigest(rest, 0x25BBE08F + number) & 31)
        head = struct.pack("<IB7x", bits ^ 0xFFFFFFFF, len(shared))
        references = b"".join(struct.pack("<I", offsets.get(pair, 0) // 4) for pair in shared)
        return head + references + b"".join(map(self.entry, own))

    # --- B.6 and B.8 --------------------------------------------------------------------------------

    def shape(self, inode):
        """Return type bits, size, layout, u, blocks and tail; of a directory the last two are lists of entries."""
        node = inode.node
        if isinstance(node, Directory):
            groups, sums = [[]], [0]
            for name, child in inode.entries:
                if sums[-1] + 12 + len(name) > BLOCK:
                    groups.append([])
                    sums.append(0)
                groups[-1].append((name, child))
                sums[-1] += 12 + len(name)
            tail = groups.pop() if sums[-1] <= BLOCK // 2 else []
            tail_size = sums[-1] if tail else 0
            return 0o040000, BLOCK * len(groups) + tail_size, 4 if tail else 0, 0, groups, tail, tail_size
        if isinstance(node, Symlink):
            return 0o120000, len(node.target), 4, 0, [], node.target, len(node.target)
        if isinstance(node, Special):
            kind = 0o100000 if inode.whiteout else KINDS[node.kind][0]
            device = node.rdev if node.kind in {SpecialKind.CHAR, SpecialKind.BLOCK} else 0
            return kind, 0, 0, device, [], b"", 0
        if node.data is None and node.size:
            return 0o100000, node.size, 8, *self.chunks(node)
        data = node.data or b""
        size = len(data) if self.v2 else len(data) % BLOCK
        size = size if self.v2 or size <= BLOCK // 2 else 0
        head, tail = data[: len(data) - size], data[len(data) - size :]
        blocks = [head[at : at + BLOCK] for at in range(0, len(head), BLOCK)]
        return 0o100000, len(data), 4 if tail else 0, 0, blocks, tail, len(tail)

    def chunks(self, node):
        if self.v2:
            tail = CHUNK if node.object is not None else b""
            return 31, [], tail, len(tail)
        bits = next((bits for bits in range(12, 43) if 1 << bits >= node.size), 43)
        tail = CHUNK * -(-node.size // (1 << bits))
        return bits - 12, [], tail, len(tail)

    def group(self, entries):
        heads, offset = b"", 12 * len(entries)
        for name, child in entries:
            heads += struct.pack("<QHBB", child.nid, offset, self.file_type(child), 0)
            offset += len(name)
        return heads + b"".join(name for name, _ in entries)

    @staticmethod
    def file_type(inode):
        node = inode.node
        if isinstance(node, Special) and not inode.whiteout:
            return KINDS[node.kind][1]
        return 2 if isinstance(node, Directory) else 7 if isinstance(node, Symlink) else 1

    # --- B.7 ----------------------------------------------------------------------------------------

    def place(self, position, meta, inode):
        """Return where *inode* stands; its shape is changed where the page says so."""
        kind, size, layout, u, _blocks, tail, t = inode.shape
        p = up(position, 32)
        if self.v2:
            if layout == 4 and (p + meta - 1) // BLOCK != (p + meta + t) // BLOCK:
                p = up(p + BLOCK - (p + meta - 1) % BLOCK, 32)
            return p
        if kind == 0o120000:
            if p // BLOCK != (p + meta + t - 1) // BLOCK:
                p = up(p, BLOCK)
            if meta + t >= BLOCK:
                inode.shape = kind, size, 0, u, [tail], b"", 0
        elif t:
            rest = BLOCK - (p + meta) % BLOCK
            d = up(rest, 32)
            if rest < t <= BLOCK - (p + meta + d) % BLOCK:
                p += d
            elif rest < t:
                inode.shape = kind, size, layout, u, [CHUNK * 1024], b"", 0
                p = up(p, BLOCK)
        return p

    def is_extended(self, inode, size, earliest):
        node = inode.node
        wide = max(self.links(inode), node.uid, node.gid) >> 16 or size >> 32
        return bool(self.v2 or wide or (node.mtime_sec, node.mtime_nsec) != earliest)

    @staticmethod
    def links(inode):
        return getattr(inode.node, "nlink", 0) or inode.links

    # --- B.2 ----------------------------------------------------------------------------------------

    def write(self, tree):
        """Return the image of *tree*."""
        root, _ = self.tree(tree, None, {}, is_root=True)
        inodes = self.order(root)
        for number, inode in enumerate(inodes):
            inode.number = number
            inode.pairs = self.xattrs(inode, is_root=inode is root)
            inode.shape = self.shape(inode)
        mask = (1 << 64) - 1 if self.version else -1
        key = (lambda time: (time[0] & mask, time[1])) if self.version else None
        earliest = min(((inode.node.mtime_sec, inode.node.mtime_nsec) for inode in inodes), key=key)
        table = self.table = self.share(inodes)
        at, blocks = 1152, []
        for inode in inodes:
            inode.extended = self.is_extended(inode, inode.shape[1], earliest)
            meta = (64 if inode.extended else 32) + len(self.xattr_bytes(inode, table, {}))
            start = self.place(at, meta, inode)
            inode.nid = start // 32
            if inode.shape[4]:
                inode.block = len(blocks)
                blocks += inode.shape[4]
            at = start + meta + inode.shape[6]
        end = up(at, 32)
        offsets, offset = {}, end if self.v2 else end % BLOCK
        for pair in table:
            offsets[pair] = offset
            offset += len(self.entry(pair))
        shared = b"".join(map(self.entry, table))
        first = up(end + len(shared), BLOCK) // BLOCK
        image = bytearray(first * BLOCK)
        for inode in inodes:
            data = self.inode(inode, first) + self.xattr_bytes(inode, table, offsets) + self.content(inode.shape[5])
            image[inode.nid * 32 : inode.nid * 32 + len(data)] = data
        image[end : end + len(shared)] = shared
        for block in blocks:
            image += self.content(block).ljust(BLOCK, b"\0")
        acl = {b"system.posix_acl_access", b"system.posix_acl_default"}
        flags = int(not self.v2 and any(name in acl for inode in inodes for name, _ in inode.pairs))
        image[:16] = struct.pack("<IIII", 0xD078629A, 1, flags, self.version)
        seconds, nanoseconds = (0, 0) if self.v2 else earliest
        numbers = (12, 0, root.nid, len(inodes), seconds, nanoseconds, len(image) // BLOCK, 0)
        superblock = struct.pack("<IIIBBHQqIII", 0xE0F5E1E2, 0, 6, *numbers)
        superblock += struct.pack("<I", 0 if self.v2 else end // BLOCK)
        image[1024 : 1024 + len(superblock)] = superblock
        return bytes(image)

    def content(self, part):
        return part if isinstance(part, bytes) else self.group(part)

    def inode(self, inode, first):
        node = inode.node
        kind, size, layout, u, blocks, _, _ = inode.shape
        if blocks:
            block = first + inode.block
            u = block & 0xFFFF0000 | u if layout == 8 else block
        number = inode.nid if self.v2 else inode.number
        length = len(self.xattr_bytes(inode, self.table, {}))
        count = 1 + (length - 12) // 4 if length else 0
        mode, links = kind | node.mode, self.links(inode)
        if not inode.extended:
            fields = (layout, count, mode, links, size, 0, u, number, node.uid, node.gid, 0)
            return struct.pack("<HHHHIIIIHHI", *fields)
        nanoseconds = 0 if self.v2 else node.mtime_nsec
        fields = (layout | 1, count, mode, 0, size, u, number, node.uid, node.gid, node.mtime_sec, nanoseconds, links)
        return struct.pack("<HHHHQIIIIqII16x", *fields)
