"""A mounted machine as a target: every action is durable when it is done, and whole or not there at all."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import signal
import stat
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cfs_core.errors import DiskError, DiskFullError
from cfs_core.model.action import (
    CopyObject,
    ExchangePaths,
    MakeDirectory,
    MakeHardLink,
    MakeSpecial,
    MakeSymlink,
    RemovePath,
    RenamePath,
    RunCommand,
    SetEfiVariable,
    WriteBlocks,
    WriteFile,
)
from cfs_core.model.content import BytesContent
from cfs_core.model.digest import HashAlgorithm
from cfs_core.model.disk import RAW, Location, Volume
from cfs_core.model.tree import SpecialKind
from cfs_core.system.syncing import sync_filesystem
from cfs_core.target import beneath
from cfs_core.target.mounted_raw import RawPlaces
from cfs_core.target.run_command import resolved, run_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from cfs_core.interfaces.context import CommandRunner
    from cfs_core.model.action import Action, Attributes
    from cfs_core.model.content import Content
    from cfs_core.model.disk import Partition

_CHUNK = 1 << 20
_ENABLE_VERITY = 0x40806685
"""FS_IOC_ENABLE_VERITY, from linux/fsverity.h."""

_CHECKPOINT = 0x4004662B
"""EXT4_IOC_CHECKPOINT, from linux/ext4.h (Linux 5.14)."""

_FREEZE, _THAW = 0xC0045877, 0xC0045878
"""FIFREEZE and FITHAW, from linux/fs.h."""

_VERITY_NUMBER = {HashAlgorithm.SHA256: 1, HashAlgorithm.SHA512: 2}
_SPECIAL = {
    SpecialKind.CHAR: stat.S_IFCHR,
    SpecialKind.BLOCK: stat.S_IFBLK,
    SpecialKind.FIFO: stat.S_IFIFO,
    SpecialKind.SOCKET: stat.S_IFSOCK,
}
_NO_METADATA = frozenset({errno.EPERM, errno.EOPNOTSUPP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class MountedTarget:
    """Applies actions below directories, one for each volume; the caller holds the lock.

    Files appear under a temporary name (``.cfs-XXXXXXXX``), are made durable, and take their name by rename;
    directories are made durable after each change.
    """

    def __init__(
        self,
        roots: Mapping[Volume, Path],
        *,
        partitions: Iterable[Partition] = (),
        commands: CommandRunner | None = None,
        scratch: Path | None = None,
        host_tools: bool = True,
        raw: RawPlaces | None = None,
    ) -> None:
        self._roots = dict(roots)
        self._partitions = {partition.volume: partition for partition in partitions}
        self._commands = commands
        self._scratch = scratch
        self._host_tools = host_tools
        self._raw = raw or RawPlaces()
        self._durable = True

    # --- TargetView ---------------------------------------------------------------------------

    def volumes(self) -> frozenset[Volume]:
        """Return the volumes that are mounted."""
        return frozenset(self._roots)

    def partition(self, volume: Volume) -> Partition | None:
        """Return where *volume* lives, None where that was not told."""
        return self._partitions.get(volume)

    def read(self, location: Location) -> bytes:
        """Return a file's bytes; links are not followed. Of a raw volume what is on it, of a disk its boot code.

        Raises:
            FileNotFoundError: no regular file is there.
            DiskError: it cannot be read.
        """
        if location.volume in RAW:
            try:
                return self._raw.read(location.volume)
            except FileNotFoundError:
                raise FileNotFoundError(str(location)) from None
            except OSError as error:
                raise _explained(error, location) from error
        try:
            with beneath.parent(self._root(location), location.path, create=False) as (directory, name):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as file:
                    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        return file.read()
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                raise _explained(error, location) from error
        raise FileNotFoundError(str(location))

    def names(self, location: Location) -> tuple[str, ...]:
        """Return sorted names in a directory; empty if there is none."""
        with suppress(OSError):
            parts = beneath.split(location.path)
            with beneath.directory(self._root(location), parts, create=False) as directory:
                return tuple(sorted(os.listdir(directory)))  # noqa: PTH208 - an open directory
        return ()

    def exists(self, location: Location) -> bool:
        """Return whether anything is there."""
        if not beneath.split(location.path):
            return location.volume in self._roots
        with suppress(OSError), beneath.parent(self._root(location), location.path, create=False) as (directory, name):
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            return True
        return False

    # --- applying -----------------------------------------------------------------------------

    def apply(self, action: Action) -> None:
        """Do what *action* says, durably.

        Raises:
            DiskError: it cannot be done; `DiskFullError` for want of space. Nothing has changed then.
            RefusedError: blocks or EFI variables where that cannot be, or a command where host tools are forbidden.
            CommandError: a command failed.
        """
        try:
            for made in self.resolved(action):
                self._apply(made)
        except OSError as error:
            raise _explained(error, getattr(action, "location", action.why)) from error

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all actions of the block durable at its end, not each by itself: for what nothing leads to yet.

        Raises:
            DiskError: what was written cannot be brought to disk.
        """
        self._durable = False
        try:
            yield
            for root in self._roots.values():
                try:
                    sync_filesystem(root)
                except OSError as error:
                    raise _explained(error, root) from error
        finally:
            self._durable = True

    def settle(self) -> None:
        """Bring what was written to where a loader looks that replays no journal. To be called after the last action.

        With `fsync` a change is durable, but in the journal only. ext4 empties it on request; of other filesystems but
        the root (which nobody could thaw again) a moment's freeze does the same. Needs root rights; without them, and
        on filesystems that know neither, nothing happens: what has no journal has nothing in it.
        """
        for volume, root in self._roots.items():
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _empty_journal(descriptor, freeze=volume is not Volume.ROOT)
            finally:
                os.close(descriptor)

    def _apply(self, action: Action) -> None:
        match action:
            case WriteFile():
                self._write_file(action)
            case CopyObject():
                self._write(action.location, action.source, action.attributes, action.verity)
            case MakeDirectory():
                self._make_directory(action.location, action.attributes)
            case MakeSymlink() | MakeHardLink() | MakeSpecial():
                self._make(action)
            case RemovePath():
                self._remove(action.location)
            case RenamePath():
                with self._both(action.source, action.location) as (old, new):
                    os.rename(old[1], new[1], src_dir_fd=old[0], dst_dir_fd=new[0])
            case ExchangePaths():
                with self._both(action.a, action.b) as (one, other):
                    beneath.exchange(one, other)
            case WriteBlocks() | SetEfiVariable():
                self._raw.apply(action)
            case _:
                msg = f"unknown action {type(action).__name__}"
                raise DiskError(msg)

    def _write_file(self, action: WriteFile) -> None:
        if not (action.in_place and self._overwrite(action.location, action.data)):
            self._write(action.location, BytesContent(action.data), action.attributes, None)

    def _write(
        self, location: Location, content: Content, attributes: Attributes, verity: HashAlgorithm | None
    ) -> None:
        with self._replacing(location) as (directory, temporary):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as file, content.open() as source:
                written = 0
                while piece := source.read(_CHUNK):
                    written += file.write(piece)
                if written != content.size:
                    msg = f"the content of {location} is not the {content.size} bytes it should be"
                    raise DiskError(msg, hint="it changed while it was being read")
                file.flush()
                self._set_attributes(file.fileno(), attributes, location)
                self._sync(file.fileno())
            # The kernel refuses while anybody has the file open for writing (Documentation/filesystems/fsverity.rst).
            if verity is not None:
                _enable_verity(directory, temporary, verity, location)

    def _overwrite(self, location: Location, data: bytes) -> bool:
        """Write *data* over the file that is there; return whether there is one of that size."""
        with suppress(FileNotFoundError), beneath.parent(self._root(location), location.path, create=False) as found:
            directory, name = found
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                descriptor = os.open(name, flags, dir_fd=directory)
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                    return False
                raise
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if stat.S_ISREG(status.st_mode) and status.st_size == len(data):
                    os.pwrite(file.fileno(), data, 0)
                    self._sync(file.fileno())
                    return True
        return False

    def _make_directory(self, location: Location, attributes: Attributes) -> None:
        parts = beneath.split(location.path)
        with beneath.directory(self._root(location), parts, create=True) as directory:
            self._set_attributes(directory, attributes, location)
            self._sync(directory)

    def _make(self, action: MakeSymlink | MakeHardLink | MakeSpecial) -> None:
        with self._replacing(action.location) as (directory, temporary):
            match action:
                case MakeHardLink():
                    with beneath.parent(self._root(action.existing), action.existing.path, create=False) as (at, name):
                        os.link(name, temporary, src_dir_fd=at, dst_dir_fd=directory, follow_symlinks=False)
                    return
                case MakeSymlink():
                    os.symlink(action.target, temporary, dir_fd=directory)
                case MakeSpecial():
                    rdev = os.makedev(
                        (action.rdev & 0xFFF00) >> 8, (action.rdev & 0xFF) | (action.rdev >> 12 & 0xFFF00)
                    )
                    os.mknod(temporary, _SPECIAL[action.kind] | 0o600, rdev, dir_fd=directory)
            place = f"/proc/self/fd/{directory}/{temporary}"
            self._set_attributes(place, action.attributes, action.location)

    def _remove(self, location: Location) -> None:
        with suppress(FileNotFoundError), beneath.parent(self._root(location), location.path, create=False) as found:
            directory, name = found
            beneath.refuse_mounts(directory, name)
            # One rename makes all of it disappear at once; what a crash leaves has a name nobody looks for.
            temporary = _temporary_name()
            os.rename(name, temporary, src_dir_fd=directory, dst_dir_fd=directory)
            self._sync(directory)
            beneath.remove_tree(directory, temporary)
            self._sync(directory)

    def resolved(self, action: Action) -> tuple[Action, ...]:
        """Return *action*; for a `RunCommand` run it, once, and return what writes its outputs.

        Raises:
            RefusedError: a `RunCommand` where host tools are forbidden.
            CommandError: a command failed.
            DiskError: its inputs are not there, or its outputs are not.
        """
        return resolved(action, self._run, host_tools=self._host_tools)

    def _run(self, action: RunCommand) -> dict[Location, bytes]:
        if self._commands is None:
            msg = f"{action.argv[0]} cannot be run: this target was given no command runner"
            raise DiskError(msg)
        return run_command(action, self, self._commands, scratch=self._scratch)

    @contextmanager
    def _replacing(self, location: Location) -> Iterator[tuple[int, str]]:
        """Give an open directory and a temporary name in it, which then takes the place of *location*."""
        with beneath.parent(self._root(location), location.path, create=True) as (directory, name):
            temporary = _temporary_name()
            try:
                yield directory, temporary
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                # Renaming one name of a file over another name of it leaves both.
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                raise
            self._sync(directory)

    @contextmanager
    def _both(self, first: Location, second: Location) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
        with (
            beneath.parent(self._root(first), first.path, create=False) as one,
            beneath.parent(self._root(second), second.path, create=True) as other,
        ):
            yield one, other
            # The new place first: after a loss of power between the two, the file has both names and not none.
            self._sync(other[0])
            self._sync(one[0])

    def _set_attributes(self, place: int | str, attributes: Attributes, location: Location) -> None:
        partition = self._partitions.get(location.volume)
        has_none = location.volume is Volume.ESP or (partition is not None and partition.filesystem == "vfat")
        try:
            _set_attributes(place, attributes)
        except OSError as error:
            if not (has_none and error.errno in _NO_METADATA):
                raise

    def _sync(self, descriptor: int) -> None:
        if self._durable:
            os.fsync(descriptor)

    def _root(self, location: Location) -> Path:
        root = self._roots.get(location.volume)
        if root is None:
            msg = f"{location} cannot be reached: {location.volume.name} is not mounted"
            raise DiskError(msg)
        return root


