"""rEFInd as a bootloader of cfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.bls import bytes_on_fat, read_file
from cfs_core.plugin import (
    Action,
    Architecture,
    BootError,
    Bootloader,
    CopyObject,
    Finding,
    Firmware,
    Severity,
    Volume,
    VolumeNeed,
    find_pe,
)
from cfs_refind.menu import HOME, MenuPlan, read_menu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.plugin import BootFacts, BootMenu, Content, TargetView

DIRECTORY = "/usr/share/refind/refind"
LOADER_LIMIT = 8 << 20
"""rEFInd has about 300 KiB; a file longer than this many bytes is something else."""

_ARCHITECTURES = frozenset({Architecture.AMD64, Architecture.ARM64, Architecture.I386})
_PACKAGES = "install the package refind (Debian, Fedora, Arch, openSUSE) in the image"


class Refind(Bootloader):
    """rEFInd in the removable-media directory of the ESP, with refind.conf beside it."""

    def needs(self, facts: BootFacts) -> Sequence[VolumeNeed]:
        """Ask for an ESP with room for the loader and one deployment's boot files."""
        artifacts = facts.artifacts
        files = [self._find(facts), *(artifacts.contents if artifacts is not None else ())]
        size = bytes_on_fat(file.size for file in files if file is not None)
        why = "rEFInd, its menu, kernels and initrds"
        return [VolumeNeed(volume=Volume.ESP, bytes_needed=size, filesystems=("vfat",), why=why)]

    def check(self, facts: BootFacts) -> Sequence[Finding]:
        """Check firmware, architecture and the loader's file."""
        findings = []
        if facts.firmware != {Firmware.UEFI}:
            findings.append(Finding.error("boot.firmware-unsupported", "rEFInd starts from UEFI only", "use --firmware uefi"))
        if facts.architecture not in _ARCHITECTURES:
            message = f"there is no rEFInd for {facts.architecture}"
            findings.append(Finding.error("boot.architecture-unsupported", message, "choose another bootloader"))
        elif facts.image is not None:
            path = _path(facts.architecture)
            data = facts.image.read(path, limit=LOADER_LIMIT)
            if data is None:
                message = f"the image has no rEFInd for {facts.architecture}: {path} is not there"
                findings.append(Finding.error("boot.loader-missing", message, _PACKAGES))
            elif (program := find_pe(data)) is None or program.architecture is not facts.architecture:
                message = f"{path} of the image is not an EFI program for {facts.architecture}"
                findings.append(Finding.error("boot.loader-damaged", message, "reinstall its package in the image"))
        return findings

    def plan_install(self, target: TargetView, facts: BootFacts) -> Sequence[Action]:
        """Copy the loader to the removable-media path (UEFI 2.10, 3.5.1.1), which every firmware tries.

        Raises:
            BootError: the image has no rEFInd for this architecture.
        """
        content = self._find(facts)
        if content is None or facts.image is None:
            message = f"the image has no rEFInd for {facts.architecture}"
            raise BootError(message, hint=_PACKAGES)
        location = HOME / f"BOOT{facts.architecture.efi.upper()}.EFI"
        there = read_file(target, location)
        if there is not None and there == facts.image.read(_path(facts.architecture), limit=LOADER_LIMIT):
            return []
        return [CopyObject(location=location, source=content, why="rEFInd")]

    def read_menu(self, target: TargetView) -> BootMenu:
        """Read refind.conf."""
        return read_menu(target)

    def plan_menu(self, target: TargetView, current: BootMenu, wanted: BootMenu, facts: BootFacts) -> Sequence[Action]:
        """Plan boot files, refind.conf, then removals.

        Raises:
            BootError: see `Bootloader.plan_menu`.
        """
        del current  # refind.conf is read again, because what it says besides the menu is kept
        return MenuPlan(target, wanted, facts.architecture, generic=facts.generic).actions()

    def _find(self, facts: BootFacts) -> Content | None:
        return facts.image.content(_path(facts.architecture)) if facts.image is not None else None


def _path(architecture: Architecture) -> str:
    return f"{DIRECTORY}/refind_{architecture.efi}.efi"
