"""SOURCE arguments: an image reference, ``dir:PATH`` or ``dump:FILE``, as a tree in the form that was asked for."""

from __future__ import annotations

import enum
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError, UsageError
from cfs_core.image.pull import merged_tree, pull_layers
from cfs_core.image.reader import ImageReader
from cfs_core.image.resolve import resolve
from cfs_core.model.content import FileContent
from cfs_core.model.tree import Directory, RegularFile, lookup, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfs_core.image.limits import ImageLimits
    from cfs_core.interfaces.context import Progress
    from cfs_core.interfaces.fetcher import ImageLocation
    from cfs_core.interfaces.storage import StorageFormat
    from cfs_core.model.content import Content
    from cfs_core.model.deployment import FormatOptions
    from cfs_core.model.event import Event
    from cfs_core.model.manifest import Platform
    from cfs_core.model.tree import ObjectId


class Form(enum.StrEnum):
    """What is done to a tree before it is measured."""

    AS_IS = "as-is"
    CANONICAL = "canonical"
    BOOTABLE = "bootable"


@dataclass(frozen=True, slots=True)
class Source:
    """A SOURCE argument, parsed: a directory, a dump file, or an image somewhere."""

    kind: str
    """``dir``, ``dump`` or ``image``."""

    place: Path | ImageLocation

    @classmethod
    def parse(cls, text: str, locate: Callable[[str], ImageLocation]) -> Source:
        """Split *text*; *locate* parses what names an image.

        Raises:
            UsageError: as *locate*.
        """
        scheme, _, rest = text.partition(":")
        return cls(scheme, Path(rest)) if scheme in {"dir", "dump"} and rest else cls("image", locate(text))


@contextmanager
def open_tree(
    source: Source,
    form: Form | None,
    *,
    storage: StorageFormat,
    options: FormatOptions,
    platform: Platform | None,
    progress: Progress,
    emit: Callable[[Event], None],
    limits: ImageLimits | None = None,
) -> Iterator[Directory]:
    """Open *source* as a tree.

    ``form`` None means canonical for images and for directories that hold a ``/usr``, else as it is.

    Raises:
        UsageError: a form this source cannot have.
        ImageError, TransportError, StorageError: it cannot be read.
    """
    path = source.place
    if not isinstance(path, Path):
        with storage.scratch(options) as repository:
            made, reference = path
            image = resolve(made, reference, platform)
            pull_layers(made, image, repository, progress=progress, emit=emit, limits=limits)
            tree = merged_tree(repository, image, emit=emit, limits=limits)
            _transform(tree, form or Form.CANONICAL, storage, options, ImageReader(tree, repository.content))
            yield tree
        return
    if source.kind == "dump":
        if not path.is_file():
            msg = f"{path} is not a file"
            raise UsageError(msg, hint="name a dump file: dump:FILE")
        with path.open("rb") as dump:
            tree = storage.read_dump(dump)
        _transform(tree, form or Form.AS_IS, storage, options, ImageReader(tree, _no_content))
        yield tree
        return
    if not path.is_dir():
        msg = f"{path} is not a directory"
        raise UsageError(msg, hint="name a directory: dir:PATH")
    tree = storage.scan(path, options)
    chosen = form or (Form.CANONICAL if isinstance(lookup(tree, b"usr"), Directory) else Form.AS_IS)
    _transform(tree, chosen, storage, options, ImageReader(tree, _content_below(tree, path)))
    yield tree


def _transform(
    tree: Directory, form: Form, storage: StorageFormat, options: FormatOptions, reader: ImageReader
) -> None:
    if form is not Form.AS_IS:
        storage.canonical(tree, options)
    if form is Form.BOOTABLE:
        storage.bootable(tree, reader)


def _no_content(object_id: ObjectId) -> Content:
    msg = f"a dump file does not hold the content of {object_id:.16}…, which this form needs"
    raise ImageError(msg, hint="use the image or the directory that the dump was made from")


def _content_below(tree: Directory, root: Path) -> Callable[[ObjectId], Content]:
    """Return contents of a scanned directory by object name: the file that was scanned."""
    paths: dict[ObjectId, bytes] = {}

    def content(object_id: ObjectId) -> Content:
        if not paths:
            paths.update(
                (node.object, path) for path, node in walk(tree) if isinstance(node, RegularFile) and node.object
            )
        return FileContent.of(root / os.fsdecode(paths[object_id].lstrip(b"/")))

    return content
