"""GRUB as a bootloader of cfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.bls import bytes_on_fat, read_file
from cfs_core.plugin import (
    Action,
    BootError,
    Bootloader,
    EntryKind,
    Finding,
    Firmware,
    KernelForm,
    Volume,
    VolumeNeed,
    read_all,
)
from cfs_grub.chain import esp_copies
from cfs_grub.locate import BIOS_ARCHITECTURES, EFI_TARGETS, find_program
from cfs_grub.menu import MenuPlan
from cfs_grub.place import filesystem_uuid
from cfs_grub.program import version
from cfs_grub.source import REMOVABLE, Home, Source, Sources, find_sources
from cfs_grub.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfs_core.plugin import BootFacts, BootMenu, CommandRunner, TargetView
    from cfs_grub.order import Sorting

_MIB = 1024 * 1024
# A core image has some hundred KiB; 1 MiB is what partitions are aligned to anyway.
_BIOS_BOOT = _MIB
_BOOT_FILESYSTEMS = ("ext4", "vfat", "xfs", "btrfs")
"""What a volume of its own for boot files may be; layouts take the first."""


class Grub(Bootloader):
    """GNU GRUB 2, from the image, with a grub.cfg of our own. *commands* is asked whether grub-mkimage is there."""

    def __init__(self, commands: CommandRunner) -> None:
        self._commands = commands

    def needs(self, facts: BootFacts) -> Sequence[VolumeNeed]:
        """Ask for an ESP (UEFI), a BIOS boot partition (BIOS), and room for boot files where /boot is."""
        needs = []
        sources = _sources(facts)
        artifacts = facts.artifacts
        if Firmware.UEFI in facts.firmware:
            files = [sources.uefi.program_bytes] if sources.uefi is not None else []
            files += [content.size for content in artifacts.contents] if artifacts and artifacts.uki else []
            files += esp_copies(artifacts, facts.architecture) if artifacts else ()
            size = bytes_on_fat(files)
            needs.append(VolumeNeed(volume=Volume.ESP, bytes_needed=size, filesystems=("vfat",), why="GRUB for UEFI"))
        if Firmware.BIOS in facts.firmware:
            needs.append(VolumeNeed(volume=Volume.BIOS_BOOT, bytes_needed=_BIOS_BOOT, why="GRUB's core image for BIOS"))
        sizes = [content.size for content in artifacts.contents] if artifacts and artifacts.kernel else []
        sizes += [source.boot_bytes for source in sources.all if source.boot_bytes]
        volume = _boot_volume(facts)
        filesystems = () if volume is Volume.ROOT else _BOOT_FILESYSTEMS
        why = "boot entries, kernels and GRUB's files"
        size = bytes_on_fat(sizes)
        needs.append(VolumeNeed(volume=volume, bytes_needed=size, filesystems=filesystems, why=why))
        return needs

    def check(self, facts: BootFacts) -> Sequence[Finding]:
        """Check that the image's GRUB starts on the firmware asked for and can read where boot files will be."""
        findings = []
        if facts.artifacts is not None and facts.artifacts.kind is EntryKind.UKI and Firmware.BIOS in facts.firmware:
            message = "a unified kernel image is an EFI program: BIOS cannot start it"
            findings.append(Finding.error("boot.firmware-unsupported", message, "choose --firmware uefi"))
        if Firmware.BIOS in facts.firmware and facts.architecture not in BIOS_ARCHITECTURES:
            message = f"machines of architecture {facts.architecture} have no BIOS"
            findings.append(Finding.error("boot.firmware-unsupported", message, "choose --firmware uefi"))
        if Firmware.UBOOT in facts.firmware:
            message = "GRUB starts from UEFI and BIOS, not from U-Boot without its EFI"
            findings.append(Finding.error("boot.firmware-unsupported", message, "choose --firmware uefi"))
            return findings
        findings += _check_kernel(facts)
        if facts.image is None:
            return findings
        found = _sources(facts)
        for firmware in sorted(facts.firmware):
            source = found.get(firmware)
            if source is None:
                message = f"the image has no GRUB for {firmware} on {facts.architecture}"
                findings.append(Finding.error("boot.loader-missing", message, _packages(firmware)))
            else:
                findings += self._check_source(source, facts)
        return findings

    def _check_source(self, source: Source, facts: BootFacts) -> Iterator[Finding]:
        filesystem = _boot_filesystem(facts)
        if filesystem and not source.reads(filesystem):
            message = f"GRUB of the image for {source.firmware} cannot read {filesystem}, where /boot is to be"
            yield Finding.error("boot.filesystem-unreadable", message, "put /boot on a volume of its own with ext4")
        missing = source.missing_modules(facts.artifacts.kind if facts.artifacts is not None else None)
        if missing:
            message = f"{source.path} of the image lacks {', '.join(missing)}"
            yield Finding.error("boot.loader-damaged", message, _packages(source.firmware))
        yield from source.check_host(self._commands)

    def plan_install(self, target: TargetView, facts: BootFacts) -> Sequence[Action]:
        """Put GRUB on the removable-media path of the ESP, and into boot sector and BIOS boot partition.

        Raises:
            BootError: the image has no GRUB for the firmware, or the target no place for it.
        """
        place = _read(target, facts).place
        home = Home(place=place, uuid=filesystem_uuid(target, place.directory.volume))
        found = _sources(facts)
        for firmware in sorted(facts.firmware, reverse=True):
            if found.get(firmware) is None:
                message = f"the image has no GRUB for {firmware} on {facts.architecture}"
                raise BootError(message, hint=_packages(firmware))
        actions: list[Action] = []
        if found.uefi is not None:
            actions += found.uefi.plan_uefi(home, facts.architecture, self._commands)
        if found.bios is not None:  # last, as its boot sector is what makes the disk start
            actions += found.bios.plan_bios(home, target, self._commands)
        return actions

    def installed_version(self, target: TargetView, facts: BootFacts) -> str | None:
        """Return the version of the GRUB for UEFI on the ESP; shim may be in its usual place, and GRUB beside it."""
        if Volume.ESP not in target.volumes() or facts.architecture not in EFI_TARGETS:
            return None
        names = (f"grub{facts.architecture.efi}.efi", f"BOOT{facts.architecture.efi.upper()}.EFI")
        found = (read_file(target, REMOVABLE / name) for name in names)
        return next((told for data in found if data and (told := version(data))), None)

    def offered_version(self, facts: BootFacts) -> str | None:
        """Return the version of the GRUB for UEFI in ``facts.image``."""
        program = find_program(facts.image, facts.architecture) if facts.image is not None else None
        return version(read_all(program.content)) if program is not None else None

    def read_menu(self, target: TargetView) -> BootMenu:
        """Read grub.cfg with the scripts it reads, entry files and environment block."""
        return State.read(target).menu()

    def plan_menu(self, target: TargetView, current: BootMenu, wanted: BootMenu, facts: BootFacts) -> Sequence[Action]:
        """Plan boot files, entry files, user.cfg, environment block, grub.cfg, then removals.

        Raises:
            BootError: see `Bootloader.plan_menu`.
        """
        del current  # scripts and entries are read again, because what they say besides the menu is kept
        state = _read(target, facts)
        sorting = state.sorting if facts.image is None or state.foreign else _common_sorting(facts)
        partition = target.partition(state.place.directory.volume)
        filesystem = (partition.filesystem if partition else None) or _boot_filesystem(facts)
        return MenuPlan(state, wanted, facts, sorting=sorting, filesystem=filesystem).actions()


