"""The object store: content named by its fs-verity digest, written once and never changed (formats D.1, D.4)."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
import time
from typing import TYPE_CHECKING

from cfs_core.plugin import ChangedError, StorageError
from cfs_storage_composefs.errors import DamagedError, MissingError
from cfs_storage_composefs.fsverity import Digester, VerityBusyError, digest_bytes, digest_file
from cfs_storage_composefs.linux import entries, link_open_file
from cfs_storage_composefs.objects.copying import Copier
from cfs_storage_composefs.objects.names import object_path
from cfs_storage_composefs.objects.stored import Checker, ObjectContent, open_object, open_stored
from cfs_storage_composefs.objects.temporary import TemporaryFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cfs_core.plugin import Content, HashAlgorithm, SourceFile
    from cfs_storage_composefs.objects.names import Sealer

TEMPORARY_PREFIX = ".tmp-object-"
"""Names in objects/ that garbage collectors leave alone and that we remove when nobody else is there."""

_MODE = 0o644
# Together a second: a child inherits every descriptor between fork and exec, and exec closes them.
_BUSY_ATTEMPTS = 50
_BUSY_PAUSE_SECONDS = 0.02
_COPY_BYTES = 1 << 20


class ObjectStore:
    """Objects below one directory. Safe for several threads; several processes may add at the same time.

    Nothing is synced here: call `linux.syncfs` before anything refers to new objects. ``bytes_added`` counts the
    content of new objects.
    """

    def __init__(self, directory: int, path: Path, algorithm: HashAlgorithm, sealer: Sealer | None) -> None:
        self.algorithm = algorithm
        self._directory = directory
        self._path = path
        self._sealer = sealer
        self._lock = threading.Lock()
        self._found: dict[int, set[bytes]] = {}
        self._trusted: set[bytes] = set()
        self._checker = Checker(algorithm)
        self._unnamed = True
        self._empty_path = True
        self._mode_is_right: bool | None = None
        self.bytes_added = 0
        self.copier = Copier()

    # --- reading ------------------------------------------------------------------------------

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._trusted or digest in self._shard(digest[0])

    def adopt(self, created: Iterable[bytes], size: int) -> None:
        """Take objects of *size* bytes in all that a process of this run has written for this store's own."""
        with self._lock:
            self.bytes_added += size
            for digest in created:
                if digest[0] in self._found:
                    self._found[digest[0]].add(digest)
                self._trusted.add(digest)

    def forget(self) -> None:
        """Drop what is remembered about the directory: others may have removed objects."""
        with self._lock:
            self._found.clear()
            self._trusted.clear()

    def content(self, digest: bytes) -> Content:
        """Return an object's content; opening it checks that its bytes have the digest.

        Raises:
            MissingError: no such object.
        """
        return self._content(digest, checked=True)

    def unchecked(self, digest: bytes) -> Content:
        """Return an object's content for a copy that is checked itself.

        Raises:
            MissingError: no such object.
        """
        return self._content(digest, checked=False)

    def is_intact(self, digest: bytes) -> bool:
        """Return whether an object is there and its bytes have its digest. One that does not is written anew by `put`.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            os.close(self._open(digest, checked=True))
        except (MissingError, DamagedError):
            self._trusted.discard(digest)
            return False
        return True

    def _content(self, digest: bytes, *, checked: bool) -> Content:
        fd = self._open(digest, checked=False)
        try:
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        return ObjectContent(self._path / object_path(digest), size, lambda: self._open(digest, checked=checked))

    def _open(self, digest: bytes, *, checked: bool) -> int:
        return open_stored(self._path, digest, self._checker if checked else None)

    def names(self) -> Iterator[bytes]:
        """Yield the digest of every object on disk."""
        for shard in range(256):
            yield from sorted(self._scan(shard))

    def size(self, digest: bytes) -> int | None:
        """Return an object's size in bytes, None if it is not there."""
        try:
            found = os.stat(object_path(digest), dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def remove(self, digest: bytes) -> None:
        """Remove an object; only under the exclusive lock. Missing is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(object_path(digest), dir_fd=self._directory)
        self._trusted.discard(digest)
        if digest[0] in self._found:
            self._found[digest[0]].discard(digest)

    def remove_temporary(self) -> int:
        """Remove what killed writers left; only under the exclusive lock. Returns how many files went."""
        count = 0
        for name in entries(self._directory):
            if name.startswith(TEMPORARY_PREFIX):
                os.unlink(name, dir_fd=self._directory)
                count += 1
        return count

    def _shard(self, number: int) -> set[bytes]:
        found = self._found.get(number)
        if found is None:
            with self._lock:
                found = self._found.get(number)
                if found is None:
                    found = self._found[number] = set(self._scan(number))
        return found

    def _scan(self, number: int) -> Iterator[bytes]:
        size = self.algorithm.size - 1
        first = bytes([number])
        for name in self._listed(f"{number:02x}"):
            with contextlib.suppress(ValueError):
                rest = bytes.fromhex(name)
                if len(rest) == size and rest.hex() == name:
                    yield first + rest

    def _listed(self, shard: str) -> list[str]:
        try:
            fd = os.open(shard, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._directory)
        except FileNotFoundError:
            return []
        try:
            return entries(fd)
        finally:
            os.close(fd)

    # --- writing ------------------------------------------------------------------------------

    def put(
        self,
        data: bytes,
        created: list[bytes],
        *,
        keep: bool = True,  # noqa: ARG002 - of the protocol
        source: SourceFile | None = None,
        digest: bytes | None = None,
    ) -> bytes:
        """Store *data* and return its digest; what was not there before is added to *created*.

        *source* is an open file with just this content: its blocks are shared or copied where that works. *digest* is
        that of *data*, where it was hashed together with others.

        Raises:
            OSError: it could not be written.
            StorageError: it could not be sealed.
        """
        if digest is None:
            digest = digest_bytes(data, self.algorithm)
        if digest not in self._trusted and not self._has_intact(digest, len(data)):
            # a file made beside its later neighbours is cheaper: ext4 looks for its inode near the directory
            temporary = self.temporary(f"{digest[0]:02x}")
            try:
                if source is None or not self._fill(temporary, source):
                    temporary.write(data)
                self._name(temporary, digest, len(data), created)
            finally:
                temporary.close()
        return digest

    def _fill(self, temporary: TemporaryFile, source: SourceFile) -> bool:
        """Take the content from *source*; returns False, and leaves the file empty, if it may be another one by now."""
        fd = temporary.fd
        if (self.copier.clone(source, fd) or self.copier.copy(source, fd, 0, source.size)) and source.unchanged():
            return True
        os.ftruncate(fd, 0)
        return False

    def writer(self, *, keep: bool = True, source: SourceFile | None = None) -> ObjectWriter:  # noqa: ARG002 - of the protocol
        """Begin an object whose content comes in pieces; all of them together are the content of *source*."""
        return ObjectWriter(self, source)

    def temporary(self, near: str = ".") -> TemporaryFile:
        """Open a file without a name (or with a temporary one in objects/, where the filesystem cannot).

        Raises:
            OSError: as the kernel says.
        """
        if self._unnamed:
            # A file without a name is gone with its process: a killed import leaves nothing to clean up.
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            try:
                try:
                    fd = os.open(near, flags, _MODE, dir_fd=self._directory)
                except FileNotFoundError:
                    self._make_shard(near)
                    fd = os.open(near, flags, _MODE, dir_fd=self._directory)
                return self._opened(fd, None)
            except OSError as error:
                if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}:
                    raise
                self._unnamed = False
        name = TEMPORARY_PREFIX + secrets.token_hex(8)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        return self._opened(os.open(name, flags, _MODE, dir_fd=self._directory), name)

    def _opened(self, fd: int, name: str | None) -> TemporaryFile:
        if self._mode_is_right is None:
            self._mode_is_right = stat.S_IMODE(os.fstat(fd).st_mode) == _MODE
        if not self._mode_is_right:
            os.fchmod(fd, _MODE)
        return TemporaryFile(self._directory, fd, name)

    def publish(self, temporary: TemporaryFile, digest: bytes, size: int, created: list[bytes]) -> None:
        """Name a finished temporary file, unless the object is there already.

        Raises:
            OSError, StorageError: as for `put`.
        """
        if digest not in self._trusted and not self._has_intact(digest, size):
            self._name(temporary, digest, size, created)

    # Sealed objects are measured: the kernel has checked nothing of a file that a crash left without its seal, and a
    # repository that promises enforcement must not hand it out. Others are read: somebody may have changed them.
    def _has_intact(self, digest: bytes, size: int) -> bool:
        """Whether an object from before can be used as it is: a crash may have left one empty or unsealed."""
        if digest not in self._shard(digest[0]):
            return False
        try:
            fd = open_object(self._directory, object_path(digest))
        except OSError:
            return False
        try:
            if self._sealer is None:
                intact = os.fstat(fd).st_size == size and self._checker.is_intact(fd, digest)
            else:
                intact = self._sealer.measure(fd) == digest
        except OSError:
            return False
        finally:
            os.close(fd)
        if intact:
            self._trusted.add(digest)
        return intact

    def _name(self, temporary: TemporaryFile, digest: bytes, size: int, created: list[bytes]) -> None:
        if self._sealer is not None:
            self._seal(self._sealer, temporary, digest)
        path = object_path(digest)
        if not self._link(temporary, path, digest):
            # somebody was quicker, or what is there is from before a crash
            if digest in self._trusted or self._has_intact_now(digest, size):
                return
            self._replace(temporary, path)
        created.append(digest)
        with self._lock:
            self.bytes_added += size
        self._shard(digest[0]).add(digest)
        self._trusted.add(digest)

    def _has_intact_now(self, digest: bytes, size: int) -> bool:
        self._shard(digest[0]).add(digest)
        return self._has_intact(digest, size)

    def _seal(self, sealer: Sealer, temporary: TemporaryFile, digest: bytes) -> None:
        for attempt in range(_BUSY_ATTEMPTS):
            temporary.reopen_read_only()
            try:
                sealer.seal(temporary.fd)
                break
            except VerityBusyError:
                # a child that another thread has just forked still holds the writable descriptor
                if attempt + 1 == _BUSY_ATTEMPTS:
                    raise
                time.sleep(_BUSY_PAUSE_SECONDS)
        if sealer.measure(temporary.fd) != digest:
            msg = f"the kernel's fs-verity digest of a new object is not {digest.hex()}"
            raise DamagedError(msg, hint="the data changed on its way to the disk; check memory and disk")

    def _link(self, temporary: TemporaryFile, path: str, digest: bytes) -> bool:
        """Link without replacing. Returns False if the name exists."""
        for _ in range(2):
            try:
                self._link_once(temporary, path)
            except FileExistsError:
                return False
            except FileNotFoundError:
                self._make_shard(f"{digest[0]:02x}")
            else:
                return True
        msg = f"object {digest.hex()} cannot be linked into the repository"
        raise StorageError(msg, hint="somebody removes its directory at the same time")

    def _make_shard(self, name: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=self._directory)

    def _link_once(self, temporary: TemporaryFile, path: str) -> None:
        if temporary.name is not None:
            os.link(temporary.name, path, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            return
        if self._empty_path:
            try:
                link_open_file(temporary.fd, self._directory, path)
            # AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH before Linux 6.10, and the kernel says ENOENT to those without.
            except FileNotFoundError:
                # no directory, or not allowed to: the next way tells
                os.link(f"/proc/self/fd/{temporary.fd}", path, dst_dir_fd=self._directory, follow_symlinks=True)
                self._empty_path = False
            return
        os.link(f"/proc/self/fd/{temporary.fd}", path, dst_dir_fd=self._directory, follow_symlinks=True)

    def _replace(self, temporary: TemporaryFile, path: str) -> None:
        name = temporary.name
        if name is None:
            name = TEMPORARY_PREFIX + secrets.token_hex(8)
            os.link(f"/proc/self/fd/{temporary.fd}", name, dst_dir_fd=self._directory, follow_symlinks=True)
        temporary.name = None
        os.rename(name, path, src_dir_fd=self._directory, dst_dir_fd=self._directory)


class ObjectWriter:
    """An object that is hashed while it is written, or while its content is taken from *source*."""

    def __init__(self, store: ObjectStore, source: SourceFile | None = None) -> None:
        self._store = store
        self._digester = Digester(store.algorithm)
        self._file = store.temporary()
        self._source = source
        self._cloned = source is not None and store.copier.clone(source, self._file.fd)

    def write(self, chunk: bytes) -> None:
        """Append.

        Raises:
            OSError: as the kernel says.
        """
        offset = self._digester.size
        self._digester.update(chunk)
        if not self._cloned and not self._copied(offset, len(chunk)):
            self._file.write(chunk, offset)

    def _copied(self, offset: int, count: int) -> bool:
        source = self._source
        return source is not None and self._store.copier.copy(source, self._file.fd, offset, count)

    def finish(self, created: list[bytes]) -> bytes:
        """Give the object its name and return the digest.

        Raises:
            OSError, StorageError: as for `ObjectStore.put`.
            ChangedError: what was taken from the source is not what was read from it.
        """
        try:
            digest = self._digester.digest()
            self._check_source(digest)
            self._store.publish(self._file, digest, self._digester.size, created)
        finally:
            self._file.close()
        return digest

    def _check_source(self, digest: bytes) -> None:
        source, self._source = self._source, None
        if source is None or (source.unchanged() and source.size == self._digester.size):
            return
        if digest_file(self._file.fd, self._store.algorithm) != digest:
            msg = "a file of the image was changed while it was read"
            raise ChangedError(
                msg, hint="wait until nobody else writes to the place that the image is in, and try again"
            )

    def abort(self) -> None:
        """Forget everything; does nothing after `finish`."""
        self._source = None
        self._file.close()
