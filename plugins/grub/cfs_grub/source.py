"""What of an image starts on one firmware: a program that is ready, or modules of which one is made."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfs_core.plugin import (
    Action,
    BootError,
    CopyObject,
    EntryKind,
    Finding,
    Firmware,
    Location,
    Volume,
    WriteBlocks,
    WriteFile,
)
from cfs_grub import bios, config, mkimage
from cfs_grub.locate import (
    BIOS_ARCHITECTURES,
    BIOS_TARGET,
    EFI_TARGETS,
    FILESYSTEM_MODULES,
    Modules,
    Program,
    Shim,
    find_modules,
    find_program,
    find_shim,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfs_core.plugin import Architecture, BootFacts, CommandRunner, Content, TargetView, TreeReader
    from cfs_grub.order import Sorting
    from cfs_grub.place import BootPlace

_NEEDED = frozenset({"configfile", "linux", "loadenv", "part_gpt", "search_fs_uuid", "test"})
_NEEDED_FOR_UKIS = frozenset({"chain", "fat"})
REMOVABLE = Location(Volume.ESP, "/EFI/BOOT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where our menu and GRUB's files are, and the UUID of the filesystem that they are on."""

    place: BootPlace
    uuid: str

    @property
    def path(self) -> str:
        """How GRUB spells its directory."""
        return self.place.spell(self.place.grub)


class Source(abc.ABC):
    """One of the two. Both know how they are put on an ESP; what they need for that is theirs."""

    firmware: Firmware
    needed: ClassVar[frozenset[str]] = _NEEDED
    """Names of the modules without which our menu is not shown."""

    @property
    @abc.abstractmethod
    def bls(self) -> Sorting | None:
        """How it sorts entry files, None where it cannot read them."""

    @property
    @abc.abstractmethod
    def module_names(self) -> frozenset[str]:
        """Names of GRUB's modules it has."""

    @property
    @abc.abstractmethod
    def path(self) -> str:
        """Where in the image it is."""

    @property
    @abc.abstractmethod
    def program_bytes(self) -> int:
        """Bytes of what is started, or a bound of them."""

    @property
    def boot_bytes(self) -> int:
        """Bytes beside our menu."""
        return 0

    @abc.abstractmethod
    def plan_uefi(self, home: Home, architecture: Architecture, commands: CommandRunner) -> list[Action]:
        """Return actions that put it where firmware looks."""

    def check_host(self, commands: CommandRunner) -> Iterator[Finding]:
        """Yield what it needs of this host."""
        del commands
        yield from ()

    def missing_modules(self, kind: EntryKind | None) -> tuple[str, ...]:
        """Return names of modules that our menu, with an entry of *kind*, needs and it lacks."""
        needed = self.needed | (_NEEDED_FOR_UKIS if kind is EntryKind.UKI else frozenset())
        return tuple(sorted(needed - self.module_names))

    def reads(self, filesystem: str) -> bool:
        """Return whether it has the module for *filesystem*; there is one for whatever it could ever read."""
        return FILESYSTEM_MODULES.get(filesystem) in self.module_names


@dataclass(frozen=True, kw_only=True)
class ReadyProgram(Source):
    """An EFI program of the image, with the shim that starts it if it is signed."""

    program: Program
    shim: Shim | None
    firmware: Firmware = Firmware.UEFI

    @property
    def bls(self) -> Sorting | None:
        """As it was built."""
        return self.program.bls

    @property
    def module_names(self) -> frozenset[str]:
        """Built in."""
        return self.program.modules

    @property
    def path(self) -> str:
        """The file."""
        return self.program.path

    @property
    def program_bytes(self) -> int:
        """The program's and, where it is signed, shim's and its key manager's."""
        extra = [self.shim.content, self.shim.manager] if self.shim else []
        return self.program.content.size + sum(content.size for content in extra if content is not None)

    def plan_uefi(self, home: Home, architecture: Architecture, commands: CommandRunner) -> list[Action]:
        """Copy it, behind shim if it is signed, with a grub.cfg wherever it looks for one that leads to our menu."""
        del commands
        removable, shim = removable_path(architecture), self.shim
        files: list[tuple[Location, Content]] = []
        if shim is None:
            files.append((removable, self.program.content))
        else:
            if shim.manager is not None:
                files.append((REMOVABLE / shim.manager_name, shim.manager))
            files.append((REMOVABLE / shim.loader, self.program.content))
            files.append((removable, shim.content))
        stub = config.stub(home.uuid, home.path).encode()
        directories = dict.fromkeys([*(Location(Volume.ESP, prefix) for prefix in self.program.prefixes), REMOVABLE])
        actions: list[Action] = [
            WriteFile(location=directory / "grub.cfg", data=stub, why="leads GRUB to its files")
            for directory in directories
        ]
        actions += [CopyObject(location=where, source=content, why="GRUB for UEFI") for where, content in files]
        return actions


