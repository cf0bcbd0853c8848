"""fs-verity digests as the kernel computes them (fs/verity/, 4096-byte blocks, no salt), and the kernel's ioctls."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import HashAlgorithm, StorageError, hash_blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

BLOCK = 4096
"""Size of data and tree blocks in bytes."""

_READ = 256 * 1024
_HASHES: dict[HashAlgorithm, Callable[..., _Hash]] = {
    HashAlgorithm.SHA256: hashlib.sha256,
    HashAlgorithm.SHA512: hashlib.sha512,
}
_KERNEL_IDS = {HashAlgorithm.SHA256: 1, HashAlgorithm.SHA512: 2}  # include/uapi/linux/fsverity.h
_ALGORITHMS = {number: algorithm for algorithm, number in _KERNEL_IDS.items()}
# No salt: objects are named by a digest that everybody computes alike. No built-in signature, and reserved zeros.
_DESCRIPTOR_TAIL = bytes(32 + 144)
# An empty file has no block, so nothing is hashed: the kernel leaves its root hash zero.
EMPTY_ROOT = bytes(64)
DESCRIPTOR_SIZE = 256
"""Bytes of a descriptor, which is what a file's digest is the hash of."""

FS_IOC_ENABLE_VERITY = 0x40806685
FS_IOC_MEASURE_VERITY = 0xC0046686


class VerityUnsupportedError(StorageError):
    """The filesystem (or this kernel) has no fs-verity, or not with this hash."""

    code = "storage.verity-unsupported"


class VerityBusyError(StorageError):
    """Somebody has the file open for writing, so that it cannot be sealed."""

    code = "storage.verity-busy"


def kernel_id(algorithm: HashAlgorithm) -> int:
    """Return the number of *algorithm* in fs-verity descriptors and metacopy attributes: 1 or 2."""
    return _KERNEL_IDS[algorithm]


def descriptor(size: int, root: bytes, algorithm: HashAlgorithm) -> bytes:
    """Return the 256-byte descriptor of a file of *size* bytes (struct fsverity_descriptor without signature)."""
    head = struct.pack("<BBBBIQ", 1, _KERNEL_IDS[algorithm], 12, 0, 0, size)
    return head + root.ljust(64, b"\0") + _DESCRIPTOR_TAIL


def digest_bytes(data: bytes | memoryview, algorithm: HashAlgorithm) -> bytes:
    """Return the fs-verity digest of *data*: 32 or 64 bytes."""
    new = _HASHES[algorithm]
    size = len(data)
    if size > BLOCK:
        level = hash_blocks(data, algorithm)
        while len(level) > algorithm.size:
            level = hash_blocks(level, algorithm)
        root = level
    elif size == BLOCK:
        root = new(data).digest()
    elif size:
        root = new(bytes(data).ljust(BLOCK, b"\0")).digest()
    else:
        root = EMPTY_ROOT
    return new(descriptor(size, root, algorithm)).digest()


class Digester:
    """Streaming digest. Memory: one partial block for the data and one for each tree level."""

    __slots__ = ("_algorithm", "_levels", "_new", "_partial", "_size")

    def __init__(self, algorithm: HashAlgorithm) -> None:
        self._algorithm = algorithm
        self._new = _HASHES[algorithm]
        self._partial = b""
        self._levels: list[bytearray] = [bytearray()]
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes seen so far."""
        return self._size

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Add *chunk*; chunks of a multiple of 4096 bytes cost no copy."""
        view = memoryview(chunk)
        self._size += len(view)
        if self._partial:
            missing = BLOCK - len(self._partial)
            self._partial += view[:missing]
            if len(self._partial) < BLOCK:
                return
            self._levels[0] += self._new(self._partial).digest()
            self._partial = b""
            view = view[missing:]
        whole = len(view) - len(view) % BLOCK
        if whole:
            self._levels[0] += hash_blocks(view[:whole], self._algorithm)
        if whole < len(view):
            self._partial = bytes(view[whole:])
        if len(self._levels[0]) >= BLOCK:
            self._fold()

    def _fold(self) -> None:
        """Hash every complete block of each level into the level above."""
        depth = 0
        while depth < len(self._levels) and len(self._levels[depth]) >= BLOCK:
            level = self._levels[depth]
            whole = len(level) - len(level) % BLOCK
            folded = hash_blocks(bytes(level[:whole]), self._algorithm)
            del level[:whole]
            depth += 1
            if depth == len(self._levels):
                self._levels.append(bytearray())
            self._levels[depth] += folded

    def digest(self) -> bytes:
        """Return the digest of everything seen so far; more may follow."""
        return self._new(descriptor(self._size, self._root(), self._algorithm)).digest()

    def _root(self) -> bytes:
        if not self._size:
            return EMPTY_ROOT
        pending = bytes(self._levels[0])
        if self._partial:
            pending += self._new(self._partial.ljust(BLOCK, b"\0")).digest()
        for level in self._levels[1:]:
            pending = bytes(level) + hash_blocks(pending, self._algorithm)
        while len(pending) > self._algorithm.size:
            pending = hash_blocks(pending, self._algorithm)
        return pending


