"""Boot artifacts, boot menus, kernel arguments."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.model.disk import Location, Volume

if TYPE_CHECKING:
    from cfs_core.model.content import Content


class Firmware(enum.StrEnum):
    """What starts the bootloader."""

    UEFI = "uefi"
    """UEFI: it starts a program of the EFI system partition."""

    BIOS = "bios"
    """A PC's BIOS: it starts the first sector of the disk. With ``--firmware both``, facts hold UEFI and BIOS."""

    UBOOT = "u-boot"
    """U-Boot that reads files of a boot volume itself, without its EFI."""


class Architecture(enum.StrEnum):
    """CPU architectures in OCI's (Go's) names, for which cfs knows EFI names and partition types."""

    AMD64 = "amd64"
    """x86-64."""

    ARM64 = "arm64"
    """64-bit Arm."""

    RISCV64 = "riscv64"
    """64-bit RISC-V."""

    I386 = "386"
    """32-bit x86."""

    @property
    def efi(self) -> str:
        """Suffix in EFI file names: ``x64`` as in BOOTX64.EFI (UEFI 2.10, 3.5.1.1)."""
        return {"amd64": "x64", "arm64": "aa64", "riscv64": "riscv64", "386": "ia32"}[self.value]

    @property
    def removable_program(self) -> Location:
        """What firmware starts from any disk: ``ESP:/EFI/BOOT/BOOTX64.EFI`` (UEFI 2.10, 3.5.1.1)."""
        return Location(Volume.ESP, f"/EFI/BOOT/BOOT{self.efi.upper()}.EFI")


class EntryKind(enum.StrEnum):
    """How a kernel is offered: a Boot Loader Specification type 1 entry, or a unified kernel image."""

    BLS = "bls"
    """Kernel, initrd and arguments apart: a Boot Loader Specification type 1 entry, or a loader's own like it."""

    UKI = "uki"
    """A unified kernel image: one program for UEFI that holds all three."""


class KernelForm(enum.StrEnum):
    """Ways a kernel's file can be started; one file may have several."""

    EFI = "efi"
    """A program for UEFI: a kernel with an EFI stub, or an EFI zboot image."""

    BZIMAGE = "bzimage"
    """The boot protocol of x86 (Linux, Documentation/arch/x86/boot.rst)."""

    IMAGE = "image"
    """The ``Image`` of arm64 and RISC-V, started at its first byte (Linux, arch/arm64/booting.rst)."""

    GZIP = "gzip"
    """Such an ``Image``, compressed with gzip: the loader unpacks it."""

    ELF = "elf"
    """An ELF file (``vmlinux``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelArgument:
    """One word of the kernel command line and who wants it (``--karg``, ``/usr/lib/bootc/kargs.d/10-x.toml``)."""

    text: str
    """The word, with its value: ``console=ttyS0``."""

    origin: str
    """Who wants it, as the plan shows it."""

    @property
    def key(self) -> str:
        """The part before ``=``."""
        return self.text.partition("=")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class UkiAddon:
    """An EFI addon beside a UKI; ``name`` ends in ``.addon.efi``. Global ones apply to every UKI."""

    name: str
    """Its file's name."""

    content: Content
    """The file."""

    is_global: bool = False
    """Whether it applies to every UKI, and not only to the one that it lies beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootArtifacts:
    """What an image offers to boot from. For BLS ``kernel`` and ``initrd``, for UKI ``uki``.

    ``boot_digest`` is the hex SHA-256 over kernel bytes then the bytes of all initrds (for a UKI its .linux and .initrd
    sections); two deployments with the same one can share kernel files (formats F.1). ``sealed_arguments`` are the
    words of the UKI's .cmdline.
    """

    kind: EntryKind
    """Kernel and initrd, or UKI."""

    kernel_version: str
    """As ``uname -r`` says it; the name of its directory in ``/usr/lib/modules``."""

    boot_digest: str
    """Hex, 64 characters."""

    kernel: Content | None = None
    """The kernel; None for a UKI."""

    initrd: Content | None = None
    """The initrd; None for a UKI, and where the image has none."""

    extra_initrds: tuple[Content, ...] = ()
    """What the kernel unpacks over the image's own initrd, in this order; not part of the image."""

    uki: Content | None = None
    """The UKI; None where kernel and initrd are apart."""

    uki_name: str | None = None
    """Name of its file in the image."""

    addons: tuple[UkiAddon, ...] = ()
    """Addons that apply to the UKI."""

    sealed_arguments: tuple[str, ...] = ()
    """Empty where there is no UKI, or none in it."""

    os_release: tuple[tuple[str, str], ...] = ()
    """The image's os-release (a UKI's .osrel section), as key and value."""

    path: str = ""
    """Where in the image the kernel or the UKI is."""

    kernel_forms: frozenset[KernelForm] = frozenset()
    """How the kernel (or the UKI) can be started; empty where its file is damaged, or no kernel."""

    architecture: Architecture | None = None
    """The CPU that the kernel is for, by its own header; None where it does not tell."""

    @property
    def initrds(self) -> tuple[Content, ...]:
        """The image's initrd, if it has one, and those that are unpacked over it."""
        return (*([] if self.initrd is None else [self.initrd]), *self.extra_initrds)

    @property
    def contents(self) -> tuple[Content, ...]:
        """All files that one deployment needs on a boot volume: kernel and initrds, or UKI and addons."""
        files = (self.kernel, *self.initrds, self.uki, *(addon.content for addon in self.addons))
        return tuple(content for content in files if content is not None)

    def release(self, key: str) -> str | None:
        """Return one os-release value."""
        return dict(self.os_release).get(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootEntry:
    """One bootable choice. ``artifacts`` is None for entries read from a disk, which are already complete there.

    ``deployment_id`` names the entry in a menu; of a foreign entry (not ours to change) it is the loader's own name for
    it. ``arguments`` are the words of the kernel command line as ``/proc/cmdline`` shall show them, quotes included;
    for a UKI those sealed in it, or none. ``files`` are the boot files the entry needs, and ``name`` is what the loader
    calls it (`read_menu` fills both).
    """

    deployment_id: str
    """Core's: an image id, in hex."""

    kind: EntryKind
    """What is started."""

    title: str
    """What people choose by. `read_menu` brings it back."""

    version: str
    """For sorting and for people; a reader whose format has no place for it leaves it empty."""

    os_id: str
    """``ID`` of os-release; a reader whose format has no place for it leaves it empty."""

    arguments: tuple[str, ...] = ()
    """`read_menu` brings them back word for word."""

    machine_id: str | None = None
    """The machine that it was made for; None for any."""

    artifacts: BootArtifacts | None = None
    """What a new entry boots, and what is to be put on the boot volume."""

    tries_left: int | None = None
    """Attempts to boot that are left; None where nobody counts."""

    foreign: bool = False
    """Somebody else's: shown, and never changed."""

    files: tuple[Location, ...] = ()
    """Where the kernel, then the initrd, or the UKI and its addons are."""

    name: str | None = None
    """The loader's word for it, by which a default is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootMenu:
    """What a machine should offer, best first. Says nothing about file names or ordering tricks.

    ``default`` and ``once`` are deployment ids; None means the first entry, and no one-shot choice.
    ``timeout_seconds`` None leaves what is there, or the loader's own.
    """

    entries: tuple[BootEntry, ...]
    """Best first."""

    default: str | None = None
    """What starts when nobody chooses."""

    once: str | None = None
    """What starts at the next boot only."""

    timeout_seconds: int | None = None
    """How long the menu waits."""
