"""The loader's own file: where images keep it, which machine it is for, which version it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import read_file
from cfs_core.plugin import Architecture, BytesContent, ImageError, Location, Volume, read_pe

if TYPE_CHECKING:
    from cfs_core.plugin import Content, TargetView, TreeReader

_DIRECTORIES = ("/usr/lib/systemd/boot/efi", "/lib/systemd/boot/efi")
_VERSION = re.compile(rb"#### LoaderInfo: systemd-boot ([0-9]{1,9})")
_FULL_VERSION = re.compile(rb"#### LoaderInfo: systemd-boot ([0-9][!-~]*) ####")
LOADER_LIMIT = 8 * 1024 * 1024
"""systemd-boot has about 150 KiB; a file longer than this many bytes is something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderBinary:
    """A systemd-boot in an image. ``machine`` and ``version`` are None where the file does not say."""

    path: str
    content: Content
    machine: Architecture | None
    version: int | None
    damage: str | None = None
    """What is wrong with it as a PE file."""


def candidates(architecture: Architecture) -> tuple[str, ...]:
    """Return where an image may have the loader, a signed one first (as bootctl prefers it)."""
    name = f"systemd-boot{architecture.efi}.efi"
    return tuple(f"{directory}/{name}{suffix}" for directory in _DIRECTORIES for suffix in (".signed", ""))


def find(image: TreeReader, architecture: Architecture) -> LoaderBinary | None:
    """Return the loader of *image* for *architecture*."""
    for path in candidates(architecture):
        content = image.content(path)
        if content is not None and content.size <= LOADER_LIMIT:
            data = image.read(path, limit=LOADER_LIMIT) or b""
            machine, damage = None, None
            try:
                machine = read_pe(BytesContent(data)).architecture
            except ImageError as cause:
                damage = cause.message
            return LoaderBinary(path=path, content=content, machine=machine, version=version(data), damage=damage)
    return None


def version(data: bytes) -> int | None:
    """Return the systemd version a loader names in its LoaderInfo string; None if it is not systemd-boot."""
    match = _VERSION.search(data)
    return int(match[1]) if match else None


def full_version(data: bytes) -> str | None:
    """Return the version of a loader as its distribution writes it (``257.9-1~deb13u1``)."""
    match = _FULL_VERSION.search(data)
    return match[1].decode("ascii", "replace") if match else None


def places(architecture: Architecture) -> tuple[Location, Location]:
    """Return where the loader goes: its own directory, and the removable-media path (UEFI 2.10, 3.5.1.1)."""
    efi = Location(Volume.ESP, "/EFI")
    return (
        efi / "systemd" / f"systemd-boot{architecture.efi}.efi",
        efi / "BOOT" / f"BOOT{architecture.efi.upper()}.EFI",
    )


def installed_machines(target: TargetView) -> frozenset[str]:
    """Return EFI names of the architectures (``x64``) whose loader is on *target*."""
    own = ((architecture, places(architecture)[0]) for architecture in Architecture)
    return frozenset(architecture.efi for architecture, location in own if read_file(target, location) is not None)