def digest_file(file: int | str | bytes | os.PathLike[str], algorithm: HashAlgorithm) -> bytes:
    """Return the digest of a regular file, given as descriptor (read from offset 0, position untouched) or path.

    Raises:
        OSError: it cannot be read; callers know what the file is for and say so.
    """
    if not isinstance(file, int):
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return digest_file(fd, algorithm)
        finally:
            os.close(fd)
    digester = Digester(algorithm)
    buffer = bytearray(_READ)
    view = memoryview(buffer)
    offset = 0
    filled = 0
    while count := os.preadv(file, [view[filled:]], offset):
        offset += count
        filled += count
        if filled == _READ:
            digester.update(view)
            filled = 0
    digester.update(view[:filled])
    return digester.digest()


def measure(fd: int) -> tuple[HashAlgorithm, bytes] | None:
    """Ask the kernel for the digest that it enforces on an open file; None if verity is off or unknown there.

    Raises:
        StorageError: the kernel answers with something else, or uses a hash we do not know.
    """
    buffer = bytearray(struct.pack("<HH", 0, 64) + bytes(64))
    try:
        fcntl.ioctl(fd, FS_IOC_MEASURE_VERITY, buffer)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL}:
            return None
        msg = f"the kernel cannot measure fs-verity of {_name_of(fd)}: {error.strerror}"
        raise StorageError(msg, hint="check the filesystem and the kernel log") from error
    number, size = struct.unpack_from("<HH", buffer)
    algorithm = _ALGORITHMS.get(number)
    if algorithm is None or size != algorithm.size:
        msg = f"{_name_of(fd)} is sealed with fs-verity hash number {number} ({size} bytes)"
        raise StorageError(msg, hint="composefs knows sha256 (1) and sha512 (2)")
    return algorithm, bytes(buffer[4 : 4 + size])


def enable(fd: int, algorithm: HashAlgorithm) -> None:
    """Seal a file that is open read-only and nowhere for writing. Already sealed is fine: `measure` tells with what.

    Raises:
        VerityUnsupportedError: this filesystem cannot.
        VerityBusyError: it is open for writing somewhere.
        StorageError: no space for the tree, no permission, damaged filesystem.
    """
    argument = struct.pack("<IIIIQIIQ11Q", 1, _KERNEL_IDS[algorithm], BLOCK, 0, 0, 0, 0, 0, *(0,) * 11)
    try:
        fcntl.ioctl(fd, FS_IOC_ENABLE_VERITY, argument)
    except OSError as error:
        # Two importers of one object may both get here; what it is sealed with is measured afterwards in any case.
        if error.errno == errno.EEXIST:
            return
        if error.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOPKG, errno.EINVAL}:
            msg = f"no fs-verity ({algorithm.value}) on the filesystem of {_name_of(fd)}"
            hint = "use ext4 with the verity feature (tune2fs -O verity) or btrfs, or go without enforcement"
            raise VerityUnsupportedError(msg, hint=hint) from error
        if error.errno == errno.ETXTBSY:
            msg = f"{_name_of(fd)} is open for writing and cannot be sealed"
            raise VerityBusyError(msg, hint="close it in every process first") from error
        msg = f"fs-verity cannot be enabled on {_name_of(fd)}: {error.strerror}"
        raise StorageError(msg, hint="check free space and permissions of the filesystem") from error


def _name_of(fd: int) -> str:
    """Name an open file for a message."""
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        kind = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        return f"{kind} descriptor {fd}"
