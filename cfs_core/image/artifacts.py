"""What an image offers to boot from: unified kernel images, or kernels with an initramfs (formats E.5)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cfs_core.bls import split_arguments
from cfs_core.bls.version import version_key
from cfs_core.errors import ImageError
from cfs_core.image.boot_files import MODULES, initrd_path, kernel_path
from cfs_core.image.kernel import read_kernel
from cfs_core.image.pe import read_pe
from cfs_core.image.uki_files import ADDON_DIRECTORY, beside_modules, on_esps, refuse_overlooked
from cfs_core.model.boot import BootArtifacts, EntryKind, KernelForm, UkiAddon
from cfs_core.model.content import BytesContent, read_all

if TYPE_CHECKING:
    from cfs_core.image.kernel import KernelFile
    from cfs_core.image.uki_files import EfiFile
    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.model.content import Content

ENTRIES = "/boot/loader/entries"
OS_RELEASE = ("/usr/lib/os-release", "/etc/os-release")
_OS_RELEASE_LIMIT = 64 * 1024
_CHUNK = 1 << 20
_INITRD_ALIGNMENT = 4


def find_artifacts(image: TreeReader) -> tuple[BootArtifacts, ...]:
    """Return everything the image offers to boot, best first: UKIs before kernels, newest version first.

    Of kernels those that are whole and have an initramfs come first.

    Raises:
        ImageError: the image brings ready-made boot entries, or a file that should be a UKI is none.
    """
    entries = [name for name in image.names(ENTRIES) if name.endswith(".conf")]
    if entries:
        msg = f"the image has boot entries of its own: {ENTRIES}/{entries[0]}"
        raise ImageError(
            msg,
            hint="entries are written when an image is installed; remove the file from the image, and put its kernel "
            "to /usr/lib/modules/VERSION/vmlinuz with initramfs.img beside it",
        )
    return (*_ukis(image), *_kernels(image))


def with_initrd(artifacts: BootArtifacts, content: Content) -> BootArtifacts:
    """Return *artifacts* of a kernel with one more initrd, which is unpacked last."""
    extra = (*artifacts.extra_initrds, content)
    digest = _digest(artifacts.kernel, artifacts.initrd, *extra)
    return replace(artifacts, extra_initrds=extra, boot_digest=digest)


def with_one_initrd(artifacts: BootArtifacts) -> BootArtifacts:
    """Return *artifacts* with all their initrds in one, as loaders that read several give them to the kernel.

    Each starts at a multiple of four bytes (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    if not artifacts.extra_initrds:
        return artifacts
    joined = bytearray()
    for content in artifacts.initrds:
        joined += bytes(-len(joined) % _INITRD_ALIGNMENT) + read_all(content)
    initrd = BytesContent(bytes(joined))
    digest = _digest(artifacts.kernel, initrd)
    return replace(artifacts, initrd=initrd, extra_initrds=(), boot_digest=digest)


def read_os_release(image: TreeReader) -> tuple[tuple[str, str], ...]:
    """Return the image's os-release as keys and values, empty if it has none."""
    for path in OS_RELEASE:
        raw = image.read(path, limit=_OS_RELEASE_LIMIT)
        if raw is not None:
            return parse_os_release(raw.decode("utf-8", "replace"))
    return ()


def parse_os_release(text: str) -> tuple[tuple[str, str], ...]:
    """Parse os-release(5): shell assignments without expansion. Lines that are none are skipped, as others do."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.fullmatch(line.strip())
        if match is not None:
            key, double, single, bare = match.groups()
            value = (
                single if single is not None else re.sub(r'\\(["\\$`])', r"\1", double if double is not None else bare)
            )
            found[key] = value
    return tuple(found.items())


_ASSIGNMENT = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s"']*))""")


