"""Fills a new ext4: a tar stream straight into mkfs.ext4, or a staging directory for older e2fsprogs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import CfsError, DiskError
from cfs_disk.ext4 import pax
from cfs_disk.ext4.placement import MerkleTree, placement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfs_disk.ext4.nodes import Ext4Contents, Ext4Node

_CHUNK = 1 << 20
_POLL_SECONDS = 0.005
_ABANDON_SECONDS = 2
_LEAST_GAP = 1024
"""A smaller gap is written as zeros: libarchive 3.8 refuses a sparse member that has none."""

_TYPE_FLAGS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


def stored_pieces(node: Ext4Node, scratch: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of a regular file: its content, then fs-verity metadata where it has some. Flat memory.

    Raises:
        DiskError: the content cannot be read, or is not as long as it says.
    """
    content = node.content
    if content is None:
        return
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(MerkleTree(node.verity, scratch)) if node.verity is not None else None
        at = 0
        try:
            file = stack.enter_context(content.open())
            while piece := file.read(_CHUNK):
                if at + len(piece) > content.size:
                    break
                if tree is not None:
                    tree.update(piece)
                yield at, piece
                at += len(piece)
        except OSError as error:
            msg = f"cannot read the content of {_show(node.path)}: {error.strerror}"
            raise DiskError(msg) from error
        if piece or at != content.size:
            msg = f"the content of {_show(node.path)} is not the {content.size} bytes it should be"
            raise DiskError(msg, hint="it changed while it was being read")
        if tree is not None and node.verity is not None:
            at = placement(content.size, node.verity).start
            _, metadata = tree.metadata()
            for piece in metadata:
                yield at, piece
                at += len(piece)


# --- tar ------------------------------------------------------------------------------------------


def tar_stream(contents: Ext4Contents, epoch: int, scratch: Path) -> Iterator[bytes]:
    """Yield a tar of *contents*; hard links last, after what they point to."""
    for node in contents.nodes:
        if node.path == b"/":
            continue
        size = 0
        sparse: tuple[tuple[int, int], ...] = ()
        if node.content is not None:
            size = node.content.size
            if node.verity is not None:
                where = placement(size, node.verity)
                if where.start - size >= _LEAST_GAP:
                    sparse = tuple(area for area in ((0, size), (where.start, where.end - where.start)) if area[1])
                size = where.end
        yield pax.header(_member(node, epoch, size), sparse=sparse)
        length = 0
        for at, piece in stored_pieces(node, scratch):
            if not sparse and at > length:
                yield bytes(at - length)
                length = at
            yield piece
            length += len(piece)
        if length % pax.RECORD:
            yield pax.padding(length)
    by_path = {node.path: node for node in contents.nodes} if contents.links else {}
    # Links last, so that each file is there before another name of it.
    for name, existing in contents.links:
        member = _member(by_path[existing], epoch, 0)
        # mke2fs gives the inode the attributes of the link's header, so they are the same ones.
        link = pax.TarMember(
            path=name[1:],
            kind=b"1",
            mode=member.mode,
            uid=member.uid,
            gid=member.gid,
            mtime=member.mtime,
            other_times=epoch,
            link=existing[1:],
        )
        yield pax.header(link)
    yield pax.end()


def _member(node: Ext4Node, epoch: int, size: int) -> pax.TarMember:
    return pax.TarMember(
        path=node.path[1:],
        kind=_TYPE_FLAGS[stat.S_IFMT(node.mode)],
        mode=node.mode & 0o7777,
        uid=node.uid,
        gid=node.gid,
        mtime=node.mtime[0],
        other_times=epoch,
        size=size,
        link=node.target,
        device=node.device,
    )


