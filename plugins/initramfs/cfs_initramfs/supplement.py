"""Makes the initrd that early boot is added with: script, hooks, modules and programs that an image's own lacks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from cfs_core.plugin import BytesContent, EntryKind, ImageError, InitramfsAddition, InitramfsVerdict
from cfs_initramfs.borrowed import FOLDER, FOLDERS, borrow
from cfs_initramfs.handlers import CFS
from cfs_initramfs.kinds import kind_of, unhelped
from cfs_initramfs.modules import plain_path, read_modules
from cfs_initramfs.pack import Packed, archive, compress
from cfs_initramfs.place import packaged

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from cfs_core.plugin import BootArtifacts, TreeReader
    from cfs_initramfs.contents import Contents
    from cfs_initramfs.kinds import Kind

SHELL = "bin/sh"
REQUIRED = ("erofs", "overlay")
WELCOME = ("loop", "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "sd_mod", "nvme")
"""Modules that are added where the image has them: a kernel without them has another way, or never such a disk."""

STRONG = ("mount", "umount")
"""Programs that must be util-linux's: those of klibc and busybox know less."""

TOOLS = (*STRONG, "mkdir", "cat", "chmod")
_REBUILD = "build it again in the image with early boot in it: `cfs initramfs install ROOTDIR` places the hooks"


class CannotAddError(Exception):
    """Why nothing can be added, and what helps."""

    def __init__(self, reason: str, hint: str = _REBUILD) -> None:
        super().__init__(reason)
        self.verdict = InitramfsVerdict(supported=False, reason=reason, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What an initramfs is looked at for: its *contents*, and of what image it is."""

    contents: Contents
    artifacts: BootArtifacts
    image: TreeReader
    filesystem: str
    readable: AbstractSet[str]
    """Compressions that the kernel can unpack."""


def make_addition(lack: Lack) -> InitramfsAddition:
    """Return what makes early boot of the initramfs.

    Raises:
        CannotAddError: it cannot be helped.
    """
    kind = _kind(lack)
    files = {"usr/lib/cfs/cfs-setup-root": Packed(packaged("cfs-setup-root"), 0o755), **kind.hooks(lack.contents)}
    try:
        modules = _modules(lack)
        programs = borrow(_weak(lack.contents), lack.image)
    except ImageError as error:
        raise CannotAddError(error.message, error.hint or _REBUILD) from error
    if modules:
        _need_loader(lack.contents)
    listing = "".join(f"{name}.ko\n" for name in modules)
    files |= {f"{FOLDER}/modules/{name}.ko": Packed(data) for name, data in modules.items()}
    files |= {f"{FOLDER}/modules/list": Packed(listing.encode())}
    files |= {f"{FOLDER}/load-modules": Packed(packaged("added/load-modules"), 0o755), **programs}
    resolved = {_resolved(lack.contents, path): file for path, file in files.items()}
    contains = [f"the early-boot script and its hooks for {kind.name}"]
    contains += [f"the modules {', '.join(modules)}"] if modules else []
    contains += [f"the image's {', '.join(_weak(lack.contents))}"] if programs else []
    return InitramfsAddition(content=BytesContent(compress(archive(resolved), lack.readable)), contains=tuple(contains))


def _kind(lack: Lack) -> Kind:
    """Return the kind of initramfs, if the script can run in it at all."""
    contents, version = lack.contents, lack.artifacts.kernel_version
    if contents.programs.full:
        message = "the initramfs has more files than are looked at"
        raise CannotAddError(message)
    if contents.versions and version not in contents.versions:
        found = ", ".join(sorted(contents.versions))
        message = f"the initramfs has modules of kernel {found}, the image boots {version}"
        raise CannotAddError(message, f"rebuild the initramfs for {version}")
    kind = kind_of(contents)
    if kind is None:
        message = f"the initramfs is {unhelped(contents)}"
        raise CannotAddError(message)
    problem = contents.programs.problem(SHELL, lack.artifacts.architecture)
    if problem is not None:
        message = f"the initramfs has no shell: /{SHELL}: {problem}"
        raise CannotAddError(message)
    return kind


def _modules(lack: Lack) -> dict[str, bytes]:
    """Return the modules to add by name, in the order in which they can be loaded.

    Raises:
        ImageError: one that is required is not in the image, or one is damaged.
    """
    known = read_modules(lack.image, lack.artifacts.kernel_version)
    version = lack.artifacts.kernel_version
    wanted = [*REQUIRED, lack.filesystem, *(name for name in WELCOME if name in known.paths)]
    orders = [known.order(name) for name in wanted]
    # with all that one needs, which may be there and not be loaded yet
    there = lack.contents.modules
    missing = [order for order in orders if order and (version, plain_path(known.paths[order[-1]])) not in there]
    return {name: known.read(name, lack.image) for name in dict.fromkeys(chain.from_iterable(missing))}


def _weak(contents: Contents) -> list[str]:
    """Return the programs that the script needs, and that the initramfs has not, or not good enough."""
    weak = []
    for name in TOOLS:
        places = [contents.programs.resolve(f"{folder}/{name}") for folder in FOLDERS]
        found = next((place for place in places if place in contents.programs.files), None)
        program = contents.programs.program(found) if found is not None else None
        same = found is not None and found.rpartition("/")[2] == name
        small = program is not None and "klibc" in (program.interpreter or "")
        if program is None or (name in STRONG and (small or not same)):
            weak.append(name)
    return weak


def _need_loader(contents: Contents) -> None:
    places = [contents.programs.resolve(f"{folder}/{name}") for folder in FOLDERS for name in ("insmod", "modprobe")]
    if not any(place in contents.programs.files for place in places):
        message = "the initramfs has no program that loads kernel modules: neither insmod nor modprobe"
        raise CannotAddError(message)


def _resolved(contents: Contents, path: str) -> str:
    """Follow the links of directories in the initramfs: a directory unpacked over one would hide what it leads to."""
    folder, _, name = path.rpartition("/")
    parent = contents.programs.resolve(folder)
    if parent is None:
        message = f"links to /{folder} in the initramfs go round in circles"
        raise CannotAddError(message)
    return f"{parent}/{name}".lstrip("/")


def refuse_addition(artifacts: BootArtifacts, handler: str | None) -> None:
    """Refuse what can be refused without a look into the initramfs; *handler* is who mounts the root without us.

    Raises:
        CannotAddError: sealed, or somebody else's early boot is in it.
    """
    if artifacts.kind is EntryKind.UKI:
        message = "it is sealed in a unified kernel image"
        raise CannotAddError(message, f"{_REBUILD}; then build the UKI again")
    if handler not in {None, CFS.name}:
        message = f"the early boot of {handler} is in the initramfs, and two would mount over each other"
        raise CannotAddError(message, "leave out --early-boot always")
