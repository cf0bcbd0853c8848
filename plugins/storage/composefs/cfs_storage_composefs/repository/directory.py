"""A repository's directory: opening and making it, its lock, its symbolic links (formats D.1, D.2)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cfs_core.plugin import FormatOptions, HashAlgorithm, StorageError
from cfs_storage_composefs.errors import DamagedError, LockedError, ReadOnlyError, storage_errors
from cfs_storage_composefs.linux import OPEN_DIRECTORY, entries, open_below, syncfs
from cfs_storage_composefs.objects.names import object_path
from cfs_storage_composefs.objects.store import TEMPORARY_PREFIX
from cfs_storage_composefs.repository.identify import CATEGORIES, META_PREFIX, identify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_storage_composefs.repository.metadata import Metadata

LINK_PREFIX = ".symlink-"
"""Temporary names of links being replaced, in the repository's root as composefs-rs makes them."""

_MODE = 0o700
# A collection takes seconds; behind a process that was stopped in one, waiting for the lock would never end.
_LOCK_SECONDS = 60.0
_LOCK_PAUSE_SECONDS = 0.05
_OBJECT_LINK = re.compile(r"\.\./objects/([0-9a-f]{2})/([0-9a-f]+)\Z")


class RepositoryDirectory:
    """An open repository directory under the shared lock."""

    def __init__(self, path: Path, fd: int, facts: Metadata, *, secure: bool) -> None:
        self.path = path
        self.fd = fd
        self.metadata = facts
        self.secure = secure
        self._objects = -1

    @classmethod
    def open(cls, path: Path, *, create: bool, options: FormatOptions | None) -> Self:
        """Open, or make where there is nothing and *create* is set, and take the shared lock.

        Raises:
            StorageError: not a repository, of an unknown format, or its options contradict *options*.
            LockedError: another process has kept the exclusive lock for a minute.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as the person wrote them
        with storage_errors(f"opening the repository at {path}"):
            fd = _open_root(path, create=create)
            try:
                _lock_shared(fd, path)
                facts, secure = identify(fd, path, create=create, options=options or FormatOptions())
                found = cls(path, fd, facts, secure=secure)
                found._prepare()
            except BaseException:
                os.close(fd)
                raise
        return found

    def close(self) -> None:
        """Give the lock back."""
        for fd in (self._objects, self.fd):
            if fd >= 0:
                os.close(fd)
        self._objects = self.fd = -1

    @property
    def objects(self) -> int:
        """Descriptor of objects/."""
        return self._objects

    def require_writable(self) -> None:
        """Refuse repositories whose features we would break.

        Raises:
            ReadOnlyError: meta.json says so.
        """
        if self.metadata.read_only:
            msg = f"the repository at {self.path} has features that this program cannot keep up; it is read-only here"
            raise ReadOnlyError(msg, hint="use a newer cfs")

    def _prepare(self) -> None:
        # Repositories that other programs made may lack images/ or streams/, which they make when they are first
        # needed. On a read-only filesystem an absent one reads as empty.
        for name in ("objects", *CATEGORIES):
            with contextlib.suppress(FileExistsError):
                try:
                    os.mkdir(name, 0o755, dir_fd=self.fd)
                except OSError as error:
                    if name == "objects" or error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
                        raise
        # Whoever prepared the directory may have put links there, to have us read or write elsewhere.
        for name in ("objects", *CATEGORIES):
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode):
                    msg = f"{name} in the repository at {self.path} is not a directory"
                    raise DamagedError(msg, hint="use another repository (--repo): links are not followed in one")
        self._objects = os.open("objects", OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd)

    # --- lock ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the exclusive lock, asked for without waiting.

        Even a refusal gives the shared lock up for a moment, so nothing that only the lock protects may be under way.

        Raises:
            LockedError: somebody else uses the repository.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            _lock_shared(self.fd, self.path)
            msg = f"the repository at {self.path} is in use by another process or another part of this one"
            raise LockedError(msg, hint="wait until pulls and installs are done, then try again") from error
        try:
            yield
        finally:
            _lock_shared(self.fd, self.path)

    def remove_temporary(self) -> int:
        """Remove what killed writers left in the root; only under the exclusive lock. Returns how many files went."""
        count = 0
        for name in entries(self.fd):
            if name.startswith((LINK_PREFIX, META_PREFIX)):
                os.unlink(name, dir_fd=self.fd)
                count += 1
        return count

    def has_temporary(self) -> bool:
        """Return whether a killed (or another running) writer has files with temporary names here."""
        return any(name.startswith((LINK_PREFIX, META_PREFIX)) for name in entries(self.fd)) or any(
            name.startswith(TEMPORARY_PREFIX) for name in entries(self._objects)
        )

    def sync(self) -> None:
        """Write everything to the device.

        Raises:
            OSError: as the kernel says.
        """
        syncfs(self.fd)

    # --- links --------------------------------------------------------------------------------

    def link(self, path: str, target: str) -> None:
        """Make or atomically replace the symbolic link *path* (below the root); parent directories are made.

        Raises:
            OSError: as the kernel says.
        """
        *parents, name = path.split("/")
        with open_below(self.fd, parents, create=True) as below:
            try:
                os.symlink(target, name, dir_fd=below)
            except FileExistsError:
                with contextlib.suppress(OSError):
                    if os.readlink(name, dir_fd=below) == target:
                        return
                # In the root, where composefs-rs makes its own: collectors refuse unknown names below images/ and
                # streams/.
                temporary = LINK_PREFIX + secrets.token_hex(6)
                os.symlink(target, temporary, dir_fd=self.fd)
                try:
                    os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=below)
                except BaseException:
                    os.unlink(temporary, dir_fd=self.fd)
                    raise

    def link_object(self, category: str, name: str, digest: bytes) -> None:
        """Make ``images/NAME`` or ``streams/NAME`` point to an object."""
        self.link(f"{category}/{name}", f"../objects/{object_path(digest)}")

    def unlink(self, path: str) -> None:
        """Remove a link.

        Raises:
            FileNotFoundError: it is not there.
        """
        *parents, name = path.split("/")
        with open_below(self.fd, parents) as below:
            os.unlink(name, dir_fd=below)

    def linked(self, category: str, name: str) -> bytes | None:
        """Return the digest that ``images/NAME`` or ``streams/NAME`` points to; None if it is not there.

        Raises:
            DamagedError: something else than a link to an object.
        """
        path = f"{category}/{name}"
        try:
            with open_below(self.fd, [category]) as below:
                target = os.readlink(name, dir_fd=below)
        except FileNotFoundError:
            return None
        except OSError as error:
            msg = f"{path} in the repository at {self.path} is not a symbolic link in a directory"
            raise DamagedError(msg, hint="remove it and pull the image again") from error
        digest = linked_object(target, self.metadata.algorithm)
        if digest is None:
            msg = f"{path} in the repository at {self.path} points to {target!r:.200}, not to an object"
            raise DamagedError(msg, hint="remove it and pull the image again")
        return digest

    def names(self, category: str) -> dict[str, bytes]:
        """Return every name in ``images/`` or ``streams/`` with its object.

        Raises:
            DamagedError: something else than links and ``refs`` is there.
        """
        found = {}
        for name in sorted(self._list(category)):
            if name != "refs" and (digest := self.linked(category, name)) is not None:
                found[name] = digest
        return found

    def refs(self, category: str) -> dict[str, str]:
        """Return every link below ``<category>/refs`` as path below refs, and the name in *category* it points to.

        Raises:
            DamagedError: something else than links and directories is there, or a link leads elsewhere.
        """
        found: dict[str, str] = {}
        pending = [""]
        while pending:
            below = pending.pop()
            here = f"{category}/refs/{below}".rstrip("/")
            for name, target in sorted(self._links_in(here).items()):
                path = f"{below}/{name}".lstrip("/")
                if target is None:
                    pending.append(path)
                    continue
                if (pointed := referred_name(path, target)) is None:
                    msg = f"{here}/{name} in the repository at {self.path} is no link to an entry of {category}/"
                    raise DamagedError(msg, hint="remove it")
                found[path] = pointed
        return found

    def _links_in(self, path: str) -> dict[str, str | None]:
        """Return what is in a directory, and where links lead; None for a directory, nothing for other files."""
        found: dict[str, str | None] = {}
        with contextlib.suppress(FileNotFoundError), open_below(self.fd, path.split("/")) as fd:
            for name in entries(fd):
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(mode) else ""
                found[name] = None if stat.S_ISDIR(mode) else link
        return found

    def _list(self, path: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError), open_below(self.fd, path.split("/")) as fd:
            return entries(fd)
        return []


def linked_object(target: str, algorithm: HashAlgorithm) -> bytes | None:
    """Return the digest in the target of a link in ``images/`` or ``streams/``, None if it is no such target."""
    match = _OBJECT_LINK.match(target)
    if match is None or len(match[1] + match[2]) != 2 * algorithm.size:
        return None
    return bytes.fromhex(match[1] + match[2])


def referred_name(path: str, target: str) -> str | None:
    """Return the name that a link at *path* below ``refs/`` points to, None if its target has another form."""
    prefix = "../" * (path.count("/") + 1)
    name = target.removeprefix(prefix)
    return name if target.startswith(prefix) and name and "/" not in name and name not in {"..", "refs"} else None


def _open_root(path: Path, *, create: bool) -> int:
    try:
        return os.open(path, OPEN_DIRECTORY)
    except FileNotFoundError:
        if not create:
            msg = f"there is no repository at {path}"
            raise StorageError(msg, hint=f"make one with: cfs repo init --repo {path}") from None
    except NotADirectoryError:
        msg = f"{path} is not a directory"
        raise StorageError(msg, hint="a repository is a directory") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=_MODE)
    return os.open(path, OPEN_DIRECTORY)


def _lock_shared(fd: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                msg = f"the repository at {path} has been locked by another process for {_LOCK_SECONDS:.0f} seconds"
                raise LockedError(msg, hint="a garbage collection may be running; try again later") from None
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return