def feed(pieces: Iterator[bytes], scratch: Path, consume: Callable[[tuple[str, ...]], None]) -> None:
    """Run *consume* with a command prefix that makes *pieces* a command's standard input, through a fifo.

    The fifo is opened by the command itself, so that the writer notices when the command dies.

    Raises:
        What producing the pieces raised, else what *consume* raised.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        fifo = Path(directory, "stream")
        os.mkfifo(fifo, 0o600)
        writer = _Writer(pieces, fifo)
        writer.start()
        try:
            consume(("sh", "-c", 'exec "$@" <"$0"', str(fifo)))
        except CfsError:
            writer.finish()
            if writer.failure is not None:
                raise writer.failure from None
            raise
        except BaseException:
            writer.abandon()
            raise
        writer.finish()
        if writer.failure is not None:
            raise writer.failure
        if not writer.complete:
            msg = "mkfs.ext4 did not read its contents to the end"
            raise DiskError(msg)


class _Writer(threading.Thread):
    def __init__(self, pieces: Iterator[bytes], fifo: Path) -> None:
        super().__init__(name="mkfs-stream", daemon=True)
        self._pieces = pieces
        self._fifo = fifo
        self._over = threading.Event()
        self.failure: BaseException | None = None
        self.complete = False

    def run(self) -> None:
        try:
            with io.BufferedWriter(self._open(), _CHUNK) as file:
                for piece in self._pieces:
                    file.write(piece)
            self.complete = True
        except (BrokenPipeError, _NobodyReadsError):
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.failure = error

    def finish(self) -> None:
        self._over.set()
        self.join()

    def abandon(self) -> None:
        """Stop waiting for a source that may be slow: the run is being ended."""
        self._over.set()
        self.join(_ABANDON_SECONDS)

    def _open(self) -> io.FileIO:
        # A plain open waits for a reader, and a command that ends before it reads would leave this thread waiting for
        # ever.
        while not self._over.is_set():
            try:
                descriptor = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                time.sleep(_POLL_SECONDS)
                continue
            os.set_blocking(descriptor, True)
            return io.FileIO(descriptor, "wb")
        raise _NobodyReadsError


class _NobodyReadsError(Exception):
    """The command ended before it opened its input."""


# --- staging --------------------------------------------------------------------------------------


@contextlib.contextmanager
def staging_directory(contents: Ext4Contents, scratch: Path, advice: str = "") -> Iterator[Path]:
    """Make a copy of *contents* that ``mkfs.ext4 -d`` can read, as far as an ordinary user can; gone afterwards.

    Owners, modes, times, attributes, devices and hard links of symbolic links are left to debugfs. *advice* says how to
    do without, for the hint.

    Raises:
        DiskError: no room, or a name this host cannot have.
    """
    top = Path(tempfile.mkdtemp(prefix="ext4-", dir=scratch))
    base = os.fsencode(top)
    special = set()
    symlinks = {node.path for node in contents.nodes if stat.S_ISLNK(node.mode)}
    try:
        try:
            for node in contents.nodes:
                if not _stage(node, base, scratch):
                    special.add(node.path)
            for name, existing in contents.links:
                if existing not in special and existing not in symlinks:
                    os.link(base + existing, base + name)
        except OSError as error:
            msg = f"cannot stage files below {top}: {error.strerror}"
            hint = "; or ".join(filter(None, ("set TMPDIR to a filesystem with more room", advice)))
            raise DiskError(msg, hint=hint) from error
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _stage(node: Ext4Node, base: bytes, scratch: Path) -> bool:
    place = base + node.path
    match stat.S_IFMT(node.mode):
        case stat.S_IFDIR:
            if node.path != b"/":
                os.mkdir(place, 0o700)  # noqa: PTH102 - the path is bytes
        case stat.S_IFREG:
            with open(place, "xb") as file:  # noqa: PTH123 - the path is bytes
                for at, piece in stored_pieces(node, scratch):
                    file.seek(at)
                    file.write(piece)
        case stat.S_IFLNK:
            os.symlink(node.target, place)  # noqa: PTH211 - the path is bytes
        case stat.S_IFIFO | stat.S_IFSOCK as kind:
            os.mknod(place, kind | 0o600)
        case _:
            return False
    return True


def _show(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
