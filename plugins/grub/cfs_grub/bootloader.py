"""GRUB as a bootloader of cfs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import bytes_on_fat
from cfs_core.plugin import (
    Action,
    BootError,
    Bootloader,
    CopyObject,
    EntryKind,
    Finding,
    Firmware,
    KernelForm,
    Location,
    Volume,
    VolumeNeed,
    WriteBlocks,
    WriteFile,
)
from cfs_grub import bios, config, mkimage
from cfs_grub.chain import esp_copies
from cfs_grub.locate import (
    BIOS_ARCHITECTURES,
    BIOS_TARGET,
    EFI_TARGETS,
    FILESYSTEM_MODULES,
    Modules,
    Program,
    find_modules,
    find_program,
    find_shim,
)
from cfs_grub.menu import MenuPlan
from cfs_grub.place import BootPlace, filesystem_uuid
from cfs_grub.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfs_core.plugin import BootFacts, BootMenu, CommandRunner, Content, TargetView
    from cfs_grub.order import Sorting

_MIB = 1024 * 1024
# A core image has some hundred KiB; 1 MiB is what partitions are aligned to anyway.
_BIOS_BOOT = _MIB
_NEEDED = frozenset({"configfile", "linux", "loadenv", "part_gpt", "search_fs_uuid", "test"})
_NEEDED_FOR_UKIS = frozenset({"chain", "fat"})
_EFI = Location(Volume.ESP, "/EFI")
_REMOVABLE = _EFI / "BOOT"
_BOOT_FILESYSTEMS = ("ext4", "vfat", "xfs", "btrfs")
"""What a volume of its own for boot files may be; layouts take the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What of an image starts on one firmware: a program ready to be started, or modules to make one of."""

    firmware: Firmware
    program: Program | None = None
    modules: Modules | None = None

    @property
    def bls(self) -> Sorting | None:
        """How it sorts entry files, None where it cannot read them."""
        if self.program is not None:
            return self.program.bls
        return self.modules.bls if self.modules is not None else None

    @property
    def module_names(self) -> frozenset[str]:
        """Names of GRUB's modules it has."""
        return self.program.modules if self.program is not None else self.modules.names if self.modules else frozenset()

    @property
    def path(self) -> str:
        """Where in the image it is."""
        return self.program.path if self.program is not None else self.modules.directory if self.modules else ""

    def missing_modules(self, facts: BootFacts) -> tuple[str, ...]:
        """Return names of modules that our menu needs and it lacks."""
        needed = _NEEDED if self.program is not None else _NEEDED | mkimage.REQUIRED
        if facts.artifacts is not None and facts.artifacts.kind is EntryKind.UKI:
            needed |= _NEEDED_FOR_UKIS
        return tuple(sorted(needed - self.module_names))