@dataclass(frozen=True, kw_only=True)
class ModuleSet(Source):
    """A directory of modules of the image; the host's grub-mkimage joins them to a program."""

    needed: ClassVar[frozenset[str]] = _NEEDED | mkimage.REQUIRED

    image: TreeReader
    modules: Modules
    firmware: Firmware

    @property
    def bls(self) -> Sorting | None:
        """As the modules do."""
        return self.modules.bls

    @property
    def module_names(self) -> frozenset[str]:
        """All of the directory."""
        return self.modules.names

    @property
    def path(self) -> str:
        """The directory."""
        return self.modules.directory

    @property
    def program_bytes(self) -> int:
        """At most that of all modules together, uncompressed."""
        return mkimage.program_bytes(self.image, self.modules)

    @property
    def boot_bytes(self) -> int:
        """The modules themselves, which stay beside the menu."""
        return self.program_bytes

    def check_host(self, commands: CommandRunner) -> Iterator[Finding]:
        """Name the tool that will be run, or say that there is none."""
        tool = mkimage.find_tool(commands)
        if tool is None:
            message = f"GRUB for {self.firmware} must be made of the image's modules, and this host has no grub-mkimage"
            yield Finding.error("boot.tool-missing", message, mkimage.TOOL_HINT)
        else:
            message = f"{tool} of this host makes GRUB for {self.firmware} of the image's modules"
            yield Finding.note("boot.host-tool", message)

    def plan_uefi(self, home: Home, architecture: Architecture, commands: CommandRunner) -> list[Action]:
        """Make an EFI program on the removable-media path."""
        return self._plan(home, removable_path(architecture), commands)

    def plan_bios(self, home: Home, target: TargetView, commands: CommandRunner) -> list[Action]:
        """Make a core image in the BIOS boot partition, and boot code that finds it.

        Raises:
            BootError: there is no such partition.
        """
        partition = target.partition(Volume.BIOS_BOOT)
        core, disk = Location(Volume.BIOS_BOOT, "/"), Location(Volume.DISK, "/")
        if partition is None:
            message = "GRUB for BIOS needs a BIOS boot partition for its core image"
            raise BootError(message, hint="use a disk layout that makes one")
        offset = bios.free_half(partition, _read(target, disk))
        sector = (partition.start + offset) // bios.SECTOR
        at, told = bios.block_list(mkimage.support_file(self.image, self.modules, "diskboot.img"), sector)
        code = bios.boot_code(mkimage.support_file(self.image, self.modules, "boot.img"), sector)
        where = "tells the core image where it is"
        # What starts now stays whole until the boot code, in one sector, leads to what is whole beside it.
        blocks = (
            WriteBlocks(location=core, offset=offset + at, data=told, why=where),
            WriteBlocks(location=disk, offset=0, data=code, why="boot code in the disk's first sector"),
        )
        return self._plan(home, core, commands, offset, blocks)

    def _plan(
        self, home: Home, output: Location, commands: CommandRunner, offset: int = 0, then: Sequence[Action] = ()
    ) -> list[Action]:
        tool = mkimage.find_tool(commands) or mkimage.TOOLS[0]
        directory = home.place.grub / self.modules.target
        early = config.early_config(home.uuid, home.path)
        made = mkimage.plan_program(self.image, self.modules, directory, early, output, tool, offset)
        return [*made, *then, mkimage.record(directory, made)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What an image has for the firmware that was asked for; None where it has nothing, or nobody asked."""

    uefi: Source | None = None
    bios: ModuleSet | None = None

    @property
    def all(self) -> Sequence[Source]:
        """Those there are."""
        return [source for source in (self.uefi, self.bios) if source is not None]

    def get(self, firmware: Firmware) -> Source | None:
        """Return that for *firmware*."""
        return next((source for source in self.all if source.firmware is firmware), None)


def find_sources(facts: BootFacts, filesystem: str) -> Sources:
    """Look for GRUB in the image of *facts*; boot files will be on *filesystem*, empty where that is not known."""
    image = facts.image
    if image is None:
        return Sources()
    uefi, modules = None, None
    if Firmware.UEFI in facts.firmware and facts.architecture in EFI_TARGETS:
        uefi = _for_uefi(image, facts, filesystem)
    if Firmware.BIOS in facts.firmware and facts.architecture in BIOS_ARCHITECTURES:
        modules = find_modules(image, BIOS_TARGET)
    bios_source = ModuleSet(firmware=Firmware.BIOS, image=image, modules=modules) if modules is not None else None
    return Sources(uefi=uefi, bios=bios_source)


def _for_uefi(image: TreeReader, facts: BootFacts, filesystem: str) -> Source | None:
    program = find_program(image, facts.architecture)
    modules = find_modules(image, EFI_TARGETS[facts.architecture])
    if program is not None:
        shim = find_shim(image, facts.architecture) if program.signed else None
        ready = ReadyProgram(program=program, shim=shim)
        kind = facts.artifacts.kind if facts.artifacts is not None else None
        reads = filesystem not in FILESYSTEM_MODULES or ready.reads(filesystem)
        # What is signed is taken as it is; else modules can make up for what a program lacks.
        if program.signed or modules is None or (reads and not ready.missing_modules(kind)):
            return ready
    return ModuleSet(firmware=Firmware.UEFI, image=image, modules=modules) if modules is not None else None


def _read(target: TargetView, location: Location) -> bytes:
    try:
        return target.read(location)
    except FileNotFoundError:
        return b""


def removable_path(architecture: Architecture) -> Location:
    """Return where firmware looks on a disk that it knows nothing of."""
    return REMOVABLE / f"BOOT{architecture.efi.upper()}.EFI"
