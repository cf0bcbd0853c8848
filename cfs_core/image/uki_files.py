"""Where an image keeps unified kernel images and their addons, as FAT and its firmware read names: without case.

A UKI carries the seal of an image. One that were overlooked would have the image installed unsealed, so that whatever
cannot be found is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import split_arguments
from cfs_core.errors import CfsError, ImageError
from cfs_core.image.pe import read_pe
from cfs_core.image.reader import ImageReader
from cfs_core.model.tree import Directory, RegularFile, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.model.content import Content
    from cfs_core.model.tree import Node

ESPS = ("/boot", "/boot/efi", "/efi")
"""Where images have what belongs on the ESP; systemd and distributions mount it at each of them."""

EFI = ".efi"
ADDON = ".addon.efi"
ADDON_DIRECTORY = ".extra.d"
_MZ = b"MZ"
_SEALS = ("composefs=", "composefs.digest=")


@dataclass(frozen=True, slots=True)
class EfiFile:
    """A file that a loader could find. ``path`` is as the image writes it, ``version`` that of its modules or empty."""

    path: str
    content: Content
    version: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition("/")[2]

    @property
    def is_addon(self) -> bool:
        """Whether it adds to UKIs."""
        return self.path.lower().endswith(ADDON)

    def is_below(self, path: str) -> bool:
        """Return whether it is below the directory *path*, on a filesystem without case."""
        return self.path.lower().startswith(f"{path}/".lower())


def on_esps(image: TreeReader, *names: str) -> Iterator[EfiFile]:
    """Yield ``*.efi`` below the directory *names* (``EFI``, ``Linux``) of each place for the ESP, each file once.

    Raises:
        ImageError: a link, or a special file, where a file or directory should be.
    """
    seen: set[int] = set()
    for esp in ESPS:
        for path, directory in _matching(image, esp, names):
            if id(directory) not in seen:
                seen.add(id(directory))
                yield from _below(image, path, directory, "")


def beside_modules(image: TreeReader, directory: str, version: str) -> Iterator[EfiFile]:
    """Yield ``*.efi`` below *directory*, that of the modules of *version*.

    Raises:
        ImageError: as `on_esps`.
    """
    found = _resolved(image, directory)
    if isinstance(found, Directory):
        yield from _below(image, directory, found, version)


def refuse_overlooked(image: TreeReader, found: set[str], kernels: Iterable[str]) -> None:
    """Refuse an image with a sealed UKI that is none of the paths *found*: no loader would start it from there.

    Looked at is all that an ESP may have, and files that pass for *kernels*.

    Raises:
        ImageError: the file, and where it belongs.
    """
    seen: set[int] = set()
    paths = [path for path in kernels if image.content(path) is not None]
    for esp in ESPS:
        top = _resolved(image, esp)
        if isinstance(top, Directory):
            paths += _files(esp, top, seen)
    for path in paths:
        content = image.content(path) if path not in found else None
        if content is not None and _is_sealed(content):
            msg = f"{path} is a sealed UKI, and no loader looks for one there"
            raise ImageError(msg, hint="put it to /boot/EFI/Linux/NAME.efi, or remove it from the image")


def _resolved(image: TreeReader, path: str) -> Node | None:
    return ImageReader(image.root, _no_content).find(path)


def _no_content(_: object) -> Content:
    raise AssertionError  # only nodes are looked for


def _matching(image: TreeReader, base: str, names: tuple[str, ...]) -> Iterator[tuple[str, Directory]]:
    """Yield directories *names* below *base*, whatever their case; links lead where they lead in the image."""
    found = _resolved(image, base)
    pending = [(base, found, names)]
    while pending:
        here, node, left = pending.pop(0)
        if not isinstance(node, Directory):
            continue
        if not left:
            yield here, node
            continue
        for name in sorted(node.entries):
            if os.fsdecode(name).lower() == left[0].lower():
                path = f"{here}/{os.fsdecode(name)}"
                pending.append((path, _resolved(image, path), left[1:]))


def _below(image: TreeReader, directory: str, top: Directory, version: str) -> Iterator[EfiFile]:
    stack = [(directory, top)]
    while stack:
        here, node = stack.pop()
        for name, child in sorted(node.entries.items()):
            path = f"{here}/{os.fsdecode(name)}"
            if isinstance(child, Directory):
                stack.append((path, child))
            elif path.lower().endswith(EFI):
                content = image.content(path)
                if content is None:
                    msg = f"{path} is not a regular file"
                    raise ImageError(msg, hint="an ESP holds files and directories: put the UKI itself there")
                yield EfiFile(path, content, version)
            elif isinstance(child, Symlink) and image.names(path):
                msg = f"{path} is a link to a directory, which an ESP cannot hold: UKIs behind it would be overlooked"
                raise ImageError(msg, hint="make it a directory, or remove it from the image")


def _files(directory: str, top: Directory, seen: set[int]) -> Iterator[str]:
    stack = [(directory, top)]
    while stack:
        here, node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for name, child in sorted(node.entries.items()):
            path = f"{here}/{os.fsdecode(name)}"
            if isinstance(child, Directory):
                stack.append((path, child))
            elif isinstance(child, RegularFile):
                yield path


def _is_sealed(content: Content) -> bool:
    with content.open() as file:
        if file.read(len(_MZ)) != _MZ:
            return False
    try:
        pe = read_pe(content)
        words = split_arguments(pe.text(".cmdline"))
    except CfsError:  # a loader, a kernel, something else: no UKI that a firmware would start
        return False
    return pe.section(".linux") is not None and any(word.startswith(_SEALS) for word in words)
