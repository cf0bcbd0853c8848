"""Where files and trees are kept, and what gives them their identity."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cfs_core.interfaces.source_file import SourceFile
    from cfs_core.model.action import Action, Attributes
    from cfs_core.model.boot import KernelArgument
    from cfs_core.model.content import Content
    from cfs_core.model.deployment import (
        ChosenFormat,
        CommittedImage,
        FormatOptions,
        GcReport,
        ImageId,
        StoredImage,
    )
    from cfs_core.model.digest import Digest
    from cfs_core.model.disk import Location
    from cfs_core.model.layer import LayerEntry, LayerMember
    from cfs_core.model.manifest import ResolvedImage
    from cfs_core.model.plan import Finding
    from cfs_core.model.tree import Directory, ObjectId


class LayerStream(Protocol):
    """One uncompressed layer, read once from front to back. Reading it to the end is what verifies it.

    For each member from `members`, in turn: take its content with `content` (or leave it: the next step skips it,
    but it is hashed all the same). After the last member, `trailer` yields what follows (end blocks, padding), and
    only when that iterator has ended is the layer known to be what its digests say: publish nothing before.
    """

    diff_id: Digest
    """What the uncompressed bytes must hash to."""

    def members(self) -> Iterator[LayerMember]:
        """Yield members in stream order.

        Raises:
            ImageError: malformed or hostile tar (`LimitError` past a named limit).
            VerificationError: a digest differs (raised at the end).
        """

    def source(self) -> SourceFile | None:
        """Return the file that holds just the current member's content, if the transport reads one. Before `content`.

        Storage may share its blocks or have the kernel copy it; `content` is read and hashed all the same.
        """

    def content(self) -> Iterator[bytes]:
        """Yield the current member's content: exactly its ``size`` bytes, in chunks of at most 1 MiB."""

    def trailer(self) -> Iterator[bytes]:
        """Yield the bytes behind the last member's content."""


class LayerJob(abc.ABC):
    """Imports layers in another process. It is pickled; what its methods return comes back in the same way.

    It publishes nothing: what it returns is given to `Identifier.import_with_job`, which does.
    """

    descriptors: tuple[int, ...] = ()
    """Open files that the other process has under the same numbers."""

    @abc.abstractmethod
    def run(self, layer: LayerStream) -> object:
        """Store the layer's files while reading it, and return what publishing it takes.

        Raises:
            StorageError: as for `Identifier.import_layer`. What `layer` raises passes through.
        """

    @abc.abstractmethod
    def remains(self) -> object:
        """Return what the `run` that has just failed leaves behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a `LayerJob` did."""

    value: object
    """What `LayerJob.run` returned, or else `LayerJob.remains`; None where nobody can tell: the process was killed."""

    error: BaseException | None
    """What `LayerJob.run` raised."""


