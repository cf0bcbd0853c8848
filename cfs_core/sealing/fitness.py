"""Can an image boot sealed? What its kernel, initramfs, arguments and tables say, each with what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.config.advice import ADVICE
from cfs_core.deploy.preflight import examine_initramfs
from cfs_core.image.kernel_arguments import unquoted
from cfs_core.model.plan import Finding
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.model.boot import BootArtifacts, KernelArgument
    from cfs_core.sealing.opened import OpenedImage

STORAGE = "composefs"
FSTAB = "/etc/fstab"
_FSTAB_LIMIT = 1 << 20
_DEVICE_FIELDS = 2

# systemd.volatile=: the state of the machine is kept nowhere, and with overlay or yes the root is not the sealed one.
_REPLACES_ROOT = {"yes", "1", "true", "on", "overlay"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """What was found. ``arguments`` are those that the initramfs needs besides ``composefs=``."""

    findings: tuple[Finding, ...]
    arguments: tuple[str, ...] = ()
    handler: str | None = None


def examine(image: OpenedImage, artifacts: BootArtifacts, arguments: Iterable[KernelArgument]) -> Fitness:
    """Look whether *image* boots sealed, with this kernel and *arguments* on its command line."""
    findings = [*_examine_architecture(image, artifacts)]
    if artifacts.initrd is None and artifacts.uki is None:
        message = f"kernel {artifacts.kernel_version} has no initramfs, which is what mounts the sealed root"
        hint = f"make one in the image: /usr/lib/modules/{artifacts.kernel_version}/initramfs.img"
        findings.append(Finding.error("boot.initramfs", message, hint))
        return Fitness(findings=tuple(findings))
    verdict, problems = examine_initramfs(image.services, artifacts, image.reader, STORAGE)
    findings += [*problems, *examine_arguments(arguments), *_examine_fstab(image.reader), *_examine_filesystem(image)]
    needed = verdict.arguments if verdict is not None else ()
    handler = verdict.handler if verdict is not None else None
    return Fitness(findings=tuple(findings), arguments=needed, handler=handler)


def _examine_architecture(image: OpenedImage, artifacts: BootArtifacts) -> Iterator[Finding]:
    found = artifacts.architecture
    if found is not None and found is not image.architecture:
        message = f"the image says it is for {image.architecture.value}, but its kernel is for {found.value}"
        yield Finding.error("image.architecture", message, "fix the image's platform, or put the right kernel into it")


def examine_arguments(arguments: Iterable[KernelArgument]) -> Iterator[Finding]:
    """Say which arguments are fatal in a sealed command line, which no machine can change."""
    for argument in map(unquoted, arguments):
        key, _, value = argument.text.partition("=")
        where = f"{argument.text!r} of {argument.origin}"
        if key == "root" and not value.startswith(("gpt-auto", "dissect", "PARTLABEL=", "LABEL=")):
            message = f"{where} names the root of one machine, and a sealed command line is for all"
            yield Finding.error("boot.karg-root", message, "leave it out: UKIs find the root partition by its type")
        elif key == "rootfstype" and not {"ext4", "btrfs", "auto"} & set(value.split(",")):
            message = f"{where} asks for a root filesystem without fs-verity, which a sealed image requires"
            yield Finding.error("boot.karg-root", message, "leave it out, or use ext4")
        elif key == "systemd.volatile" and value in _REPLACES_ROOT:
            message = f"{where} puts another root in the place of the sealed one"
            yield Finding.error("boot.karg-volatile", message, "leave it out; the initramfs has a setting for that")


def _examine_fstab(image: TreeReader) -> Iterator[Finding]:
    raw = image.read(FSTAB, limit=_FSTAB_LIMIT) or b""
    for line in raw.decode("utf-8", "replace").splitlines():
        fields = line.split("#", 1)[0].split()
        if len(fields) >= _DEVICE_FIELDS and fields[1] == "/":
            message = f"{FSTAB} mounts {fields[0]} as /, which is the composefs root"
            yield Finding.error("boot.fstab-root", message, f"take the line of / out of {FSTAB} in the image")


def _examine_filesystem(image: OpenedImage) -> Iterator[Finding]:
    asked = image.settings().get("install.filesystem")
    known = image.services.host.collect(families.FILESYSTEMS)
    name = str(asked.value)
    if asked.origin.startswith(ADVICE) and (name not in known or not known.get(name).verity):
        message = f"{asked.origin} asks for the root filesystem {name}, which has no fs-verity"
        yield Finding.warning("disk.no-verity", message, "ask for ext4 there, or install with --filesystem ext4")