def _ukis(image: TreeReader) -> list[BootArtifacts]:
    files = list(on_esps(image, "EFI", "Linux"))
    for version in image.names(MODULES):
        files += beside_modules(image, f"{MODULES}/{version}", version)
    global_files = list(on_esps(image, "loader", "addons"))
    global_addons = [
        UkiAddon(name=file.name, content=file.content, is_global=True) for file in global_files if file.is_addon
    ]
    found = []
    for file in files:
        if not file.is_addon:
            own = f"{file.path}{ADDON_DIRECTORY}"
            addons = [
                UkiAddon(name=addon.name, content=addon.content)
                for addon in files
                if addon.is_below(own) and addon.is_addon
            ]
            found.append(_uki(file, (*addons, *global_addons), image))
    kernels = [f"{MODULES}/{version}/vmlinuz" for version in image.names(MODULES)]
    refuse_overlooked(image, {file.path for file in (*files, *global_files)}, kernels)
    return sorted(found, key=_newest_first, reverse=True)


def _uki(file: EfiFile, addons: tuple[UkiAddon, ...], image: TreeReader) -> BootArtifacts:
    try:
        pe = read_pe(file.content)
        linux, initrd = pe.section(".linux"), pe.section(".initrd")
        if linux is None:
            msg = "it has no .linux section"
            raise ImageError(msg)  # noqa: TRY301 - all of these get the file's name
        for addon in addons:
            read_pe(addon.content)
        version = pe.text(".uname", limit=1024).strip() or file.version
        return BootArtifacts(
            kind=EntryKind.UKI,
            kernel_version=version or _version_inside(linux, image),
            boot_digest=_digest(linux, initrd),
            uki=file.content,
            uki_name=file.name,
            addons=addons,
            sealed_arguments=split_arguments(pe.text(".cmdline")),
            os_release=parse_os_release(pe.text(".osrel", limit=_OS_RELEASE_LIMIT)),
            path=file.path,
            kernel_forms=frozenset({KernelForm.EFI}) if pe.is_efi else frozenset(),
            architecture=pe.architecture,
        )
    except ImageError as error:
        msg = f"{file.path} is not a usable UKI: {error.message}"
        raise ImageError(msg, hint="build it again with ukify, or remove it from the image") from error


def _version_inside(linux: Content, image: TreeReader) -> str:
    """Return the version of a UKI that does not state it: its kernel's own, or that of the only modules there are."""
    inner = _as_kernel(linux)
    if inner is not None and inner.version:
        return inner.version
    versions = image.names(MODULES)
    return versions[0] if len(versions) == 1 else ""


def _as_kernel(content: Content) -> KernelFile | None:
    """Read a kernel's headers; what keeps it from being one is told when it is judged."""
    try:
        return read_kernel(content)
    except ImageError:
        return None


def _kernels(image: TreeReader) -> list[BootArtifacts]:
    found = []
    release = read_os_release(image)
    for version in image.names(MODULES):
        path = kernel_path(image, version)
        kernel = image.content(path) if path is not None else None
        if path is None or kernel is None:
            continue
        read = _as_kernel(kernel)
        place = initrd_path(image, version)
        initrd = image.content(place) if place is not None else None
        found.append(
            BootArtifacts(
                kind=EntryKind.BLS,
                kernel_version=version,
                boot_digest=_digest(kernel, initrd),
                kernel=kernel,
                initrd=initrd,
                os_release=release,
                path=path,
                kernel_forms=read.forms if read is not None else frozenset(),
                architecture=read.architecture if read is not None else None,
            )
        )
    found.sort(key=_newest_first, reverse=True)
    return sorted(found, key=lambda artifacts: (artifacts.initrd is None) + 2 * (not artifacts.kernel_forms))


def _digest(*parts: Content | None) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        if part is not None:
            with part.open() as file:
                while data := file.read(_CHUNK):
                    hasher.update(data)
    return hasher.hexdigest()


def kernel_order(version: str) -> Any:  # noqa: ANN401 - whatever sorts
    """Return a sort key, oldest first, for names of kernels: a release is newer than its candidates.

    Names of kernels have ``-rc7`` or ``.rc7`` where the version format specification (UAPI.10) wants ``~rc7``.
    """
    return version_key(_CANDIDATE.sub(r"\1~rc", version))


_CANDIDATE = re.compile(r"([0-9])[-._]?rc(?=[0-9])")


def _newest_first(artifacts: BootArtifacts) -> tuple[Any, str]:
    return kernel_order(artifacts.kernel_version), artifacts.uki_name or ""