class TreeReader(Protocol):
    """Files of an image by path, links inside the tree followed, nothing executed."""

    root: Directory
    """The tree itself."""

    def exists(self, path: str) -> bool:
        """Return whether *path* is there, links followed."""

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*; empty if there is no such directory."""

    def content(self, path: str) -> Content | None:
        """Return the content of regular file *path*, None if there is none."""

    def read(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes | None:
        """Return the bytes of regular file *path*, None if there is none.

        Raises:
            LimitError: longer than *limit* bytes.
        """


class Identifier(abc.ABC):
    """Takes layers, and tells which identity an image of them has. Use as a context manager.

    What it was given may be gone when it is closed, and `content` may know only what an image's boot and settings need.
    """

    options: ChosenFormat
    """Version and algorithm in force."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Release the lock and temporary files."""

    # --- layers -------------------------------------------------------------------------------

    @abc.abstractmethod
    def has_layer(self, diff_id: Digest) -> bool:
        """Return whether the layer is here completely."""

    def verify_layer(self, diff_id: Digest) -> bool:
        """Return whether the layer is here and all its bytes, read anew, are what *diff_id* says.

        Where it answers False, `has_layer` does so too until the layer is imported again, which replaces what is there.
        Asked for where somebody else could have written to the repository. As it is here, the format cannot tell.

        Raises:
            StorageError: it cannot be told.
        """
        from cfs_core.errors import StorageError

        msg = f"layer {diff_id} is here, and this storage format cannot check it"
        raise StorageError(msg, hint="use a repository that is your own (--repo)")

    @abc.abstractmethod
    def import_layer(self, layer: LayerStream) -> None:
        """Store the layer's files while reading it, and publish it once it is verified. Memory stays flat.

        Raises:
            StorageError: no space, not writable, damaged. What `layer` raises passes through, nothing published.
        """

    def layer_job(self) -> LayerJob | None:
        """Return what imports layers for this repository in other processes; None, as here, if only this one can."""
        return None

    def import_with_job(self, diff_id: Digest, run: Callable[[], JobResult]) -> None:
        """Publish a layer that another process imports: *run* has its `layer_job` do so. Called from any thread.

        Needed only where `layer_job` returns one.

        Raises:
            StorageError: as for `import_layer`. What is in the result's ``error``, and what *run* raises.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def layer_entries(self, diff_id: Digest) -> Iterator[LayerEntry]:
        """Yield the entries of a stored layer in stream order, contents as ``object`` or ``data``.

        Raises:
            StorageError: not here, or damaged.
        """

    @abc.abstractmethod
    def image_ids(
        self, tree: Directory, options: Sequence[FormatOptions] = (), *, bootable: bool
    ) -> tuple[ImageId, ...]:
        """Return the identity of *tree* (merged layers) under each of *options*; writes nothing.

        Empty *options* means the repository's own.
        """

    @abc.abstractmethod
    def content(self, object_id: ObjectId) -> Content:
        """Return stored content.

        Raises:
            StorageError: not here.
        """


class Repository(Identifier):
    """An open repository, where layers and images stay. It holds the repository's shared lock until it is closed."""

    @abc.abstractmethod
    def commit(
        self, tree: Directory, image: ResolvedImage, *, options: FormatOptions | None = None, name: str | None = None
    ) -> CommittedImage:
        """Store plain and bootable image of *tree*, manifest and config, and tag them; *tree* stays as it is.

        Durably, in this order: objects, streams, refs.

        ``options`` differ from the repository's only where a sealed UKI asks for it. ``name`` is the tag; None uses
        the manifest digest (bootc's way).

        Raises:
            ImageError: the tree cannot become a bootable image (no /usr).
            StorageError: as for `import_layer`.
        """

    @abc.abstractmethod
    def open_tree(self, image: ImageId) -> Directory:
        """Read a committed image back as a tree.

        Raises:
            StorageError: not here or damaged.
        """

    @abc.abstractmethod
    def kernel_arguments(self, image: CommittedImage, *, verity: bool) -> tuple[KernelArgument, ...]:
        """Return what the initramfs must be told to mount *image*; ``verity`` False makes enforcement optional."""

    @abc.abstractmethod
    def plan_export(self, images: Sequence[CommittedImage], root: Location, *, verity: bool) -> Iterator[Action]:
        """Yield actions that make a complete repository with just these images at *root* (``ROOT:/composefs``)."""

    # --- housekeeping -------------------------------------------------------------------------

    @abc.abstractmethod
    def images(self) -> tuple[StoredImage, ...]:
        """List tagged images by name."""

    @abc.abstractmethod
    def resolved(self, name: str) -> tuple[StoredImage, bytes, bytes]:
        """Return an image by tag, manifest digest or image id, with raw manifest and config.

        Raises:
            StorageError: no such image (code ``storage.not-found``).
        """

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Drop a tag; what only it kept goes with the next garbage collection."""

    @abc.abstractmethod
    def fsck(self) -> Iterable[Finding]:
        """Read everything and yield what is wrong."""

    @abc.abstractmethod
    def collect_garbage(self, keep: Iterable[ImageId] = (), *, dry_run: bool = False) -> GcReport:
        """Remove what no tag and nothing in *keep* needs. Takes the exclusive lock.

        Raises:
            StorageError: somebody else uses the repository (code ``storage.locked``).
        """


class FileReader(Protocol):
    """Read-only view of a filesystem that is not mounted: a volume inside a disk image, or a directory."""

    def names(self, path: str) -> tuple[str, ...]:
        """Return sorted names in directory *path*.

        Raises:
            FileNotFoundError, NotADirectoryError: as the os module does.
        """

    def kind(self, path: str) -> str | None:
        """Return ``file``, ``directory``, ``symlink``, ``special``, or None. Links are not followed."""

    def read_link(self, path: str) -> str:
        """Return a link's target."""

    def open(self, path: str) -> BinaryIO:
        """Open a regular file (links not followed)."""

    def size(self, path: str) -> int:
        """Return a regular file's size in bytes."""

    def verity_digest(self, path: str) -> str | None:
        """Return the fs-verity digest the filesystem holds for *path*, ``algorithm:hex``; None if verity is off."""


