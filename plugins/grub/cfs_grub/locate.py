"""Where images keep GRUB: prebuilt EFI programs, shim, modules. Found by looking, not by distribution name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.plugin import Architecture, find_pe
from cfs_grub.order import Sorting
from cfs_grub.program import built_in, loader_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.plugin import Content, TreeReader

EFI_TARGETS = {Architecture.AMD64: "x86_64-efi", Architecture.ARM64: "arm64-efi"}
BIOS_TARGET = "i386-pc"
BIOS_ARCHITECTURES = frozenset({Architecture.AMD64, Architecture.I386})
PROGRAM_LIMIT = 64 * 1024 * 1024
"""An EFI program of GRUB has 1 to 5 MiB; longer files (bytes) are not read."""

MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*\.mod")
"""File names of modules. Names become words of a command of the host, where ``-o`` would be an option."""

# Debian, Fedora and Arch have the first, openSUSE the second.
_MODULE_ROOTS = ("/usr/lib/grub", "/usr/share/grub2", "/usr/lib/grub2", "/usr/lib64/grub", "/usr/share/grub")
_VENDOR_ROOTS = ("/usr/lib/ostree-boot/efi/EFI", "/usr/lib/bootupd/updates/EFI", "/boot/efi/EFI")
_PACKAGE_ROOT = "/usr/lib/efi"
_PREFIX = re.compile(rb"\0(/EFI/[A-Za-z0-9_.+-]{1,40})\0")
FILESYSTEM_MODULES = {
    "ext4": "ext2",
    "ext3": "ext2",
    "ext2": "ext2",
    "btrfs": "btrfs",
    "xfs": "xfs",
    "vfat": "fat",
    "f2fs": "f2fs",
}
"""GRUB's module for a filesystem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An EFI program of an image that is ready to be started. ``companions`` are file names and contents beside it."""

    path: str
    content: Content
    signed: bool
    modules: frozenset[str]
    """Names of the modules it has built in. Others it could load only from where our menu is, which must be read first;
    under Secure Boot it could load none."""

    bls: Sorting | None
    """How it sorts Boot Loader Specification entries, None where it cannot read them."""

    prefixes: tuple[str, ...] = ()
    """Directories of the ESP where it looks for ``grub.cfg`` by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """A directory of GRUB modules in an image, from which a program can be made."""

    directory: str
    target: str
    names: frozenset[str]
    bls: Sorting | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shim:
    """shim, which starts a signed GRUB under Secure Boot, and its key manager where there is one."""

    path: str
    content: Content
    loader: str
    """Name of the file beside it that it starts."""

    manager: Content | None = None
    manager_name: str = ""


def find_program(image: TreeReader, architecture: Architecture) -> Program | None:
    """Return the EFI program of *image* for *architecture*: a signed one, else the one with most of what we use."""
    if architecture not in EFI_TARGETS:
        return None
    found = []
    for path in _program_paths(image, architecture):
        content = image.content(path)
        if content is not None and content.size <= PROGRAM_LIMIT:
            found.append(_examine(path, content, image.read(path, limit=PROGRAM_LIMIT) or b""))
    return max(found, key=lambda program: (program.signed, len(program.modules)), default=None)


def _program_paths(image: TreeReader, architecture: Architecture) -> Iterator[str]:
    name = f"grub{architecture.efi}.efi"
    target = EFI_TARGETS[architecture]
    machine = target.removesuffix("-efi").replace("arm64", "aarch64")
    for root in _MODULE_ROOTS:
        yield f"{root}/{target}-signed/{name}.signed"
        yield f"{root}/{target}/monolithic/{name}"
        yield f"{root}/{target}/grub.efi"
    yield from (f"/usr/share/efi/{machine}/grub.efi", "/usr/lib64/efi/grub.efi")
    for version in image.names(f"{_PACKAGE_ROOT}/grub2"):
        base = f"{_PACKAGE_ROOT}/grub2/{version}/EFI"
        yield from (f"{base}/{vendor}/{name}" for vendor in image.names(base))
    for root in _VENDOR_ROOTS:
        yield from (f"{root}/{vendor}/{name}" for vendor in image.names(root))


def _examine(path: str, content: Content, data: bytes) -> Program:
    # A signed program looks for grub.cfg only where it was told when it was made, and nobody else can change that.
    prefixes = tuple(dict.fromkeys(match.decode("ascii") for match in _PREFIX.findall(data)))
    vendor = re.search(r"/EFI/([A-Za-z0-9_.+-]+)/[^/]+$", path)
    if vendor and vendor[1].upper() != "BOOT":
        prefixes = tuple(dict.fromkeys([*prefixes, f"/EFI/{vendor[1]}"]))
    modules = frozenset(module.name for module in built_in(data))
    pe = find_pe(data)
    signed = pe is not None and pe.signed
    bls = _sorting(modules)
    return Program(path=path, content=content, signed=signed, modules=modules, bls=bls, prefixes=prefixes)


def _sorting(modules: frozenset[str]) -> Sorting | None:
    """Return how a GRUB with these modules sorts entry files.

    The command is called ``blscfg`` in both. Where Fedora's module of that name is, it is the one that registers the
    command, whether or not ``blsuki`` is there too (Fedora 44, RHEL 10).
    """
    if "blscfg" in modules:
        return Sorting.RPM
    return Sorting.FILEVERCMP if "blsuki" in modules else None


def find_modules(image: TreeReader, target: str) -> Modules | None:
    """Return the modules of *image* for *target* (``x86_64-efi``, ``i386-pc``)."""
    for root in _MODULE_ROOTS:
        directory = f"{root}/{target}"
        files = frozenset(image.names(directory))
        if {"kernel.img", "moddep.lst", "normal.mod"} <= files:
            names = frozenset(name.removesuffix(".mod") for name in files if MODULE.fullmatch(name))
            return Modules(directory=directory, target=target, names=names, bls=_sorting(names))
    return None


def find_shim(image: TreeReader, architecture: Architecture) -> Shim | None:
    """Return the shim of *image*, if it has one."""
    suffix = architecture.efi
    target = EFI_TARGETS.get(architecture, "")
    machine = target.removesuffix("-efi").replace("arm64", "aarch64")
    folders = ["/usr/lib/shim", f"/usr/share/efi/{machine}"]
    for version in image.names(f"{_PACKAGE_ROOT}/shim"):
        base = f"{_PACKAGE_ROOT}/shim/{version}/EFI"
        folders += [f"{base}/{vendor}" for vendor in image.names(base)]
    for root in _VENDOR_ROOTS:
        folders += [f"{root}/{vendor}" for vendor in image.names(root)]
    for folder in folders:
        for name in (f"shim{suffix}.efi.signed", f"shim{suffix}.efi", "shim.efi"):
            content = image.content(f"{folder}/{name}")
            if content is None:
                continue
            loader = loader_name(image.read(f"{folder}/{name}", limit=PROGRAM_LIMIT) or b"")
            shim = Shim(path=f"{folder}/{name}", content=content, loader=loader or f"grub{suffix}.efi")
            for file in (f"mm{suffix}.efi.signed", f"mm{suffix}.efi", "MokManager.efi"):
                manager = image.content(f"{folder}/{file}")
                if manager is not None:
                    return replace(shim, manager=manager, manager_name=file.removesuffix(".signed"))
            return shim
    return None
