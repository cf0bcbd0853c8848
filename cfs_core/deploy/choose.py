"""Which boot artifacts, bootloader and firmware: asked for, configured, or what fits the image."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cfs_core.config.keys import BY_NAME
from cfs_core.config.settings import Rank
from cfs_core.deploy.bootable.nearby import anything_elsewhere
from cfs_core.errors import ImageError, PluginError, UsageError
from cfs_core.image.sealed import command_line, parse_words
from cfs_core.model.boot import Architecture, BootArtifacts, EntryKind, Firmware, UkiAddon
from cfs_core.model.content import FileContent
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cfs_core.config.settings import Setting, Settings
    from cfs_core.image.reader import ImageReader
    from cfs_core.interfaces.provider import BootloaderProvider, FilesystemProvider, StorageProvider
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


def choose_artifacts(artifacts: tuple[BootArtifacts, ...], image: ImageReader) -> BootArtifacts:
    """Return the first of the image's boot artifacts (formats E.5).

    Raises:
        ImageError: there is none (code ``image.no-kernel``); what seems to be one elsewhere is named.
    """
    if not artifacts:
        msg = "the image has no kernel: neither /usr/lib/modules/VERSION/vmlinuz nor a UKI in /boot/EFI/Linux"
        near = anything_elsewhere(image)
        msg += f"; {', '.join(near)} is there, and nothing looks for it there" if near else ""
        raise NoKernelError(msg, hint="a bootable image keeps kernel and initramfs under /usr/lib/modules/VERSION/")
    return artifacts[0]


NO_ADDONS = "none"
ADDON_SUFFIX = ".addon.efi"


def choose_addons(artifacts: BootArtifacts, asked: Sequence[str]) -> BootArtifacts:
    """Return *artifacts* with the addons that were asked for: names of the image's, files, or ``none`` of them.

    Without a word all of the image's stay. One that names the sealed digest stays whatever was asked for.

    Raises:
        UsageError: there is no such addon, it is none, or there is no UKI to add it to.
    """
    if not asked:
        return artifacts
    if artifacts.kind is not EntryKind.UKI:
        msg = "--uki-addon: the image has no UKI, so its addons are never read"
        raise UsageError(msg, hint="add kernel arguments with --karg")
    known = {addon.name.removesuffix(ADDON_SUFFIX): addon for addon in artifacts.addons}
    chosen = {name: addon for name, addon in known.items() if list(parse_words(command_line(addon.content)))}
    for word in asked:
        name = word.rpartition("/")[2].removesuffix(ADDON_SUFFIX)
        if "/" in word:
            chosen[name] = addon_file(Path(word), name)
        elif name in known:
            chosen[name] = known[name]
        elif word != NO_ADDONS:
            msg = f"--uki-addon {word}: the image has no such addon; it has: {', '.join(known) or 'none'}"
            raise UsageError(msg, hint="name one of these, or a file with a / in its name")
    return replace(artifacts, addons=tuple(chosen[name] for name in sorted(chosen)))


def addon_file(path: Path, name: str) -> UkiAddon:
    """Return the addon in a file, called *name*.

    Raises:
        UsageError: it is none, or names the image that is mounted.
    """
    try:
        content = FileContent.of(path)
        words = command_line(content)
    except (OSError, ImageError) as cause:
        why = cause.message if isinstance(cause, ImageError) else cause.strerror
        msg = f"--uki-addon {path}: {why}"
        raise UsageError(
            msg, hint="make an addon with `ukify build --cmdline=ARGS`, signed by a key of `db`"
        ) from cause
    if list(parse_words(words)):
        msg = f"--uki-addon {path} names a composefs image, which is for the UKI to say"
        raise UsageError(msg, hint="make it again without composefs=")
    return UkiAddon(name=f"{name}{ADDON_SUFFIX}", content=content)


class NoKernelError(ImageError):
    """Nothing in the image can be booted."""

    code = "image.no-kernel"


def choose_firmware(settings: Settings) -> frozenset[Firmware] | None:
    """Return the firmware that was asked for; None leaves it to the bootloader."""
    word = settings.value("install.firmware")
    if word is None:
        return None
    return frozenset({Firmware.UEFI, Firmware.BIOS}) if word == "both" else frozenset({Firmware(word)})


def choose_bootloader(
    settings: Settings,
    registry: Registry[BootloaderProvider],
    image: ImageReader,
    kind: EntryKind,
    firmware: frozenset[Firmware] | None,
) -> Choice:
    """Return the bootloader: as asked for, or of those that fit the one whose files the image has.

    Raises:
        PluginError: none is installed, none fits, or several do and none comes first.
    """
    asked = settings.get("install.bootloader")
    if asked.value:
        name = BOOTC_NAMES.get(str(asked.value), str(asked.value))
        _provider(registry, name, asked, "name another with --bootloader")
        return Choice(name, asked.origin)
    fitting = [
        provider
        for provider in registry
        if kind in provider.entries and (firmware is None or firmware <= provider.firmware)
    ]
    present = [provider for provider in fitting if any(_matches(image, pattern) for pattern in provider.marker_paths)]
    if present:
        best, *others = sorted(present, key=lambda provider: -provider.preference)
        if not others:
            return Choice(best.name, "the image has its files")
        if best.preference > others[0].preference:
            return Choice(best.name, f"the image has its files, and comes before {_names(others)}")
        msg = f"the image has the files of several bootloaders: {_names(present)}"
        raise PluginError(msg, hint="name one with --bootloader", facts={"family": families.BOOTLOADERS.name})
    if len(fitting) == 1:
        return Choice(fitting[0].name, "the only bootloader that fits")
    names = _names(list(registry)) or "none is installed"
    wanted = " and ".join(sorted(firmware)) if firmware else "any firmware"
    msg = f"no bootloader can be chosen for {kind.value} entries on {wanted} (installed: {names})"
    raise PluginError(
        msg,
        hint="name one with --bootloader, or add its files to the image",
        facts={"family": families.BOOTLOADERS.name},
    )


def choose_filesystem(settings: Settings, registry: Registry[FilesystemProvider]) -> Choice:
    """Return the root filesystem that settings ask for, image advice included.

    Raises:
        PluginError: none of that name is installed; the message says who asked for it.
    """
    asked = settings.get("install.filesystem")
    default = str(BY_NAME["install.filesystem"].default)
    _provider(registry, str(asked.value), asked, f"pass --filesystem {default}" if default in registry else None)
    return Choice(str(asked.value), asked.origin)


STORAGE_LABEL = "containers.cfs.storage"


def choose_storage(settings: Settings, registry: Registry[StorageProvider], labels: Mapping[str, str]) -> Choice:
    """Return the storage format: as asked for, by the image's label, or the only one.

    Raises:
        PluginError: several are installed and nothing chooses one, or none is.
    """
    asked = settings.get("install.storage")
    if asked.value:
        return Choice(str(asked.value), asked.origin)
    if labels.get(STORAGE_LABEL):
        return Choice(labels[STORAGE_LABEL], f"image label {STORAGE_LABEL}")
    installed = [provider.name for provider in registry]
    if len(installed) == 1:
        return Choice(installed[0], "the only storage format that is installed")
    if not installed:
        msg = "no storage format is installed"
        raise PluginError(msg, hint="pip install cfs-storage-composefs", facts={"family": families.STORAGE.name})
    msg = f"several storage formats are installed ({', '.join(installed)}) and nothing chooses one"
    raise PluginError(msg, hint="pass --composefs-native, or set install.storage")


def _names(providers: Iterable[BootloaderProvider]) -> str:
    return ", ".join(provider.name for provider in providers)


def _provider(registry: Registry[Any], name: str, asked: Setting, instead: str | None) -> None:
    """Look the provider up; where settings or an image ask for one that is missing, the error says so."""
    try:
        registry.get(name)
    except PluginError as cause:
        if asked.rank is Rank.COMMAND_LINE:
            raise
        hint = "; or ".join(filter(None, (instead, cause.hint)))
        msg = f"{cause.message}; {asked.origin} asks for it"
        raise PluginError(msg, hint=hint, facts={**cause.facts, "origin": asked.origin}) from cause


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
