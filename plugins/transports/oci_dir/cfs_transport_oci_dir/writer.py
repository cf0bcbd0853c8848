"""Writing image layouts: blobs appear under their names complete, and the index changes in one step."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import MANIFEST_LIMIT, ImageWriter, NotFoundError, RefusedError, TransportError
from cfs_transport_oci_dir.grammar import position
from cfs_transport_oci_dir.index import replace_entry
from cfs_transport_oci_dir.reader import DirectoryReader

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from cfs_core.plugin import Descriptor, ImageReference

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class LayoutWriter(ImageWriter):
    """One image into a layout in a directory.

    If it is left early, a layout that it began is removed. In one that was there before, blobs that were stored stay;
    no name shows them.
    """

    def __init__(self, reference: ImageReference) -> None:
        if reference.digest is not None or position(reference.tag) is not None:
            msg = f"{reference} cannot be written to: a digest or position names what is there already"
            raise RefusedError(msg, hint="write it as oci:DIRECTORY:TAG")
        self._reference = reference
        self._root = Path(reference.name)
        with _as_transport_error(reference):
            if self._root.is_dir() and not (self._root / "oci-layout").exists() and any(self._root.iterdir()):
                msg = f"{self._root} is a directory with other things in it"
                raise RefusedError(msg, hint="name a new directory or an image layout")
        if (self._root / "index.json").exists():
            DirectoryReader(str(self._root)).index()
        with _as_transport_error(reference):
            self._began = not (self._root / "oci-layout").exists()
            self._made = [each for each in (self._root, *self._root.parents) if not each.exists()]
            self._use: int | None = _in_use(self._root / "blobs")
            if not (self._root / "oci-layout").exists():
                _replace(self._root / "oci-layout", _LAYOUT)

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Return whether a file of that name and size is there."""
        path = self._path(descriptor)
        return path.is_file() and path.stat().st_size == descriptor.size

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob: unnamed until *chunks* has ended."""
        path = self._path(descriptor)
        with _as_transport_error(self._reference):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _temporary(path.parent) as temporary:
                with temporary.open("wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(path)
            _sync_directory(path.parent)

    def put_manifest(self, descriptor: Descriptor, raw: bytes, *, top: bool) -> None:
        """Store a manifest; *top* also names it in the index."""
        self.put_blob(descriptor, [raw])
        if not top:
            return
        path = self._root / "index.json"
        with _as_transport_error(self._reference), _locked(self._root):
            before: bytes | None = None
            with contextlib.suppress(NotFoundError):
                before = DirectoryReader(str(self._root)).read("index.json", MANIFEST_LIMIT)
            _replace(path, replace_entry(before, descriptor, self._reference.tag, str(self._root)))

    def close(self) -> None:
        """Remove a layout that was begun and names nothing, unless another run uses it by now."""
        handle, self._use = self._use, None
        if handle is None:
            return
        try:
            if self._began and not (self._root / "index.json").exists():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self._root / "blobs")
                (self._root / "oci-layout").unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()
        except OSError:  # in use, or what somebody else put there
            pass
        finally:
            os.close(handle)

    def _path(self, descriptor: Descriptor) -> Path:
        return self._root / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex


class ArchiveWriter(ImageWriter):
    """One image into a new archive. It is collected as a layout beside the target, and becomes the file at the end."""

    def __init__(self, reference: ImageReference) -> None:
        self._target = Path(reference.name)
        if self._target.exists():
            msg = f"{self._target} is there already"
            raise RefusedError(msg, hint="archives are not added to; remove it or choose another name")
        with _as_transport_error(reference):
            self._work = Path(tempfile.mkdtemp(prefix=f".{self._target.name}.", dir=self._target.parent))
        try:
            layout = self._work / "layout"
            self._layout = LayoutWriter(_moved(reference, layout))
        except BaseException:
            shutil.rmtree(self._work, ignore_errors=True)
            raise
        self._reference = reference

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Return whether the blob was stored already."""
        return self._layout.has_blob(descriptor)

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob."""
        self._layout.put_blob(descriptor, chunks)

    def put_manifest(self, descriptor: Descriptor, raw: bytes, *, top: bool) -> None:
        """Store a manifest; *top* also completes the archive."""
        self._layout.put_manifest(descriptor, raw, top=top)
        if not top:
            return
        root, packed = self._work / "layout", self._work / "archive"
        with _as_transport_error(self._reference):
            with packed.open("wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    for path in sorted(root.rglob("*")):
                        tar.add(path, str(path.relative_to(root)), recursive=False, filter=_plain)
                file.flush()
                os.fsync(file.fileno())
            packed.rename(self._target)
            _sync_directory(self._target.parent)

    def close(self) -> None:
        """Remove what was collected."""
        self._layout.close()
        shutil.rmtree(self._work, ignore_errors=True)


def _moved(reference: ImageReference, to: Path) -> ImageReference:
    import dataclasses

    return dataclasses.replace(reference, name=str(to))


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Drop what would make two archives of one image differ."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    info.mode = 0o755 if info.isdir() else 0o644
    return info


@contextlib.contextmanager
def _as_transport_error(reference: ImageReference) -> Generator[None]:
    try:
        yield
    except OSError as error:
        msg = f"{reference} cannot be written: {error.strerror or error}"
        raise TransportError(msg) from error


@contextlib.contextmanager
def _temporary(directory: Path) -> Generator[Path]:
    handle, name = tempfile.mkstemp(prefix=".partial-", dir=directory)
    os.fchmod(handle, 0o644)
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _in_use(directory: Path) -> int:
    """Make *directory* and return a descriptor that keeps other runs from removing it as unfinished."""
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink:  # else it was removed while we waited
            return handle
        os.close(handle)


@contextlib.contextmanager
def _locked(directory: Path) -> Generator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    with _temporary(path.parent) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