def _check_kernel(facts: BootFacts) -> Iterator[Finding]:
    """Say so if a kernel for x86 has no boot protocol of its own; GRUB needs it from UEFI too (loader/i386/linux.c)."""
    artifacts = facts.artifacts
    if facts.architecture not in BIOS_ARCHITECTURES or artifacts is None or artifacts.kind is not EntryKind.BLS:
        return
    if artifacts.kernel_forms and KernelForm.BZIMAGE not in artifacts.kernel_forms:
        message = f"GRUB on {facts.architecture} starts bzImages only, and {artifacts.path} of the image is none"
        yield Finding.error(
            "boot.kernel-form", message, "put the kernel's bzImage there, or choose another --bootloader"
        )


def _read(target: TargetView, facts: BootFacts) -> State:
    """Read *target*. Facts that say nothing of a subvolume say not that there is none: then what our grub.cfg says."""
    return State.read(target, facts.volumes, None if facts.root_path == "/" else facts.root_path)


def _sources(facts: BootFacts) -> Sources:
    return find_sources(facts, _boot_filesystem(facts))


def _common_sorting(facts: BootFacts) -> Sorting | None:
    """Return how the installed GRUBs sort entry files; None unless all can read them, and alike."""
    found = {source.bls for source in _sources(facts).all}
    return found.pop() if len(found) == 1 else None


def _boot_filesystem(facts: BootFacts) -> str:
    own = _boot_volume(facts) is not Volume.ROOT
    return _BOOT_FILESYSTEMS[0] if own else facts.root_filesystem


def _boot_volume(facts: BootFacts) -> Volume:
    return next((volume for volume in (Volume.BOOT, Volume.XBOOTLDR) if volume in facts.volumes), Volume.ROOT)


def _packages(firmware: Firmware) -> str:
    if firmware is Firmware.BIOS:
        return "install grub-pc-bin (Debian), grub2-pc-modules (Fedora), grub (Arch) or grub2-i386-pc (openSUSE) in it"
    return "install grub-efi-amd64-signed or -bin (Debian), grub2-efi (Fedora, openSUSE) or grub (Arch) in the image"
