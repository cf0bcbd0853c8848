"""Which boot artifacts, bootloader and firmware: asked for, configured, or what fits the image."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, NamedTuple

from cfs_core.config.keys import BY_NAME
from cfs_core.errors import ImageError, PluginError, UsageError
from cfs_core.model.boot import Architecture, BootArtifacts, EntryKind, Firmware
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from cfs_core.config.settings import Settings
    from cfs_core.image.reader import ImageReader
    from cfs_core.install.request import InstallRequest
    from cfs_core.interfaces.provider import BootloaderProvider, FilesystemProvider
    from cfs_core.pluginhost.registry import Registry


BOOTC_NAMES = {"systemd": "systemd-boot"}
"""Bootloaders that bootc calls something else (bootc-install-config(5))."""


class Choice(NamedTuple):
    """A value and who decided it."""

    value: str
    origin: str


def choose_architecture(name: str) -> Architecture:
    """Return the architecture of an image.

    Raises:
        ImageError: one that cfs cannot make bootable.
    """
    try:
        return Architecture(name)
    except ValueError:
        known = ", ".join(item.value for item in Architecture)
        msg = f"images for {name} cannot be made bootable; known architectures: {known}"
        raise ImageError(msg) from None


def choose_artifacts(artifacts: tuple[BootArtifacts, ...]) -> BootArtifacts:
    """Return the first of the image's boot artifacts (formats E.5).

    Raises:
        ImageError: there is none (code ``image.no-kernel``).
    """
    if not artifacts:
        msg = "the image has no kernel: neither /usr/lib/modules/VERSION/vmlinuz nor a UKI in /boot/EFI/Linux"
        raise NoKernelError(msg, hint="a bootable image keeps kernel and initramfs under /usr/lib/modules/VERSION/")
    return artifacts[0]


class NoKernelError(ImageError):
    """Nothing in the image can be booted."""

    code = "image.no-kernel"


def choose_firmware(request: InstallRequest, settings: Settings) -> frozenset[Firmware] | None:
    """Return the firmware that was asked for; None leaves it to the bootloader.

    Raises:
        UsageError: a word that is none.
    """
    if request.firmware is not None:
        return request.firmware
    setting = settings.get("install.firmware")
    if setting.value is None:
        return None
    return parse_firmware(str(setting.value), setting.origin)


def parse_firmware(text: str, origin: str) -> frozenset[Firmware]:
    """Read ``uefi``, ``bios``, ``u-boot``, or ``both`` for the first two.

    Raises:
        UsageError: another word.
    """
    if text == "both":
        return frozenset({Firmware.UEFI, Firmware.BIOS})
    try:
        return frozenset({Firmware(text)})
    except ValueError:
        msg = f"firmware {text!r} of {origin} is none of uefi, bios, both, u-boot"
        raise UsageError(msg) from None


def choose_bootloader(
    request: InstallRequest,
    settings: Settings,
    registry: Registry[BootloaderProvider],
    image: ImageReader,
    kind: EntryKind,
    firmware: frozenset[Firmware] | None,
) -> Choice:
    """Return the bootloader: command line, settings (image advice included), or the first whose files the image has.

    Raises:
        PluginError: none is installed, or none fits.
    """
    setting = settings.get("install.bootloader")
    name = request.bootloader or setting.value
    if name:
        origin = "command line" if request.bootloader else setting.origin
        asked = Choice(BOOTC_NAMES.get(str(name), str(name)), origin)
        _provider(registry, asked, "name another with --bootloader")
        return asked
    fitting = [
        provider
        for provider in registry
        if kind in provider.entries and (firmware is None or firmware <= provider.firmware)
    ]
    present = [provider for provider in fitting if any(_matches(image, pattern) for pattern in provider.marker_paths)]
    if present:
        # A loader that the image carries for this very purpose: the most specific marker wins.
        best = max(present, key=lambda provider: (_specificity(provider, image), provider.name))
        return Choice(best.name, "the image has its files")
    if len(fitting) == 1:
        return Choice(fitting[0].name, "the only bootloader that fits")
    names = ", ".join(provider.name for provider in registry) or "none is installed"
    wanted = " and ".join(sorted(firmware)) if firmware else "any firmware"
    msg = f"no bootloader can be chosen for {kind.value} entries on {wanted} (installed: {names})"
    raise PluginError(
        msg, hint="name one with --bootloader, or add its files to the image", family=families.BOOTLOADERS.name
    )


def choose_filesystem(request: InstallRequest, settings: Settings, registry: Registry[FilesystemProvider]) -> Choice:
    """Return the root filesystem: command line, or settings, image advice included.

    Raises:
        PluginError: none of that name is installed; the message says who asked for it.
    """
    setting = settings.get("install.filesystem")
    asked = Choice(request.filesystem or str(setting.value), "command line" if request.filesystem else setting.origin)
    default = str(BY_NAME["install.filesystem"].default)
    _provider(registry, asked, f"pass --filesystem {default}" if default in registry else None)
    return asked


def _provider(registry: Registry[Any], asked: Choice, instead: str | None) -> None:
    """Look the provider up; where settings or an image ask for one that is missing, the error says so."""
    try:
        registry.get(asked.value)
    except PluginError as cause:
        if asked.origin == "command line":
            raise
        hint = "; or ".join(filter(None, (instead, cause.hint)))
        msg = f"{cause.message}; {asked.origin} asks for it"
        raise PluginError(msg, hint=hint, **cause.facts, origin=asked.origin) from cause


def _specificity(provider: BootloaderProvider, image: ImageReader) -> int:
    return sum(_matches(image, pattern) for pattern in provider.marker_paths)


def _matches(image: ImageReader, pattern: str) -> bool:
    """Return whether a file of the image matches an absolute fnmatch pattern."""
    folders = [""]
    for part in pattern.strip("/").split("/"):
        if not any(sign in part for sign in "*?["):
            folders = [f"{folder}/{part}" for folder in folders]
            folders = [folder for folder in folders if image.exists(folder)]
        else:
            folders = [
                f"{folder}/{name}"
                for folder in folders
                for name in image.names(folder or "/")
                if fnmatch.fnmatch(name, part)
            ]
        if not folders:
            return False
    return True