def _empty_journal(descriptor: int, *, freeze: bool) -> None:
    with suppress(OSError):
        fcntl.ioctl(descriptor, _CHECKPOINT, struct.pack("=I", 0))
        return
    # Killed in between, a process would leave the filesystem frozen.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with suppress(OSError):
            if freeze:
                fcntl.ioctl(descriptor, _FREEZE, 0)
                fcntl.ioctl(descriptor, _THAW, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _set_attributes(place: int | str, attributes: Attributes) -> None:
    # In this order: chown takes set-user-ID bits and file capabilities away (chown(2)), and times are set when nothing
    # is changed any more.
    follow = isinstance(place, int)  # an open file needs no path to be followed, and takes no other answer
    found = os.stat(place, follow_symlinks=follow)  # noqa: PTH116 - may be an open file
    if (found.st_uid, found.st_gid) != (attributes.uid, attributes.gid):
        os.chown(place, attributes.uid, attributes.gid, follow_symlinks=follow)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(place, attributes.mode & 0o7777)  # noqa: PTH101 - may be an open file
    for name, value in attributes.xattrs:
        os.setxattr(place, name, value, follow_symlinks=follow)
    if attributes.mtime_sec is not None:
        time = attributes.mtime_sec * 10**9 + attributes.mtime_nsec
        os.utime(place, ns=(time, time), follow_symlinks=follow)


def _enable_verity(directory: int, name: str, algorithm: HashAlgorithm, location: Location) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        # struct fsverity_enable_arg: version, hash_algorithm, block_size, and nothing else.
        argument = struct.pack("<IIIIQIIQ88x", 1, _VERITY_NUMBER[algorithm], 4096, 0, 0, 0, 0, 0)
        fcntl.ioctl(descriptor, _ENABLE_VERITY, argument)
        os.fsync(descriptor)
    except OSError as error:
        msg = f"fs-verity cannot be enabled on {location}: {error.strerror}"
        raise DiskError(
            msg, hint="the filesystem needs the feature: tune2fs -O verity, or a kernel that has it"
        ) from error
    finally:
        os.close(descriptor)


def _temporary_name() -> str:
    return f".cfs-{secrets.token_hex(4)}"


def _explained(error: OSError, where: object) -> DiskError:
    msg = f"{where}: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFullError(msg, hint="free some space on that volume")
    hint = None
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        hint = "a symbolic link or a file is on the way, which cfs does not follow"
    return DiskError(msg, hint=hint)
