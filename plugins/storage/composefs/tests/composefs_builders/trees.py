"""Random trees with everything that images may hold, borders of the formats included; the same seed, the same tree."""

import random

from cfs_core.plugin import Directory, ObjectId, RegularFile, Special, SpecialKind, Symlink

NAMES = [
    b"-",
    b"+x",
    b"!",
    b"-a",
    b".hidden",
    b"...",
    b"..a",
    b".-",
    b"a b",
    b"tab\there",
    b"new\nline",
    b"back\\slash",
    b"=",
    b"\xff\xfe",
]
NAMES += [b"\x01", b"z" * 255, b"\xc3\xa4" * 127, b"x" * 244, b"*", b"\\x41", b"00", b"7f", b"ff", b"usr", b"\r"]
MTIMES = [
    (0, 0),
    (1, 0),
    (1, 1),
    (1_700_000_000, 0),
    (1_700_000_000, 123_456_789),
    (1_700_000_000, 999_999_999),
    (4_294_967_296, 5),
]
XATTR_NAMES = [
    b"security.selinux",
    b"security.capability",
    b"user.foo",
    b"user.bar",
    b"user.",
    b"user.zzz",
    b"user.overlay.opaque",
    b"user.overlay.whiteout",
    b"trusted.a",
    b"trusted.overlay.opaque",
    b"trusted.overlay.metacopy",
    b"trusted.overlay.n",
    b"trusted.overlay.redirect",
    b"trusted.overlay.whiteouts",
    b"trusted.overlay.overlay.x",
    b"trusted.zz",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"system.posix_acl_accessory",
    b"lustre.lov",
    b"other",
    b"trusted",
    b"user." + b"n" * 250,
]
MARKS = tuple(
    b"%b.overlay.%b" % (kind, name) for kind in (b"trusted", b"user") for name in (b"whiteout", b"whiteouts", b"opaque")
)
VALUES = [
    b"",
    b"x",
    b"y",
    b"-",
    b"a=b c",
    b"\x00\x01",
    b"system_u:object_r:usr_t:s0",
    b"v" * 20,
    b"v" * 300,
    bytes(range(256)),
]
SIZES = [
    65,
    4095,
    4096,
    4097,
    8191,
    8192,
    65535,
    65536,
    1 << 20,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    (1 << 43),
    (1 << 43) + 1,
    1 << 44,
]
INLINE = [0, 1, 2, 63, 64]
LONG_INLINE = [65, 2047, 2048, 2049, 4095, 4096, 4097, 4999, 5000]
TARGETS = [1, 10, 100, 1000, 1024, 2000, 4000, 4030, 4031, 4032, 4033, 4063, 4064, 4065, 4095]
RDEVS = [0, 1, 0x103, 0x0801, 0xFFFFFFFF, 0x12345678]
IDS = [0, 0, 0, 1000, 65535, 65536, 4294967295]


class TreeMaker:
    """Makes one tree. ``strict`` keeps to what all versions and all implementations can hold."""

    def __init__(self, seed, *, hash_size=32, strict=False, entries=60):
        self.random = random.Random(seed)
        self.hash_size = hash_size
        self.strict = strict
        self.entries = entries
        self.objects = [self.object() for _ in range(3)]
        self.sets = [self.xattrs() for _ in range(4)] + [()]
        self.leaves = []

    def pick(self, items):
        return items[self.random.randrange(len(items))]

    def object(self):
        return ObjectId(self.random.randbytes(self.hash_size).hex())

    def xattrs(self):
        chosen = {}
        for _ in range(self.random.randrange(6)):
            name = self.pick(XATTR_NAMES)
            value = (
                self.pick(VALUES) if self.random.random() < 0.7 else self.random.randbytes(self.random.randrange(40))
            )
            if self.strict and name.startswith((b"user.overlay.", b"system.posix_acl_accessory")):
                continue  # known disagreements between C and composefs-rs
            chosen[name] = value
        return tuple(sorted(chosen.items()))

    def metadata(self):
        mode = self.pick([0o644, 0o755, 0o4755, 0o7777, 0, 0o600])
        common = self.random.random() < 0.6
        seconds, nanoseconds = MTIMES[3] if common else self.pick(MTIMES)
        xattrs = self.pick(self.sets) if self.random.random() < 0.8 else self.xattrs()
        return mode, self.pick(IDS), self.pick(IDS), seconds, nanoseconds, xattrs

    def regular(self):
        file = RegularFile(*self.metadata())
        choice = self.random.random()
        if choice < 0.35:
            lengths = INLINE if self.strict or choice < 0.25 else LONG_INLINE
            file.size = self.pick(lengths)
            file.data = self.random.randbytes(file.size)
        else:
            file.size = self.pick(SIZES) if self.random.random() < 0.4 else self.random.randrange(65, 1 << 24)
            if choice < 0.45 and not self.strict:
                if choice < 0.42:
                    file.path = b"some/place-%d" % self.random.randrange(3)
            else:
                file.object = self.pick(self.objects) if self.random.random() < 0.3 else self.object()
        return file

    def leaf(self):
        if self.leaves and self.random.random() < 0.1:
            return self.pick(self.leaves)
        choice = self.random.random()
        if choice < 0.65:
            leaf = self.regular()
        elif choice < 0.8:
            length = self.pick(TARGETS) if self.random.random() < 0.3 else self.random.randrange(1, 60)
            if self.strict:
                length = min(length, 1024)
            leaf = Symlink(*self.metadata(), self.random.randbytes(length).replace(b"\0", b"0"))
        else:
            kind = self.pick(list(SpecialKind))
            rdev = self.pick(RDEVS) if kind in {SpecialKind.CHAR, SpecialKind.BLOCK} else 0
            leaf = Special(*self.metadata(), kind, rdev)
            if rdev == 0 and kind is SpecialKind.CHAR:
                return leaf  # implementations differ about whiteouts with several names
        self.leaves.append(leaf)
        return leaf

    def name(self):
        if self.random.random() < 0.3:
            return self.pick(NAMES)
        length = self.random.choice([1, 2, 3, 8, 8, 8, 20, 60])
        return bytes(self.random.choice(b"abcdefghijklmnopqrstuvwxyz0123456789._-+\x80\xe9~ ") for _ in range(length))

    def directory(self, depth):
        directory = Directory(*self.metadata())
        count = self.random.randrange(12)
        if self.random.random() < 0.1:
            count = self.random.choice([40, 150, 300, 341])
        for number in range(count):
            name = self.name() if count < 40 else b"entry%d" % number
            if name in {b".", b".."}:
                continue
            self.entries -= 1
            nested = depth < 5 and self.entries > 0 and self.random.random() < 0.3
            directory.entries[name] = self.directory(depth + 1) if nested else self.leaf()
        without_clashes(directory)
        return directory

    def tree(self):
        """Return the tree."""
        root = self.directory(0)
        while len(root.entries) < 4:
            root.entries[self.name().replace(b".", b"x")] = self.directory(1)
        return root


def is_whiteout(node):
    return isinstance(node, Special) and node.kind is SpecialKind.CHAR and node.rdev == 0


def without_clashes(directory):
    """Leave out attributes that the writer adds for removed files: C's accounting of sizes often fails on them."""
    removed = [node for node in directory.entries.values() if is_whiteout(node)]
    for node in [*removed, directory] if removed else []:
        node.xattrs = tuple(pair for pair in node.xattrs if pair[0] not in MARKS)


def random_tree(seed, **options):
    """Return the tree of *seed*."""
    return TreeMaker(seed, **options).tree()
