"""The virtual machine: which QEMU and firmware there are, and the command that boots a disk without changing it."""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from cfs_core.plugin import Architecture, CommandError, Firmware, RefusedError, host_commands
from cfs_prove.guest import PORT, smbios_strings
from cfs_prove.report import Accelerator

FIRMWARE_DIRECTORIES = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
OLDEST_EMULATOR = (8, 0)
KVM_DEVICE = Path("/dev/kvm")
QCOW2_MAGIC = b"QFI\xfb"

DIES_WITH_US = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, see PR_SET_PDEATHSIG(2const)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""A program that becomes another one, which the kernel ends when the caller has died, by whatever signal."""

THIS_PROGRAM = "/proc/self/exe"
"""The running Python, for a user that may not walk to it, too: one who has given up rights since it was started."""

EMULATORS = {
    Architecture.AMD64: "qemu-system-x86_64",
    Architecture.ARM64: "qemu-system-aarch64",
}
# Compared with the patterns in QEMU's firmware descriptions, such as pc-q35-*: the version need only look like one.
MACHINE_NAMES = {Architecture.AMD64: "pc-q35-10.0", Architecture.ARM64: "virt-10.0"}
QEMU_NAMES = {Architecture.AMD64: "x86_64", Architecture.ARM64: "aarch64"}
HOST_NAMES = {"x86_64": Architecture.AMD64, "aarch64": Architecture.ARM64}


_VERSION_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Emulator:
    """A QEMU that is installed."""

    path: Path
    architecture: Architecture
    version: str

    @property
    def number(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


@dataclass(frozen=True, slots=True)
class FirmwareImage:
    """UEFI firmware as QEMU's firmware descriptions name it."""

    code: Path
    variables: Path
    secure: bool = False
    """Whether it can enforce Secure Boot; it then keeps its variables from whatever runs by system management mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFiles:
    """Files of one run: what the console and the reporting unit wrote, and the firmware's own variables.

    ``tpm`` is the socket that controls a TPM, None for a machine without one.
    """

    console: Path
    report: Path
    variables: Path
    tpm: Path | None = None


def host_architecture() -> Architecture:
    """Return this machine's architecture.

    Raises:
        RefusedError: no machine of this architecture can be emulated by cfs prove.
    """
    machine = platform.machine()
    found = HOST_NAMES.get(machine)
    if found is None:
        message = f"this machine is a {machine}, for which cfs prove has no virtual machine"
        raise RefusedError(message, hint="name another architecture with --arch")
    return found


def find_emulator(architecture: Architecture) -> Emulator:
    """Find QEMU for *architecture*.

    Raises:
        CommandError: it is not installed, or does not say its version.
        RefusedError: cfs prove knows no machine of this architecture.
    """
    name = EMULATORS.get(architecture)
    if name is None:
        message = f"cfs prove has no virtual machine for {architecture.value}"
        raise RefusedError(message, hint=f"known: {', '.join(sorted(EMULATORS))}")
    commands = host_commands()
    found = commands.find(name)
    if found is None:
        message = f"{name} is not installed"
        raise CommandError(message, hint="install qemu-system-x86 or qemu-system-arm (Debian), qemu-kvm (Fedora)")
    done = commands.run([name, "--version"], ok=frozenset(range(256)), seconds=_VERSION_SECONDS)
    said, complaint = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    version = re.search(r"version (\d+\.\d+(?:\.\d+)?)", said)
    if version is None:
        message = f"{found} does not say its version: {(said + complaint).strip()[:200]}"
        raise CommandError(message, hint="is it QEMU?")
    return Emulator(found, architecture, version.group(1))


def check_emulation(emulator: Emulator) -> None:
    """Refuse a QEMU whose emulation is known to panic guests.

    Raises:
        CommandError: too old.
    """
    if emulator.number < OLDEST_EMULATOR:
        message = f"QEMU {emulator.version} panics guests when it emulates the processor"
        raise CommandError(message, hint="install QEMU 8 or newer (Debian 12: qemu-system-x86 from bookworm-backports)")


def kvm_usable(architecture: Architecture) -> bool:
    """Say whether KVM may be tried; whether it works shows when a guest runs."""
    return HOST_NAMES.get(platform.machine()) is architecture and os.access(KVM_DEVICE, os.R_OK | os.W_OK)


def find_firmware(
    architecture: Architecture, directories: tuple[Path, ...] = FIRMWARE_DIRECTORIES, *, secure: bool = False
) -> FirmwareImage:
    """Find UEFI firmware by QEMU's firmware descriptions (QEMU: docs/interop/firmware.json); *secure*: for Secure Boot.

    Raises:
        CommandError: there is none.
    """
    seen: dict[str, Path] = {}
    for directory in directories:
        if directory.is_dir():
            for path in directory.glob("*.json"):
                seen.setdefault(path.name, path)
    for _, path in sorted(seen.items()):
        found = _described(path, architecture, secure=secure)
        if found is not None and found.code.is_file() and found.variables.is_file():
            return found
    kind = "UEFI firmware with Secure Boot" if secure else "UEFI firmware"
    message = f"no {kind} for {architecture.value} in {' or '.join(map(str, directories))}"
    raise CommandError(message, hint="install ovmf or qemu-efi-aarch64 (Debian), edk2-ovmf (Fedora, Arch)")


def _described(path: Path, architecture: Architecture, *, secure: bool) -> FirmwareImage | None:
    """Read one description; None where it is unreadable or not what is wanted."""
    try:
        facts = json.loads(path.read_bytes())
        mapping = facts["mapping"]
        fits = any(
            target["architecture"] == QEMU_NAMES[architecture]
            and any(fnmatch.fnmatch(MACHINE_NAMES[architecture], pattern) for pattern in target["machines"])
            for target in facts["targets"]
        )
        features = {"requires-smm", "enrolled-keys", "secure-boot"} & set(facts["features"])
        wanted = {"requires-smm", "secure-boot"} if secure else set()
        if not fits or features != wanted or "uefi" not in facts["interface-types"] or mapping["device"] != "flash":
            return None
        if {mapping["executable"]["format"], mapping["nvram-template"]["format"]} != {"raw"}:
            return None
        code, variables = (Path(mapping[name]["filename"]) for name in ("executable", "nvram-template"))
        return FirmwareImage(code, variables, secure=secure)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def disk_format(disk: Path, asked: str | None = None) -> str:
    """Return QEMU's name of the disk's format: as *asked*, or qcow2 if both name and first bytes say so, or raw.

    The bytes alone are the image's word: a raw disk that began like qcow2 would have QEMU open any file of this host
    as its backing file.

    Raises:
        RefusedError: it cannot be read, or is empty.
    """
    try:
        with disk.open("rb") as file:
            head = file.read(len(QCOW2_MAGIC))
    except OSError as error:
        message = f"cannot read {disk}: {error.strerror}"
        raise RefusedError(message, hint="name a disk image") from error
    if not head:
        message = f"{disk} is empty"
        raise RefusedError(message, hint="name a disk image")
    return asked or ("qcow2" if head == QCOW2_MAGIC and disk.suffix.lower() == ".qcow2" else "raw")


def begins_like_qcow2(disk: Path) -> bool:
    """Say whether a disk may be a qcow2 file under another name."""
    with disk.open("rb") as file:
        return file.read(len(QCOW2_MAGIC)) == QCOW2_MAGIC


def qemu_argv(
    emulator: Emulator,
    disk: Path,
    files: MachineFiles,
    *,
    form: str,
    firmware: Firmware,
    uefi: FirmwareImage | None,
    accelerator: Accelerator,
    memory_mib: int,
    nonce: str,
) -> list[str]:
    """Return the command that boots *disk* of the format *form*, and ends when this process does.

    Changes to the disk go to a temporary file and are forgotten. *nonce* is what the system must give back.
    """
    quoted = {name: _quoted(getattr(files, name)) for name in ("console", "report", "variables")}
    # fmt: off
    words = [
        sys.executable, "-I", "-S", "-c", DIES_WITH_US, str(os.getpid()),
        os.fspath(emulator.path), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-name", "cfs-prove", "-m", str(memory_mib), "-smp", "2",
        "-accel", "kvm" if accelerator is Accelerator.KVM else "tcg,thread=multi,tb-size=512",
        "-cpu", "host" if accelerator is Accelerator.KVM else "max",
        "-drive", f"file={_quoted(disk.resolve())},format={form},if=none,id=disk,snapshot=on",
        "-device", "virtio-blk-pci,drive=disk,bootindex=0",
        "-device", "virtio-rng-pci",
        "-chardev", f"file,id=console,path={quoted['console']}",
        "-serial", "chardev:console",
        "-chardev", f"file,id=report,path={quoted['report']}",
    ]
    if emulator.architecture is Architecture.AMD64:
        graphics = ",graphics=off" if firmware is Firmware.BIOS else ""
        smm = ",smm=on" if uefi is not None and uefi.secure else ""
        words += ["-machine", f"q35,sata=off,usb=off{graphics}{smm}", "-serial", "chardev:report"]
    else:
        words += ["-machine", "virt", "-device", "virtio-serial-pci",
                  "-device", f"virtserialport,chardev=report,name={PORT}"]
    if uefi is not None:
        words += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_quoted(uefi.code)}",
                  "-drive", f"if=pflash,format=raw,unit=1,file={quoted['variables']}"]
    # fmt: on
        if uefi.secure:
            words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    if files.tpm is not None:
        device = "tpm-crb" if emulator.architecture is Architecture.AMD64 else "tpm-tis-device"
        words += ["-chardev", f"socket,id=tpm,path={_quoted(files.tpm)}",
                  "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", f"{device},tpmdev=tpm0"]
    for value in smbios_strings(nonce):
        words += ["-smbios", f"type=11,value={value}"]
    return words


def _quoted(path: Path) -> str:
    """Return *path* for QEMU's option syntax, in which a comma is doubled."""
    return os.fspath(path).replace(",", ",,")
