"""Reads a directory as it is on disk: metadata, extended attributes, links, and the identity of all content."""

from __future__ import annotations

import functools
import os
import stat
from typing import TYPE_CHECKING

from cfs_core.plugin import (
    Directory,
    HashAlgorithm,
    ImageError,
    Leaf,
    ObjectId,
    RegularFile,
    Special,
    SpecialKind,
    Symlink,
)
from cfs_storage_composefs.digest_batch import DigestBatch
from cfs_storage_composefs.fsverity import Digester

if TYPE_CHECKING:
    from cfs_core.plugin import Xattrs

INLINE_MAX = 64
"""Bytes; longer content is an object (formats B.1). Part of the format, since it decides identities."""

_SMALL = 256 * 1024
_DEPTH_MAX = 400  # a descriptor for each level is open
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFCHR: SpecialKind.CHAR,
    stat.S_IFBLK: SpecialKind.BLOCK,
    stat.S_IFIFO: SpecialKind.FIFO,
    stat.S_IFSOCK: SpecialKind.SOCKET,
}


def scan_directory(path: str | os.PathLike[str], algorithm: HashAlgorithm) -> Directory:
    """Read the tree below *path*. Contents are read once and not kept, up to 64 bytes apart.

    Raises:
        ImageError: something is unreadable, vanished or changed while it was read; the message names it.
    """
    top = os.fsencode(os.fspath(path))
    scanner = _Scanner(top, algorithm)
    try:
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(top, error) from error
    try:
        tree = scanner.directory(fd, b"", 0)
        scanner.batch.flush()
    finally:
        os.close(fd)
    return tree


def _unreadable(path: bytes, error: OSError) -> ImageError:
    msg = f"cannot read {os.fsdecode(path)}: {error.strerror}"
    return ImageError(msg, hint="the tree must be readable and must not change while it is read")


class _Scanner:
    def __init__(self, top: bytes, algorithm: HashAlgorithm) -> None:
        self.top = top
        self.algorithm = algorithm
        self.links: dict[tuple[int, int], Leaf] = {}
        self.xattrs: dict[Xattrs, Xattrs] = {(): ()}
        self.buffer = bytearray(_SMALL)
        self.view = memoryview(self.buffer)
        self.batch = DigestBatch(algorithm)

    def directory(self, fd: int, path: bytes, depth: int) -> Directory:
        """Read the open directory *fd*, which is at *path* below the top."""
        if depth > _DEPTH_MAX:
            msg = f"{os.fsdecode(self.top + path)} is more than {_DEPTH_MAX} directories deep"
            raise ImageError(msg, hint="no image needs that")
        here = path
        try:
            before = os.fstat(fd)
            directory = Directory(*self._metadata(before, fd))
            with os.scandir(fd) as entries:
                listed = [
                    (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
                    for entry in entries
                ]
            for name, is_directory, is_file in listed:
                here = path + b"/" + name
                if is_directory:
                    child = os.open(name, _DIRECTORY_FLAGS, dir_fd=fd)
                    try:
                        directory.entries[name] = self.directory(child, here, depth + 1)
                    finally:
                        os.close(child)
                elif is_file:
                    directory.entries[name] = self._file(fd, name, here)
                else:
                    directory.entries[name] = self._other(fd, name, here)
            here = path
            after = os.fstat(fd)
        except OSError as error:
            raise _unreadable(self.top + here, error) from error
        if (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns):
            raise self._changed(path)
        return directory

    def _file(self, directory: int, name: bytes, path: bytes) -> Leaf:
        fd = os.open(name, _FILE_FLAGS, dir_fd=directory)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise self._changed(path)
            if status.st_nlink > 1:
                known = self.links.get((status.st_dev, status.st_ino))
                if known is not None:
                    return known
            file = RegularFile(*self._metadata(status, fd))
            self._content(fd, status, file, path)
        finally:
            os.close(fd)
        if status.st_nlink > 1:
            self.links[status.st_dev, status.st_ino] = file
        return file

    def _content(self, fd: int, status: os.stat_result, file: RegularFile, path: bytes) -> None:
        size = file.size = status.st_size
        if size < _SMALL:
            slot = self.batch.slot(size + 1)  # one more: whatever is behind the end it had is a change
            count = os.readv(fd, [slot])
            if count <= INLINE_MAX:
                file.data = bytes(slot[:count])
            else:
                self.batch.add(count, functools.partial(_identify, file))
        else:
            count = 0
            digester = Digester(self.algorithm)
            while got := os.readv(fd, [self.buffer]):
                digester.update(self.view[:got])
                count += got
            file.object = ObjectId(digester.digest().hex())
        after = os.fstat(fd)
        if count != size or after.st_mtime_ns != status.st_mtime_ns or after.st_ctime_ns != status.st_ctime_ns:
            raise self._changed(path)

    def _other(self, directory: int, name: bytes, path: bytes) -> Leaf:
        """Read a link or special file."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self.links:
            return self.links[key]
        metadata = self._metadata(status, b"/proc/self/fd/%d/%b" % (directory, name))
        leaf: Leaf
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            leaf = Symlink(*metadata, os.readlink(name, dir_fd=directory))
        elif kind in _KINDS:
            leaf = Special(
                *metadata, _KINDS[kind], _encode_device(status.st_rdev) if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0
            )
        else:
            raise self._changed(path)
        if status.st_nlink > 1:
            self.links[key] = leaf
        return leaf

    def _metadata(self, status: os.stat_result, file: int | bytes) -> tuple[int, int, int, int, int, Xattrs]:
        seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, seconds, nanoseconds, self._xattrs(file)

    def _xattrs(self, file: int | bytes) -> Xattrs:
        follow = isinstance(file, int)
        names = os.listxattr(file, follow_symlinks=follow)
        if not names:
            return ()
        xattrs = tuple(sorted((os.fsencode(name), os.getxattr(file, name, follow_symlinks=follow)) for name in names))
        return self.xattrs.setdefault(xattrs, xattrs)

    def _changed(self, path: bytes) -> ImageError:
        msg = f"{os.fsdecode(self.top + path)} changed while it was read"
        return ImageError(msg, hint="read a tree that nobody writes to: a snapshot, an unpacked image")


def _identify(file: RegularFile, digest: bytes) -> None:
    file.object = ObjectId(digest.hex())


def _encode_device(number: int) -> int:
    """Return a device number as the kernel's new_encode_dev does: 12 bits major, 20 bits minor."""
    major, minor = os.major(number), os.minor(number)
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF & 0xFFFFF) << 12
