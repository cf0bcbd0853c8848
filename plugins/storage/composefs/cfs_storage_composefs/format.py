"""The composefs storage format: where its parts come together behind the interface of cfs."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.plugin import FormatOptions, FormatVersion, HashAlgorithm, ImageId, StorageFormat, read_all
from cfs_storage_composefs.errors import LockedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.plugin import Content, Directory, FileReader, Finding, PluginContext, TreeReader
    from cfs_storage_composefs.repository.repository import ComposefsRepository
    from cfs_storage_composefs.repository.scratch import ScratchIdentifier

METADATA = "meta.json"
_FOLDER = re.compile(r"[0-9a-f]{2}")
"""Objects are named by their digest, the first two digits being a folder (formats D.2)."""


class ComposefsFormat(StorageFormat):
    """composefs as the C tools, composefs-rs and bootc know it."""

    def __init__(self, context: PluginContext) -> None:
        self._scratch = context.scratch

    def open(self, path: Path, *, create: bool = False, options: FormatOptions | None = None) -> ComposefsRepository:
        """Open the repository at *path*; with *create*, make it where there is nothing.

        Raises:
            StorageError: not a repository, of an unknown format, or its options contradict *options*.
        """
        from cfs_storage_composefs.objects.names import KernelSealer
        from cfs_storage_composefs.objects.store import ObjectStore
        from cfs_storage_composefs.repository.directory import RepositoryDirectory
        from cfs_storage_composefs.repository.repository import ComposefsRepository

        directory = RepositoryDirectory.open(path, create=create, options=options)
        algorithm = directory.metadata.algorithm
        sealer = KernelSealer(algorithm) if directory.secure else None
        objects = ObjectStore(directory.objects, directory.path / "objects", algorithm, sealer)
        if directory.has_temporary():
            # somebody was killed here, or is at work; the lock tells
            with contextlib.suppress(LockedError, OSError), directory.exclusive():
                objects.remove_temporary()
                directory.remove_temporary()
        keep_user_xattrs = options is not None and options.keep_user_xattrs
        return ComposefsRepository(directory, objects, keep_user_xattrs=keep_user_xattrs)

    @contextlib.contextmanager
    def scratch(self, options: FormatOptions) -> Iterator[ScratchIdentifier]:
        """Tell identities of images that nobody wants stored.

        Raises:
            StorageError: the scratch directory is not writable.
        """
        from cfs_storage_composefs.errors import storage_errors
        from cfs_storage_composefs.objects.store import ObjectStore
        from cfs_storage_composefs.repository.directory import RepositoryDirectory
        from cfs_storage_composefs.repository.scratch import ScratchIdentifier

        with contextlib.ExitStack() as stack:
            with storage_errors("making a scratch repository"):
                below = stack.enter_context(tempfile.TemporaryDirectory(prefix="composefs-", dir=self._scratch))
            directory = RepositoryDirectory.open(Path(below) / "repository", create=True, options=options)
            objects = ObjectStore(directory.objects, directory.path / "objects", directory.metadata.algorithm, None)
            yield stack.enter_context(ScratchIdentifier(directory, objects, options))

    def scan(self, path: Path, options: FormatOptions) -> Directory:
        """Read a directory as it is on disk: metadata, links, contents identified (not stored).

        Raises:
            ImageError: something unreadable; the message names it.
        """
        from cfs_storage_composefs.trees.scan import scan_directory

        return scan_directory(path, _algorithm(options))

    def read_dump(self, dump: BinaryIO) -> Directory:
        """Read a tree from its text form (composefs-dump(5)).

        Raises:
            ImageError: malformed; the message has the line number.
        """
        from cfs_storage_composefs.dump.read import read_dump

        return read_dump(dump)

    def write_dump(self, tree: Directory, out: BinaryIO, options: FormatOptions) -> None:
        """Write *tree* as text, depth first."""
        from cfs_storage_composefs.dump.read import write_dump

        write_dump(tree, out, _algorithm(options))

    def canonical(self, tree: Directory, options: FormatOptions) -> None:
        """Give *tree* (merged layers) its canonical form, in place (formats E.2).

        Raises:
            ImageError: it has no /usr.
        """
        from cfs_storage_composefs.trees.canonical import canonicalise

        canonicalise(tree, options.keep_user_xattrs)

    def bootable(self, tree: Directory, reader: TreeReader) -> None:
        """Give a canonical *tree* its bootable form, in place (formats E.3, E.4).

        Raises:
            ImageError: it has no /boot or /sysroot, or its SELinux policy is unreadable.
        """
        from cfs_storage_composefs.trees.canonical import make_bootable

        make_bootable(tree, reader)

    def write_image(self, tree: Directory, out: BinaryIO, options: FormatOptions) -> ImageId:
        """Write the image of *tree* exactly as it is, and return its identity.

        Raises:
            ImageError: the tree has something that the format cannot hold.
            StorageError: *out* cannot be written.
        """
        from cfs_storage_composefs.erofs.write import write_erofs
        from cfs_storage_composefs.errors import storage_errors
        from cfs_storage_composefs.fsverity import digest_bytes

        algorithm = _algorithm(options)
        data = write_erofs(tree, options.version or FormatVersion.V1, algorithm)
        with storage_errors("writing the image"):
            out.write(data)
        return ImageId(digest_bytes(data, algorithm).hex())

    def is_repository(self, path: Path) -> bool:
        """Look for ``meta.json``, which is written last when a repository is made (formats D.1)."""
        return (path / METADATA).exists()

    def recognises(self, files: FileReader, root: str) -> bool:
        """Look for a ``meta.json`` that is composefs's or damaged, or for folders of objects where it is lost.

        Others may call their files the same: theirs name no algorithm as fs-verity does.
        """
        from cfs_storage_composefs.repository.metadata import LIMIT, may_be_ours

        base = root.rstrip("/")
        if files.kind(f"{base}/{METADATA}") == "file":
            with files.open(f"{base}/{METADATA}") as file:
                return may_be_ours(file.read(LIMIT))
        if files.kind(f"{base}/objects") != "directory":
            return False
        return any(_FOLDER.fullmatch(name) for name in files.names(f"{base}/objects"))

    def check_files(self, files: FileReader, root: str) -> Iterable[Finding]:
        """Check the repository at *root* of a filesystem that is not mounted, file by file, and yield what is wrong."""
        from cfs_storage_composefs.repository.check import check_repository

        return check_repository(files, root, layers=False)

    def has_file(self, files: FileReader, root: str, content: Content) -> bool:
        """Look for an object of this content; files of up to 64 bytes are no objects."""
        from cfs_storage_composefs.fsverity import digest_bytes
        from cfs_storage_composefs.objects.names import object_path

        data = read_all(content)
        paths = (object_path(digest_bytes(data, algorithm)) for algorithm in HashAlgorithm)
        return any(files.kind(f"{root}/objects/{path}") == "file" for path in paths)


def _algorithm(options: FormatOptions) -> HashAlgorithm:
    return options.algorithm or HashAlgorithm.SHA512


def make(context: PluginContext) -> StorageFormat:
    """Make the format for one run."""
    return ComposefsFormat(context)
