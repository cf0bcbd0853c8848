"""Random directories on disk: what the running user may make of all file types, attributes, owners and times."""

# ruff: noqa: PTH101, PTH102, PTH123, PTH211 - names are raw bytes, which pathlib does not take

import contextlib
import os
import random
import stat

NAMES = [b"-", b"a", b".x", b"..b", b"sp ace", b"nl\n", b"\xff\xfe", b"q" * 250]
TIMES = [1_700_000_000 * 10**9, 1_600_000_000 * 10**9 + 123_456_789, 10**9, 5]
XATTRS = ["user.a", "security.capability", "security.selinux", "trusted.overlay.q", "trusted.x"]
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
SIZES = [0, 1, 63, 64, 65, 4095, 4096, 4097, 9000, 300_000]
TOP = [b"usr", b"boot", b"sysroot", b"run", b"etc", b"var"]


class DirectoryMaker:
    """Fills one directory."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.files = []

    def fill(self, folder, depth):
        for number in range(self.random.randrange(3, 12)):
            path = folder + b"/" + self.random.choice(NAMES) + b"%d" % number
            with contextlib.suppress(PermissionError):
                self.make(path, depth)
                self.decorate(path)

    def make(self, path, depth):
        choice = self.random.random()
        if choice < 0.25 and depth < 4:
            os.mkdir(path)
            self.fill(path, depth + 1)
        elif choice < 0.35:
            os.symlink(bytes(self.random.choice(b"abc/.") for _ in range(self.random.randrange(1, 80))), path)
        elif choice < 0.40:
            os.mkfifo(path)
        elif choice < 0.45:
            device = os.makedev(self.random.choice([0, 1, 300, 4095]), self.random.choice([0, 3, 300, 1048575]))
            os.mknod(path, 0o644 | stat.S_IFCHR, device)
        elif choice < 0.48:
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(8, 1))
        elif choice < 0.50:
            os.mknod(path, 0o600 | stat.S_IFSOCK)
        elif choice < 0.6 and self.files:
            os.link(self.random.choice(self.files), path, follow_symlinks=False)
        else:
            with open(path, "wb") as file:
                file.write(self.random.randbytes(self.random.choice(SIZES)))
            os.chmod(path, self.random.choice([0o644, 0o755, 0o4755, 0o600]))
            self.files.append(path)

    def decorate(self, path):
        if self.random.random() < 0.3:
            owner = self.random.choice([0, 1000, 70000]), self.random.choice([0, 5, 65536])
            with contextlib.suppress(OSError):
                os.chown(path, *owner, follow_symlinks=False)
        for name in XATTRS:
            if self.random.random() < 0.12:
                value = (
                    CAPABILITY if name == "security.capability" else self.random.choice([b"x", b"u:r:t:s0", b"\0" * 20])
                )
                with contextlib.suppress(OSError):
                    os.setxattr(path, name, value, follow_symlinks=False)


def random_directory(path, seed):
    """Make *path*, a system's directories included."""
    top = os.fsencode(path)
    os.mkdir(top)
    maker = DirectoryMaker(seed)
    for name in TOP:
        os.mkdir(top + b"/" + name)
        maker.fill(top + b"/" + name, 1)
    maker.fill(top, 2)
    for folder, directories, files in os.walk(top, topdown=False):
        for name in directories + files:
            if maker.random.random() < 0.8:
                time = maker.random.choice(TIMES)
                os.utime(folder + b"/" + name, ns=(time, time), follow_symlinks=False)
