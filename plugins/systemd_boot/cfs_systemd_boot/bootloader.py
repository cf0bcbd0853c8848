"""systemd-boot as a bootloader of cfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.bls import bytes_on_fat, read_file
from cfs_core.plugin import (
    Action,
    BootError,
    Bootloader,
    CopyObject,
    Finding,
    Firmware,
    Location,
    Volume,
    VolumeNeed,
    WriteFile,
)
from cfs_systemd_boot import binary
from cfs_systemd_boot.enrolment import plan_keys
from cfs_systemd_boot.menu import UKI_KEY_SINCE, MenuPlan, boot_volume, read_menu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.plugin import BootFacts, BootMenu, Content, FileContent, TargetView
    from cfs_systemd_boot.binary import LoaderBinary

_PACKAGES = "systemd-boot-efi (Debian), systemd-boot-unsigned (Fedora), systemd (Arch), systemd-boot (openSUSE)"


class SystemdBoot(Bootloader):
    """The loader of systemd: everything it reads is on the ESP (or XBOOTLDR)."""

    def __init__(self, keys: Sequence[FileContent] = ()) -> None:
        self._keys = keys

    def needs(self, facts: BootFacts) -> Sequence[VolumeNeed]:
        """Ask for an ESP with room for the loader twice and one deployment's boot files."""
        loader = self._find(facts)
        files: list[Content] = [loader.content, loader.content] if loader else []
        boot_files = facts.artifacts.contents if facts.artifacts is not None else ()
        split = Volume.XBOOTLDR in facts.volumes
        own = bytes_on_fat(content.size for content in (files if split else [*files, *boot_files]))
        needs = [
            VolumeNeed(
                volume=Volume.ESP, bytes_needed=own, filesystems=("vfat",), why="systemd-boot reads its files from it"
            )
        ]
        if split:
            size = bytes_on_fat(content.size for content in boot_files)
            why = "boot entries, kernels and initrds"
            needs.append(VolumeNeed(volume=Volume.XBOOTLDR, bytes_needed=size, filesystems=("vfat",), why=why))
        return needs

    def check(self, facts: BootFacts) -> Sequence[Finding]:
        """Check firmware and the loader's file."""
        findings = []
        if facts.firmware != {Firmware.UEFI}:
            findings.append(
                Finding.error(
                    "boot.firmware-unsupported", "systemd-boot starts from UEFI only", "choose --firmware uefi"
                )
            )
        if facts.image is None:
            return findings
        loader = self._find(facts)
        if loader is None:
            places = binary.candidates(facts.architecture)
            message = f"the image has no systemd-boot for {facts.architecture}: {places[1]} is not there"
            findings.append(Finding.error("boot.loader-missing", message, f"install {_PACKAGES} in the image"))
        elif loader.version is None:
            message = f"{loader.path} of the image is not systemd-boot: it has no LoaderInfo"
            findings.append(Finding.error("boot.loader-damaged", message, "reinstall its package in the image"))
        elif loader.machine is not facts.architecture:
            message = f"{loader.path} of the image is not an EFI program for {facts.architecture}"
            message += f": {loader.damage}" if loader.damage else ""
            findings.append(Finding.error("boot.loader-damaged", message, "reinstall its package in the image"))
        return findings

    def plan_install(self, target: TargetView, facts: BootFacts) -> Sequence[Action]:
        """Copy the loader to its own place and to the removable-media path. One that is newer already is left.

        Raises:
            BootError: the image has no loader for this architecture.
        """
        loader = self._find(facts)
        if loader is None:
            message = f"the image has no systemd-boot for {facts.architecture}"
            raise BootError(message, hint=f"install {_PACKAGES} in the image")
        actions: list[Action] = []
        # As `bootctl update` does: an older image must not take a newer loader away from the others on this disk.
        for location in binary.places(facts.architecture):
            there = read_file(target, location)
            if there is not None and (binary.version(there) or 0) > (loader.version or 0):
                continue
            if there is not None and there == (
                facts.image and facts.image.read(loader.path, limit=binary.LOADER_LIMIT)
            ):
                continue
            actions.append(CopyObject(location=location, source=loader.content, why="systemd-boot"))
        # By it others see, before they add entries, that those here are the specification's; some distributions have
        # had different ones in this directory (Boot Loader Specification).
        srel = Location(boot_volume(target, facts.volumes), "/loader/entries.srel")
        if read_file(target, srel) is None:
            actions.append(
                WriteFile(location=srel, data=b"type1\n", why="says that boot entries of type 1 belong here")
            )
        return [*actions, *plan_keys(self._keys)]

    def installed_version(self, target: TargetView, facts: BootFacts) -> str | None:
        """Return the version in the loader's own place, or else in that of removable media."""
        found = (read_file(target, location) for location in binary.places(facts.architecture))
        return next((version for data in found if data and (version := binary.full_version(data))), None)

    def offered_version(self, facts: BootFacts) -> str | None:
        """Return the version of the loader in ``facts.image``."""
        loader = self._find(facts)
        data = facts.image.read(loader.path, limit=binary.LOADER_LIMIT) if loader and facts.image else None
        return binary.full_version(data or b"")

    def read_menu(self, target: TargetView) -> BootMenu:
        """Read entry files, unified kernel images the loader finds by itself, and loader.conf."""
        return read_menu(target)

    def plan_menu(self, target: TargetView, current: BootMenu, wanted: BootMenu, facts: BootFacts) -> Sequence[Action]:
        """Plan boot files, entries, loader.conf, then removals.

        Raises:
            BootError: see `Bootloader.plan_menu`.
        """
        del current  # entry files are read again, because what they say besides the menu is kept
        volume = boot_volume(target, facts.volumes)
        uki_key = "uki" if self._version(target, facts) >= UKI_KEY_SINCE else "efi"
        return MenuPlan(target, wanted, volume, uki_key=uki_key, generic=facts.generic).actions()

    def _find(self, facts: BootFacts) -> LoaderBinary | None:
        return binary.find(facts.image, facts.architecture) if facts.image is not None else None

    def _version(self, target: TargetView, facts: BootFacts) -> int:
        """Return the lowest version among the loaders that may read the entries, 0 where it is unknown."""
        versions = []
        for location in binary.places(facts.architecture):
            data = read_file(target, location)
            if data is not None:
                versions.append(binary.version(data) or 0)
        if not versions:
            loader = self._find(facts)
            versions.append((loader.version if loader else None) or 0)
        # Firmware may start either of the two places, and an older loader passes over an entry that has nothing but
        # `uki`.
        return min(versions)
