"""Images and deployments in memory, for bootloaders and initramfs providers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import (
    BootArtifacts,
    BootEntry,
    BytesContent,
    Content,
    Directory,
    EntryKind,
    ObjectId,
    RegularFile,
    StorageError,
    Symlink,
    TreeReader,
)
from cfs_core.testing import ImageReader

if TYPE_CHECKING:
    from collections.abc import Mapping

ID_LENGTH = 128
"""Hex digits of a deployment's id (SHA-512)."""


def tree_of(files: Mapping[str, str | bytes]) -> Directory:
    """Return a tree with these files; ``-> target`` makes a symbolic link."""
    root = Directory(0o755)
    for path, content in files.items():
        *folders, name = path.strip("/").split("/")
        directory = root
        for folder in folders:
            found = directory.entries.setdefault(folder.encode(), Directory(0o755))
            if not isinstance(found, Directory):
                msg = f"{path}: {folder} is not a directory"
                raise TypeError(msg)
            directory = found
        if isinstance(content, str) and content.startswith("-> "):
            directory.entries[name.encode()] = Symlink(0o777, target=content[3:].encode())
            continue
        node = RegularFile(0o644)
        node.data = content.encode() if isinstance(content, str) else content
        node.size = len(node.data)
        directory.entries[name.encode()] = node
    return root


def image_of(files: Mapping[str, str | bytes]) -> TreeReader:
    """Return an image that holds these files."""
    return ImageReader(tree_of(files), _nothing_stored)


def _nothing_stored(object_id: ObjectId) -> Content:
    msg = f"object {object_id} is not stored: this image is all in memory"
    raise StorageError(msg)


def deployment(letter: str, kind: EntryKind = EntryKind.BLS, *, kernel: str | None = None, **more: Any) -> BootEntry:  # noqa: ANN401 - fields of BootEntry
    """Return a deployment whose id is *letter* repeated; those with the same *kernel* share their boot files."""
    kernel = letter if kernel is None else kernel
    identity = letter * ID_LENGTH
    argument = f"composefs={identity}"
    if kind is EntryKind.UKI:
        artifacts = BootArtifacts(
            kind=kind,
            kernel_version="6.12.0",
            boot_digest=hashlib.sha256(b"kernel" + letter.encode()).hexdigest(),
            uki=BytesContent(f"MZ unified kernel image {letter}".encode()),
            uki_name=f"{letter}.efi",
            sealed_arguments=("quiet", argument),
        )
        arguments: tuple[str, ...] = ()
    else:
        data, initrd = f"kernel {kernel}".encode(), f"initrd {kernel}".encode()
        artifacts = BootArtifacts(
            kind=kind,
            kernel_version="6.12.0",
            boot_digest=hashlib.sha256(data + initrd).hexdigest(),
            kernel=BytesContent(data),
            initrd=BytesContent(initrd),
        )
        arguments = ("quiet", argument, "rw")
    values: dict[str, Any] = {
        "deployment_id": identity,
        "kind": kind,
        "title": f"Test Linux {letter}",
        "version": "13",
        "os_id": "testos",
        "arguments": arguments,
        "artifacts": artifacts,
    }
    return BootEntry(**(values | more))