@runtime_checkable
class MetadataReader(Protocol):
    """What a `FileReader` has besides where its filesystem keeps owners, permissions and links (ext4 does, FAT not).

    Links are not followed; what is not there raises as the os module does.
    """

    def attributes(self, path: str) -> Attributes:
        """Return permissions (07777), owner, modification time and extended attributes."""

    def device(self, path: str) -> int:
        """Return the device number of a special file as Linux encodes it in 32 bits; 0 of one that is no device."""

    def same_file(self, path: str, other: str) -> bool:
        """Return whether two names are hard links of one file."""


class StorageFormat(abc.ABC):
    """A way to keep trees. Stateless; repositories hold the state."""

    @abc.abstractmethod
    def open(self, path: Path, *, create: bool = False, options: FormatOptions | None = None) -> Repository:
        """Open the repository at *path*.

        Raises:
            StorageError: not a repository, of an unknown format, or its options contradict *options*.
        """

    @abc.abstractmethod
    def scratch(self, options: FormatOptions) -> AbstractContextManager[Identifier]:
        """Tell identities of images that nobody wants stored; what it needed for that goes with the context."""

    @abc.abstractmethod
    def scan(self, path: Path, options: FormatOptions) -> Directory:
        """Read a directory as it is on disk: metadata, links, contents identified (not stored).

        Raises:
            ImageError: something unreadable; the message names it.
        """

    @abc.abstractmethod
    def read_dump(self, dump: BinaryIO) -> Directory:
        """Read a tree from its text form (composefs-dump(5)).

        Raises:
            ImageError: malformed; the message has the line number.
        """

    @abc.abstractmethod
    def write_dump(self, tree: Directory, out: BinaryIO, options: FormatOptions) -> None:
        """Write *tree* as text, depth first."""

    @abc.abstractmethod
    def canonical(self, tree: Directory, options: FormatOptions) -> None:
        """Give *tree* (merged layers) its canonical form, in place (formats E.2)."""

    @abc.abstractmethod
    def bootable(self, tree: Directory, reader: TreeReader) -> None:
        """Give a canonical *tree* its bootable form, in place (formats E.3, E.4)."""

    @abc.abstractmethod
    def write_image(self, tree: Directory, out: BinaryIO, options: FormatOptions) -> ImageId:
        """Write the image of *tree* exactly as it is, and return its identity."""

    def is_repository(self, path: Path) -> bool:
        """Return whether a repository is at *path* of this host, whatever state it is in; else one may be made there.

        As it is here: anything in that directory is one.
        """
        return path.is_dir() and any(path.iterdir())

    def recognises(self, files: FileReader, root: str) -> bool:
        """Return whether a repository of this format is at *root* of a filesystem that is not mounted.

        False, as here, where the format cannot tell: its disks are then not checked by ``fsck --disk``.
        """
        del files, root
        return False

    @abc.abstractmethod
    def check_files(self, files: FileReader, root: str) -> Iterable[Finding]:
        """Check the repository at *root* of a filesystem that is not mounted, file by file, and yield what is wrong."""

    def has_file(self, files: FileReader, root: str, content: Content) -> bool:
        """Return whether an image in the repository at *root*, as in `check_files`, has a file of this very content.

        False where the format cannot tell.
        """
        del files, root, content
        return False
