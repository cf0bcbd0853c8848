"""Boots a disk in a virtual machine, watches, and says what it saw."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.plugin import Architecture, Firmware, RefusedError, scratch_directory
from cfs_prove import machine
from cfs_prove.console import ConsoleWatch, findings, last_lines
from cfs_prove.guest import GuestReport, parse_report
from cfs_prove.report import Failure, FailureKind, ProofReport, Stage, StageReport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLL_SECONDS = 0.1
QUIET_SECONDS = 3.0
GRACE_SECONDS = 20.0
"""A failed boot may go on until its console is quiet, so that it says more about why; at most so long."""

SILENT_REPORTER = {"kvm": 20.0, "tcg": 60.0}
"""Seconds that the reporting unit may stay silent after a login prompt, before it is taken for missing."""

SILENT_KVM_SECONDS = 30.0
"""A guest that says nothing for so long under KVM is taken for one that KVM cannot run."""

KVM_BROKEN = (b"KVM internal error", b"failed to initialize kvm", b"Could not access KVM", b"invalid accelerator kvm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofOptions:
    """How to boot.

    ``accelerator`` is ``auto``, ``kvm`` or ``tcg``. ``architecture`` None is this machine's. ``reporter_seconds`` is
    how long the reporting unit may stay silent after a login prompt; None depends on the accelerator. ``disk_format``
    is ``raw`` or ``qcow2``; None is raw unless name and contents agree on qcow2. ``allow_console_evidence`` takes a
    login prompt and what the console says of the root for a proof where the state of systemd cannot be seen.
    """

    firmware: Firmware = Firmware.UEFI
    timeout_seconds: float = 300.0
    memory_mib: int = 1024
    architecture: Architecture | None = None
    accelerator: str = "auto"
    disk_format: str | None = None
    allow_missing_verity: bool = False
    allow_console_evidence: bool = False
    console_log: Path | None = None
    reporter_seconds: float | None = None


@dataclass(slots=True)
class _Boot:
    """One run of the virtual machine."""

    accelerator: str
    reporter_seconds: float
    watch: ConsoleWatch = field(default_factory=ConsoleWatch)
    guest: GuestReport = field(default_factory=GuestReport)
    report_at: float | None = None
    seconds: float = 0.0
    console: bytes = b""
    qemu_said: str = ""
    exit_status: int | None = None
    kvm_failed: bool = False


def prove(disk: Path, options: ProofOptions, *, progress: Callable[[str], None] = lambda _text: None) -> ProofReport:
    """Boot *disk* and report. The disk is not changed. *progress* is told what happens, in words.

    Raises:
        CommandError: QEMU or firmware is missing, or QEMU is too old.
        RefusedError: *disk* cannot be read or its architecture not be emulated, or the console's log cannot be written.
    """
    architecture = options.architecture or machine.host_architecture()
    form = machine.disk_format(disk, options.disk_format)
    emulator = machine.find_emulator(architecture)
    uefi = machine.find_firmware(architecture) if options.firmware is Firmware.UEFI else None
    accelerator = options.accelerator
    if accelerator == "auto":
        accelerator = "kvm" if machine.kvm_usable(architecture) else "tcg"
    if accelerator == "tcg":
        machine.check_emulation(emulator)
    if options.console_log is not None:
        _keep_console(options.console_log, b"")  # before minutes have gone into a boot
    notes: list[str] = []
    if form == "raw" and options.disk_format is None and machine.begins_like_qcow2(disk):
        notes.append(
            "the disk begins like a qcow2 file, and was taken for a raw disk: --disk-format qcow2 if it is one"
        )
    boot = _run(emulator, uefi, disk, form, options, accelerator, progress)
    if boot.kvm_failed and options.accelerator == "auto":
        machine.check_emulation(emulator)
        notes.append("KVM does not work here: booted again in emulation")
        progress(notes[-1])
        boot = _run(emulator, uefi, disk, form, options, "tcg", progress)
    if options.console_log is not None:
        _keep_console(options.console_log, boot.console)
    return _judge(disk, options, emulator, boot, notes)


def _keep_console(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as cause:
        msg = f"the console's log {path} cannot be written: {cause.strerror}"
        raise RefusedError(msg, hint="name another file with --console-log") from cause


def _run(
    emulator: machine.Emulator,
    uefi: machine.FirmwareImage | None,
    disk: Path,
    form: str,
    options: ProofOptions,
    accelerator: str,
    progress: Callable[[str], None],
) -> _Boot:
    silent = SILENT_REPORTER[accelerator] if options.reporter_seconds is None else options.reporter_seconds
    boot = _Boot(accelerator, silent)
    with scratch_directory() as folder:
        files = machine.MachineFiles(
            console=folder / "console", report=folder / "report", variables=folder / "variables"
        )
        for path in (files.console, files.report):
            path.touch()
        if uefi is not None:
            shutil.copyfile(uefi.variables, files.variables)
        words = machine.command_line(
            emulator,
            disk,
            files,
            form=form,
            firmware=options.firmware,
            uefi=uefi,
            accelerator=accelerator,
            memory_mib=options.memory_mib,
        )
        errors = folder / "errors"
        progress(f"starting QEMU {emulator.version} with {accelerator}")
        with errors.open("wb") as stderr:
            started = time.monotonic()
            process = subprocess.Popen(  # noqa: S603 - found by name in PATH, arguments made here
                words, executable=machine.THIS_PROGRAM, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
            )
            try:
                _watch(process, boot, files, errors, started, options.timeout_seconds, progress)
            finally:
                process.kill()
                process.wait()
        boot.console = files.console.read_bytes()
        boot.qemu_said = errors.read_text(encoding="utf-8", errors="replace").strip()
    return boot


def _watch(
    process: subprocess.Popen[bytes],
    boot: _Boot,
    files: machine.MachineFiles,
    errors: Path,
    started: float,
    timeout: float,
    progress: Callable[[str], None],
) -> None:
    """Follow the machine until it has told everything, failed, ended, or used up its time."""
    announced: set[Stage] = set()
    with files.console.open("rb") as console:
        while True:
            boot.exit_status = process.poll()
            boot.seconds = round(time.monotonic() - started, 1)
            boot.watch.feed(console.read(), boot.seconds)
            _note_report(boot, files.report)
            for stage in boot.watch.reached.keys() - announced:
                announced.add(stage)
                progress(f"{stage.value} after {boot.seconds:.1f} s")
            if boot.accelerator == "kvm" and _kvm_failed(boot, errors):
                boot.kvm_failed = True
                return
            if boot.exit_status is not None or _finished(boot) or boot.seconds >= timeout:
                return
            time.sleep(POLL_SECONDS)


def _note_report(boot: _Boot, path: Path) -> None:
    guest = parse_report(path.read_bytes())
    if guest.begun and not boot.guest.begun:
        boot.report_at = boot.seconds
    boot.guest = guest


def _kvm_failed(boot: _Boot, errors: Path) -> bool:
    said = errors.read_bytes()
    if any(text in said for text in KVM_BROKEN) or boot.exit_status not in {None, 0}:
        return True
    return boot.watch.bytes_seen == 0 and boot.seconds > SILENT_KVM_SECONDS


def _finished(boot: _Boot) -> bool:
    if boot.guest.complete:
        return True
    if boot.watch.failed_at is not None:
        return boot.seconds > min(boot.watch.last_at + QUIET_SECONDS, boot.watch.failed_at + GRACE_SECONDS)
    prompt = boot.watch.reached.get(Stage.SYSTEM)
    return prompt is not None and not boot.guest.begun and boot.seconds > prompt + boot.reporter_seconds


# --- judging ------------------------------------------------------------------------------------------------------


def _judge(disk: Path, options: ProofOptions, emulator: machine.Emulator, boot: _Boot, notes: list[str]) -> ProofReport:
    stages = _stages(boot)
    evidence = "reporter" if boot.guest.begun else "console"
    if evidence == "console" and Stage.SYSTEM in boot.watch.reached:
        notes.append(
            "the system did not run the reporting unit (systemd 256 and later take it from SMBIOS): "
            "all that is known of it is from the console"
        )
    return ProofReport(
        disk=str(disk),
        firmware=options.firmware.value,
        architecture=emulator.architecture.value,
        accelerator=boot.accelerator,
        qemu_version=emulator.version,
        seconds=boot.seconds,
        evidence=evidence,
        stages=stages,
        root=boot.guest.root,
        system_state=boot.guest.state,
        failed_units=tuple(boot.guest.failed_units),
        os_name=boot.guest.os_name,
        kernel=boot.guest.kernel or next(iter(boot.watch.details.get(Stage.KERNEL, ())), None) or None,
        loader=boot.guest.loader or boot.guest.stub,
        kernel_log=tuple(boot.guest.kernel_log),
        notes=tuple(notes),
        failure=_failure(boot, options, stages),
        findings=findings(boot.console),
        console_tail=last_lines(boot.console),
    )


def _stages(boot: _Boot) -> tuple[StageReport, ...]:
    """Put console and reporting unit together; a stage that a later one presupposes was reached, too."""
    seconds = dict(boot.watch.reached)
    guest = boot.guest
    details: dict[Stage, str] = {}
    if guest.begun and boot.report_at is not None and guest.uptime is not None:
        seconds.setdefault(Stage.KERNEL, max(0.0, round(boot.report_at - guest.uptime, 1)))
    loader = guest.loader or guest.stub
    if loader:
        details[Stage.LOADER] = loader
    if guest.kernel:
        details[Stage.KERNEL] = guest.kernel
    if guest.root is not None:
        details[Stage.ROOT] = f"{guest.root.filesystem} {guest.root.source}"
    elif Stage.ROOT in boot.watch.details:
        details[Stage.ROOT] = "composefs:" + boot.watch.details[Stage.ROOT][0]
    if guest.state:
        details[Stage.SYSTEM] = guest.state
        seconds[Stage.SYSTEM] = boot.seconds
    known = set(seconds) | set(details)
    last = max((list(Stage).index(stage) for stage in known), default=-1)
    return tuple(
        StageReport(stage, index <= last, seconds.get(stage), details.get(stage, ""))
        for index, stage in enumerate(Stage)
    )


def _failure(boot: _Boot, options: ProofOptions, stages: tuple[StageReport, ...]) -> Failure | None:
    if boot.kvm_failed:
        return Failure(
            FailureKind.QEMU, f"KVM does not work here: {boot.qemu_said[-300:] or 'the guest stayed silent'}"
        )
    if boot.watch.failure is not None:
        return boot.watch.failure
    corrupted = [line for line in boot.guest.kernel_log if "FILE CORRUPTED" in line]
    if corrupted:
        return Failure(FailureKind.CORRUPTED, corrupted[0])
    if boot.guest.complete:
        return _judge_report(boot.guest, options)
    if boot.exit_status is not None:
        return _ended(boot)
    if boot.seconds >= options.timeout_seconds:
        reached = [item.stage.value for item in stages if item.reached]
        return Failure(
            FailureKind.TIMEOUT,
            f"not done after {options.timeout_seconds:.0f} s; last stage reached: {reached[-1] if reached else 'none'}",
        )
    return _judge_console(boot, options)


def _ended(boot: _Boot) -> Failure:
    if boot.exit_status == 0:
        return Failure(FailureKind.RESET, "the guest switched itself off or reset before it had reported")
    return Failure(FailureKind.QEMU, f"QEMU ended with status {boot.exit_status}: {boot.qemu_said[-300:]}")


def _judge_report(guest: GuestReport, options: ProofOptions) -> Failure | None:
    root = guest.root
    if root is None or root.image_id is None:
        seen = f"{root.filesystem} {root.source}" if root else "unknown"
        return Failure(FailureKind.NOT_COMPOSEFS, f"the root is not a composefs mount: {seen}")
    if not root.verity_required and not options.allow_missing_verity:
        return Failure(FailureKind.NO_VERITY, f"the root is composefs, but fs-verity is not required: {root.options}")
    if guest.state not in {"running", "degraded"}:
        return Failure(FailureKind.SYSTEM_STATE, f"systemd is in state {guest.state or 'unknown'}")
    return None


def _judge_console(boot: _Boot, options: ProofOptions) -> Failure | None:
    """Judge a system that only its console speaks for: a login prompt was seen."""
    facts = boot.watch.details.get(Stage.ROOT)
    if facts is None:
        return Failure(
            FailureKind.UNPROVEN, "a login prompt, but neither a reporting unit nor the console says what the root is"
        )
    if facts[1] != "required" and not options.allow_missing_verity:
        return Failure(FailureKind.NO_VERITY, "the root is composefs, but fs-verity is not required")
    if not options.allow_console_evidence:
        return Failure(
            FailureKind.UNPROVEN,
            "the console tells of a composefs root and of a login prompt, but nothing tells the state of systemd or "
            "what is mounted: the system did not run the reporting unit, which needs systemd 256",
            hint="--allow-console-evidence takes the console's word for it",
        )
    return None