class Grub(Bootloader):
    """GNU GRUB 2, from the image, with a grub.cfg of our own. *commands* is asked whether grub-mkimage is there."""

    def __init__(self, commands: CommandRunner) -> None:
        self._commands = commands

    def needs(self, facts: BootFacts) -> Sequence[VolumeNeed]:
        """Ask for an ESP (UEFI), a BIOS boot partition (BIOS), and room for boot files where /boot is."""
        needs = []
        sources = list(_sources(facts))
        artifacts = facts.artifacts
        if Firmware.UEFI in facts.firmware:
            files = [_program_size(facts, source) for source in sources if source.firmware is Firmware.UEFI]
            files += [content.size for content in artifacts.contents] if artifacts and artifacts.uki else []
            files += esp_copies(artifacts, facts.architecture) if artifacts else ()
            size = bytes_on_fat(files)
            needs.append(VolumeNeed(volume=Volume.ESP, bytes_needed=size, filesystems=("vfat",), why="GRUB for UEFI"))
        if Firmware.BIOS in facts.firmware:
            needs.append(VolumeNeed(volume=Volume.BIOS_BOOT, bytes_needed=_BIOS_BOOT, why="GRUB's core image for BIOS"))
        sizes = [content.size for content in artifacts.contents] if artifacts and artifacts.kernel else []
        sizes += [mkimage.program_bytes(facts.image, s.modules) for s in sources if facts.image and s.modules]
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
        found = {source.firmware: source for source in _sources(facts)}
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
        module = FILESYSTEM_MODULES.get(filesystem)
        if filesystem and (module is None or module not in source.module_names):
            message = f"GRUB of the image for {source.firmware} cannot read {filesystem}, where /boot is to be"
            yield Finding.error("boot.filesystem-unreadable", message, "put /boot on a volume of its own with ext4")
        missing = source.missing_modules(facts)
        if missing:
            message = f"{source.path} of the image lacks {', '.join(missing)}"
            yield Finding.error("boot.loader-damaged", message, _packages(source.firmware))
        if source.program is not None or source.modules is None:
            return
        tool = mkimage.find_tool(self._commands)
        if tool is None:
            message = (
                f"GRUB for {source.firmware} must be made of the image's modules, and this host has no grub-mkimage"
            )
            yield Finding.error("boot.tool-missing", message, mkimage.TOOL_HINT)
        else:
            message = f"{tool} of this host makes GRUB for {source.firmware} of the image's modules"
            yield Finding.note("boot.host-tool", message)

    def plan_install(self, target: TargetView, facts: BootFacts) -> Sequence[Action]:
        """Put GRUB on the removable-media path of the ESP, and into boot sector and BIOS boot partition.

        Raises:
            BootError: the image has no GRUB for the firmware, or the target no place for it.
        """
        place = _read(target, facts).place
        uuid = filesystem_uuid(target, place.directory.volume)
        found = {source.firmware: source for source in _sources(facts)}
        actions: list[Action] = []
        for firmware in sorted(facts.firmware, reverse=True):  # UEFI first: a boot sector is written last
            if firmware not in found:
                message = f"the image has no GRUB for {firmware} on {facts.architecture}"
                raise BootError(message, hint=_packages(firmware))
            if firmware is Firmware.UEFI:
                actions += self._plan_uefi(facts, found[firmware], place, uuid)
            else:
                actions += self._plan_bios(target, facts, found[firmware], place, uuid)
        return actions

    def _plan_uefi(self, facts: BootFacts, source: Source, place: BootPlace, uuid: str) -> list[Action]:
        image, path = facts.image, place.spell(place.grub)
        removable = _REMOVABLE / f"BOOT{facts.architecture.efi.upper()}.EFI"
        program = source.program
        if image is None or program is None:
            return self._plan_modules(facts, source, place, config.early_config(uuid, path), removable, {})
        shim = find_shim(image, facts.architecture) if program.signed else None
        files: list[tuple[Location, Content]] = []
        if shim is None:
            files.append((removable, program.content))
        else:
            if shim.manager is not None:
                files.append((_REMOVABLE / shim.manager_name, shim.manager))
            files.append((_REMOVABLE / shim.loader, program.content))
            files.append((removable, shim.content))
        stub = config.stub(uuid, path).encode()
        directories = dict.fromkeys([*(Location(Volume.ESP, prefix) for prefix in program.prefixes), _REMOVABLE])
        actions: list[Action] = []
        for directory in directories:
            location = directory / "grub.cfg"
            actions.append(WriteFile(location=location, data=stub, why="leads GRUB to its files"))
        for location, content in files:
            actions.append(CopyObject(location=location, source=content, why="GRUB for UEFI"))
        return actions

    def _plan_bios(
        self, target: TargetView, facts: BootFacts, source: Source, place: BootPlace, uuid: str
    ) -> list[Action]:
        partition = target.partition(Volume.BIOS_BOOT)
        if partition is None or facts.image is None or source.modules is None:
            message = "GRUB for BIOS needs a BIOS boot partition for its core image"
            raise BootError(message, hint="use a disk layout that makes one")
        sector = partition.start // bios.SECTOR
        first = bios.first_core_sector(mkimage.support_file(facts.image, source.modules, "diskboot.img"), sector)
        code = bios.boot_code(mkimage.support_file(facts.image, source.modules, "boot.img"), sector)
        early = config.early_config(uuid, place.spell(place.grub))
        core = Location(Volume.BIOS_BOOT, "/")
        actions = self._plan_modules(facts, source, place, early, core, {"diskboot.img": first})
        why = "boot code in the disk's first sector"
        return [*actions, WriteBlocks(location=Location(Volume.DISK, "/"), offset=0, data=code, why=why)]

    def _plan_modules(
        self,
        facts: BootFacts,
        source: Source,
        place: BootPlace,
        early: str,
        output: Location,
        replacements: dict[str, bytes],
    ) -> list[Action]:
        if facts.image is None or source.modules is None:
            message = "the image has no modules of GRUB"
            raise BootError(message, hint=_packages(source.firmware))
        tool = mkimage.find_tool(self._commands) or mkimage.TOOLS[0]
        directory = place.grub / source.modules.target
        return mkimage.plan_program(facts.image, source.modules, directory, early, output, tool, replacements)

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


def _sources(facts: BootFacts) -> Iterator[Source]:
    """Yield what the image has for each firmware that was asked for."""
    if facts.image is None:
        return
    if Firmware.UEFI in facts.firmware and facts.architecture in EFI_TARGETS:
        program = find_program(facts.image, facts.architecture)
        modules = find_modules(facts.image, EFI_TARGETS[facts.architecture])
        ready = Source(firmware=Firmware.UEFI, program=program)
        module = FILESYSTEM_MODULES.get(_boot_filesystem(facts))
        fit = not ready.missing_modules(facts) and (module is None or module in ready.module_names)
        # What is signed is taken as it is; else modules can make up for what a program lacks.
        if program is not None and (program.signed or fit or modules is None):
            yield ready
        elif modules is not None:
            yield Source(firmware=Firmware.UEFI, modules=modules)
    if Firmware.BIOS in facts.firmware and facts.architecture in BIOS_ARCHITECTURES:
        modules = find_modules(facts.image, BIOS_TARGET)
        if modules is not None:
            yield Source(firmware=Firmware.BIOS, modules=modules)


def _common_sorting(facts: BootFacts) -> Sorting | None:
    """Return how the installed GRUBs sort entry files; None unless all can read them, and alike."""
    found = {source.bls for source in _sources(facts)}
    return found.pop() if len(found) == 1 else None


def _boot_filesystem(facts: BootFacts) -> str:
    own = _boot_volume(facts) is not Volume.ROOT
    return _BOOT_FILESYSTEMS[0] if own else facts.root_filesystem


def _boot_volume(facts: BootFacts) -> Volume:
    return next((volume for volume in (Volume.BOOT, Volume.XBOOTLDR) if volume in facts.volumes), Volume.ROOT)


def _program_size(facts: BootFacts, source: Source) -> int:
    if source.program is not None:
        shim = find_shim(facts.image, facts.architecture) if facts.image and source.program.signed else None
        extra = [shim.content, shim.manager] if shim else []
        return source.program.content.size + sum(content.size for content in extra if content is not None)
    return mkimage.program_bytes(facts.image, source.modules) if facts.image and source.modules else 0


def _packages(firmware: Firmware) -> str:
    if firmware is Firmware.BIOS:
        return "install grub-pc-bin (Debian), grub2-pc-modules (Fedora), grub (Arch) or grub2-i386-pc (openSUSE) in it"
    return "install grub-efi-amd64-signed or -bin (Debian), grub2-efi (Fedora, openSUSE) or grub (Arch) in the image"
