"""Kernel, initramfs and UKI of an image: are they whole, for its CPU, and what its loader can start?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.deploy.bootable.nearby import initrds_elsewhere, kernels_elsewhere
from cfs_core.errors import ImageError
from cfs_core.image.artifacts import kernel_order
from cfs_core.image.boot_files import MODULES
from cfs_core.image.initrd import initrd_compression
from cfs_core.image.kernel import read_kernel, read_program
from cfs_core.model.boot import Architecture, EntryKind, Firmware, KernelForm
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cfs_core.interfaces.provider import BootloaderProvider
    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.model.boot import BootArtifacts
    from cfs_core.model.content import Content

WORDS = {
    KernelForm.EFI: "programs for UEFI (kernels with an EFI stub)",
    KernelForm.BZIMAGE: "bzImages",
    KernelForm.IMAGE: "uncompressed Images",
    KernelForm.GZIP: "Images compressed with gzip",
    KernelForm.ELF: "ELF files",
}


def examine_artifacts(
    artifacts: BootArtifacts, architecture: Architecture, loader: BootloaderProvider, firmware: Iterable[Firmware]
) -> Iterator[Finding]:
    """Say what keeps *loader* on *firmware* from starting what was chosen of an image for *architecture*."""
    if artifacts.kind is EntryKind.UKI:
        yield from _examine_uki(artifacts, architecture)
    elif artifacts.kernel is not None:
        yield from _examine_kernel(artifacts, artifacts.kernel, loader, firmware)
        if artifacts.initrd is not None:
            yield from _examine_initrd(
                artifacts.initrd, f"the initramfs of kernel {artifacts.kernel_version} of the image"
            )
    found = artifacts.architecture
    if found is not None and found is not architecture:
        message = f"the image says it is for {architecture.value}, but its kernel is for {found.value}"
        yield Finding.error("image.architecture", message, "fix the image's platform, or put the right kernel into it")


def _examine_kernel(
    artifacts: BootArtifacts, kernel: Content, loader: BootloaderProvider, firmware: Iterable[Firmware]
) -> Iterator[Finding]:
    where = artifacts.path
    try:
        forms = read_kernel(kernel).forms
    except ImageError as cause:
        yield Finding.error("boot.kernel", f"{where} of the image cannot be started: {cause.message}", _again(where))
        return
    reason = unstartable(forms, loader, firmware)
    if reason is not None:
        hint = (
            "choose another --bootloader, or a kernel that is built with CONFIG_EFI_STUB and not compressed as a whole"
        )
        yield Finding.error("boot.kernel-form", f"{where} of the image: {reason}", hint)


def unstartable(forms: frozenset[KernelForm], loader: BootloaderProvider, firmware: Iterable[Firmware]) -> str | None:
    """Return why *loader* cannot start a kernel of *forms* from every *firmware*; None if it can, or says nothing.

    Firmware that the loader itself does not start from is not its kernel's fault.
    """
    if not loader.kernels:
        return None
    for each in sorted(loader.firmware.intersection(firmware)):
        startable = loader.kernels if each is Firmware.UEFI else loader.kernels - {KernelForm.EFI}
        if not forms & startable:
            wanted = " and ".join(WORDS[form] for form in KernelForm if form in startable) or "no kernel"
            is_one = " and ".join(sorted(form.value for form in forms))
            return f"{loader.name} starts {wanted} from {each.value}, and this kernel has the form {is_one}"
    return None


def _again(where: str) -> str:
    return f"install the kernel's package again in the image, or copy its kernel to {where}"


def _examine_initrd(initrd: Content, where: str) -> Iterator[Finding]:
    try:
        initrd_compression(initrd)
    except ImageError as cause:
        message = f"{where} cannot be unpacked: {cause.message}"
        yield Finding.error(
            "boot.initrd", message, "build it again in the image, with dracut, mkinitcpio or mkinitramfs"
        )


def _examine_uki(artifacts: BootArtifacts, architecture: Architecture) -> Iterator[Finding]:
    hint = "build it again with ukify"
    if artifacts.uki is None:
        return
    try:
        program = read_program(artifacts.uki)
        linux, initrd = program.section(".linux"), program.section(".initrd")
        if linux is not None and KernelForm.EFI not in read_kernel(linux).forms:
            message = f"the kernel in {artifacts.path} of the image has no EFI stub, which a UKI starts it by"
            yield Finding.error("boot.uki", message, hint)
    except ImageError as cause:
        yield Finding.error("boot.uki", f"{artifacts.path} of the image cannot be started: {cause.message}", hint)
        return
    if initrd is not None:
        yield from _examine_initrd(initrd, f"the initramfs in {artifacts.path} of the image")
    for addon in artifacts.addons:
        try:
            found = read_program(addon.content).architecture
        except ImageError as cause:
            yield Finding.error("boot.uki", f"the addon {addon.name} of the image is left out: {cause.message}", hint)
            continue
        if found is not architecture:
            name = found.value if found is not None else "another CPU"
            message = f"the addon {addon.name} of the image is for {name}, and firmware starts none but its own"
            yield Finding.error("image.architecture", message, hint)


def examine_initrd_presence(artifacts: BootArtifacts, image: TreeReader) -> Iterator[Finding]:
    """Say where an initramfs is looked for, and what is there under other names, if a kernel has none."""
    if artifacts.kind is not EntryKind.BLS or artifacts.initrd is not None:
        return
    wanted = f"{MODULES}/{artifacts.kernel_version}/initramfs.img"
    near = initrds_elsewhere(image, artifacts.kernel_version)
    message = f"kernel {artifacts.kernel_version} of the image has no initramfs: {wanted} is not there"
    message += f" ({', '.join(near)} is, and nothing looks for it there)" if near else ""
    hint = f"in the image: mv {near[0]} {wanted}" if near else f"build it in the image, to {wanted}"
    yield Finding.error("boot.initramfs", message, hint)


def examine_choice(artifacts: Sequence[BootArtifacts], image: TreeReader) -> Iterator[Finding]:
    """Say which kernels are left out for the chosen one, the first of *artifacts*, and why."""
    chosen, *others = artifacts
    newest = kernel_order(chosen.kernel_version)
    for other in others:
        if other.kernel_version == chosen.kernel_version:
            continue
        name, newer = _name(other), kernel_order(other.kernel_version) > newest
        if other.kind is EntryKind.BLS and (reason := _incomplete(other, image)):
            message = f"{name} is left out: {reason}"
            yield (Finding.warning if newer else Finding.note)(
                "boot.kernel-left-out", message, "complete it, or remove it"
            )
        elif newer:
            message = f"{name} is newer, and left out: {_name(chosen)} is taken, as UKIs come before kernels"
            yield Finding.warning("boot.kernel-left-out", message, "remove the UKI, or build one of the newer kernel")
        else:
            message = f"{name} is left out: {_name(chosen)} is started"
            yield Finding.note("boot.kernel-left-out", message, "remove it from the image if nothing needs it")
    known = {other.kernel_version for other in artifacts}
    for version in image.names(MODULES):
        near = [] if version in known else kernels_elsewhere(image, version)
        if near:
            message = f"kernel {version} is left out: {MODULES}/{version}/vmlinuz is not there ({', '.join(near)} is)"
            hint = f"in the image: mv {near[0]} {MODULES}/{version}/vmlinuz"
            make = Finding.warning if kernel_order(version) > newest else Finding.note
            yield make("boot.kernel-left-out", message, hint)


def _name(artifacts: BootArtifacts) -> str:
    if artifacts.kind is EntryKind.UKI:
        return f"the UKI {artifacts.path} of kernel {artifacts.kernel_version or 'unknown'}"
    return f"kernel {artifacts.kernel_version}"


def _incomplete(artifacts: BootArtifacts, image: TreeReader) -> str | None:
    """Return what a kernel lacks, None if it is complete."""
    if artifacts.kernel is not None and not artifacts.kernel_forms:
        try:
            read_kernel(artifacts.kernel)
        except ImageError as cause:
            return f"{artifacts.path}: {cause.message}"
    if artifacts.initrd is None:
        near = initrds_elsewhere(image, artifacts.kernel_version)
        beside = f" ({', '.join(near)} is)" if near else ""
        return f"{MODULES}/{artifacts.kernel_version}/initramfs.img is not there{beside}"
    return None
