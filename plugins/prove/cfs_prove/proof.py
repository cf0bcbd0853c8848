"""Boots a disk in a virtual machine, watches, and says what it saw."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.plugin import Architecture, Firmware, RefusedError, scratch_directory
from cfs_prove import machine, tpm
from cfs_prove.channel import Channel
from cfs_prove.console import ConsoleWatch
from cfs_prove.expectation import Expectation
from cfs_prove.guest import ReportReader, make_nonce
from cfs_prove.judge import Accepted, Observed, failure_of, notes_of, stage_reports
from cfs_prove.measured import judge_pcr
from cfs_prove.patterns import patterns_for
from cfs_prove.report import Accelerator, FailureKind, ProofReport, Stage
from cfs_prove.text import last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLL_SECONDS = 0.1
SETTLE_SECONDS = 2.0
"""How long a machine whose report is complete goes on, so that a panic just after it is seen."""

QUIET_SECONDS = {Accelerator.KVM: 10.0, Accelerator.TCG: 45.0}
"""A console that told of failure is watched until it has been quiet for so long: what comes may take it back."""

SILENT_REPORTER = {Accelerator.KVM: 20.0, Accelerator.TCG: 60.0}
"""Seconds that the reporting unit may stay silent after a login prompt, before it is taken for missing."""

SILENT_KVM_SECONDS = 30.0
"""A guest that says nothing for so long under KVM is taken for one that KVM cannot run."""

KVM_BROKEN = (b"KVM internal error", b"failed to initialize kvm", b"Could not access KVM", b"invalid accelerator kvm")

CONSOLE_BYTES = 4 << 20
"""Of what a console writes so much is kept from its beginning, and so much from its end."""

REPORT_BYTES = 1 << 20
"""No report is larger: it has some tens of lines, of which the kernel's may be 64 KiB long."""

ERROR_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofOptions:
    """How to boot, and what to take for a proof.

    ``architecture`` None is this machine's. ``reporter_seconds`` is
    how long the reporting unit may stay silent after a login prompt, ``quiet_seconds`` how long a console that told of
    failure must be quiet before the boot is given up; None depends on the accelerator. ``disk_format`` is ``raw`` or
    ``qcow2``; None is raw unless name and contents agree on qcow2. ``allow_console_evidence`` takes a login prompt and
    what the console says of the root for a proof where the state of systemd cannot be seen. ``variables`` are variables
    of firmware with keys enrolled, for firmware with Secure Boot; they are copied. ``tpm`` says whether the machine has
    a TPM; None gives it one where swtpm is installed and the disk starts a unified kernel image.
    """

    firmware: Firmware = Firmware.UEFI
    timeout_seconds: float = 300.0
    memory_mib: int = 1024
    architecture: Architecture | None = None
    accelerator: Accelerator = Accelerator.AUTO
    disk_format: str | None = None
    allow_missing_verity: bool = False
    allow_console_evidence: bool = False
    console_log: Path | None = None
    variables: Path | None = None
    tpm: bool | None = None
    reporter_seconds: float | None = None
    quiet_seconds: float | None = None
    expected: Expectation = field(default_factory=Expectation)
    """What the disk should do (`cfs_prove.expectation.expect`); nothing is compared by default."""

    @property
    def accepted(self) -> Accepted:
        """What is taken for a proof."""
        return Accepted(
            timeout_seconds=self.timeout_seconds,
            missing_verity=self.allow_missing_verity,
            console_evidence=self.allow_console_evidence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    """What is known before the machine is started."""

    disk: Path
    form: str
    emulator: machine.Emulator
    uefi: machine.FirmwareImage | None
    options: ProofOptions
    progress: Callable[[str], None]
    on_stage: Callable[[Stage, float], None]
    scratch: Path | None


def prove(
    disk: Path,
    options: ProofOptions,
    *,
    progress: Callable[[str], None] = lambda _text: None,
    on_stage: Callable[[Stage, float], None] = lambda _stage, _seconds: None,
    scratch: Path | None = None,
) -> ProofReport:
    """Boot *disk* and report. The disk is not changed. *progress* is told what happens, in words.

    *on_stage* is told each stage that was reached, and after how many seconds. Files of the machine go to *scratch*, by
    default a temporary directory.

    Raises:
        CommandError: QEMU or firmware is missing, or QEMU is too old.
        RefusedError: *disk* cannot be read or its architecture not be emulated, or the console's log cannot be written.
    """
    architecture = options.architecture or machine.host_architecture()
    setup = _Setup(
        disk=disk,
        form=machine.disk_format(disk, options.disk_format),
        emulator=machine.find_emulator(architecture),
        uefi=_firmware(architecture, options),
        options=options,
        progress=progress,
        on_stage=on_stage,
        scratch=scratch,
    )
    asked = accelerator = Accelerator(options.accelerator)
    if asked is Accelerator.AUTO:
        accelerator = Accelerator.KVM if machine.kvm_usable(architecture) else Accelerator.TCG
    if accelerator is Accelerator.TCG:
        machine.check_emulation(setup.emulator)
    if options.console_log is not None:
        _keep_console(options.console_log, b"")  # before minutes have gone into a boot
    notes = list(_notes_before(setup))
    boot = _run(setup, accelerator)
    if boot.kvm_failed and asked is Accelerator.AUTO:
        machine.check_emulation(setup.emulator)
        notes.append("KVM does not work here: booted again in emulation")
        progress(notes[-1])
        boot = _run(setup, Accelerator.TCG)
    if options.console_log is not None:
        _keep_console(options.console_log, boot.console)
    return _report(setup, boot, (*notes, *notes_of(boot)))


def _firmware(architecture: Architecture, options: ProofOptions) -> machine.FirmwareImage | None:
    if options.firmware is not Firmware.UEFI:
        return None
    if options.variables is None:
        return machine.find_firmware(architecture)
    found = machine.find_firmware(architecture, secure=True)
    template = found.variables.stat().st_size
    try:
        size = options.variables.stat().st_size
    except OSError as cause:
        msg = f"the variables {options.variables} cannot be read: {cause.strerror}"
        raise RefusedError(msg, hint="make them with `cfs secureboot enroll`") from cause
    if size != template:
        msg = f"{options.variables} has {size} bytes, and variables of {found.code} have {template}"
        raise RefusedError(msg, hint=f"make them of {found.variables} with `cfs secureboot enroll`")
    return dataclasses.replace(found, variables=options.variables)


def _has_tpm(options: ProofOptions) -> bool:
    if options.tpm is not None:
        return options.tpm
    return options.firmware is Firmware.UEFI and options.expected.program is not None and tpm.installed()


def _notes_before(setup: _Setup) -> Iterator[str]:
    if setup.form == "raw" and setup.options.disk_format is None and machine.begins_like_qcow2(setup.disk):
        yield "the disk begins like a qcow2 file, and was taken for a raw disk: --disk-format qcow2 if it is one"


def _keep_console(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as cause:
        msg = f"the console's log {path} cannot be written: {cause.strerror}"
        raise RefusedError(msg, hint="name another file with --console-log") from cause


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channels:
    """What the machine writes to."""

    console: Channel
    report: Channel
    errors: Channel
    reader: ReportReader


def _run(setup: _Setup, accelerator: Accelerator) -> Observed:
    options = setup.options
    expected = options.expected
    boot = Observed(
        accelerator=accelerator, expected=expected, watch=ConsoleWatch(patterns=patterns_for(expected.loaders))
    )
    nonce = make_nonce()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder(setup.scratch))
        files = machine.MachineFiles(
            console=folder / "console",
            report=folder / "report",
            variables=folder / "variables",
            tpm=stack.enter_context(tpm.emulated(folder)) if _has_tpm(options) else None,
        )
        channels = _Channels(
            console=stack.enter_context(Channel(files.console, head=CONSOLE_BYTES, tail=CONSOLE_BYTES)),
            report=stack.enter_context(Channel(files.report, head=REPORT_BYTES)),
            errors=stack.enter_context(Channel(folder / "errors", head=ERROR_BYTES, tail=ERROR_BYTES)),
            reader=ReportReader(nonce),
        )
        if setup.uefi is not None:
            shutil.copyfile(setup.uefi.variables, files.variables)
        words = machine.qemu_argv(
            setup.emulator,
            setup.disk,
            files,
            form=setup.form,
            firmware=options.firmware,
            uefi=setup.uefi,
            accelerator=accelerator,
            memory_mib=options.memory_mib,
            nonce=nonce,
        )
        setup.progress(f"starting QEMU {setup.emulator.version} with {accelerator}")
        stderr = os.open(folder / "errors", os.O_WRONLY | os.O_CLOEXEC)
        stack.callback(os.close, stderr)
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - found by name in PATH, arguments made here
            words, executable=machine.THIS_PROGRAM, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
        )
        try:
            _watch(process, boot, channels, started, setup)
        finally:
            process.kill()
            process.wait()
        _take(boot, channels)
        boot.console = channels.console.contents()
        boot.console_bytes_lost = channels.console.bytes_lost
        boot.qemu_said = channels.errors.contents().decode("utf-8", "replace").strip()
    return boot


@contextlib.contextmanager
def _folder(scratch: Path | None) -> Iterator[Path]:
    if scratch is None:
        with scratch_directory() as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="machine-", dir=scratch) as name:
        yield Path(name)


def _watch(
    process: subprocess.Popen[bytes], boot: Observed, channels: _Channels, started: float, setup: _Setup
) -> None:
    """Follow the machine until it has told everything, failed, ended, or used up its time."""
    announced: set[Stage] = set()
    while True:
        boot.exit_status = process.poll()
        boot.seconds = round(time.monotonic() - started, 1)
        _take(boot, channels)
        for stage in [stage for stage in boot.watch.reached if stage not in announced]:
            announced.add(stage)
            setup.progress(f"{stage.value} after {boot.seconds:.1f} s")
            setup.on_stage(stage, boot.seconds)
        if boot.accelerator is Accelerator.KVM and _kvm_failed(boot, channels.errors.contents()):
            boot.kvm_failed = True
            return
        if boot.exit_status is not None or _finished(boot, setup.options):
            return
        if boot.seconds >= setup.options.timeout_seconds:
            return
        time.sleep(POLL_SECONDS)


def _take(boot: Observed, channels: _Channels) -> None:
    """Read what the machine has written. What the console wrote before a report was complete counts as before it."""
    channels.errors.read()
    boot.watch.feed(channels.console.read(), boot.seconds)
    channels.reader.feed(channels.report.read())
    guest = boot.guest = channels.reader.report
    boot.overflowed = channels.report.bytes_lost > 0
    if guest.begun and boot.report_at is None:
        boot.report_at = boot.seconds
    if guest.complete and boot.complete_at is None:
        boot.complete_at = boot.seconds
        boot.watch.report_is_complete()


def _kvm_failed(boot: Observed, said: bytes) -> bool:
    if any(text in said for text in KVM_BROKEN) or boot.exit_status not in {None, 0}:
        return True
    return boot.watch.bytes_seen == 0 and boot.seconds > SILENT_KVM_SECONDS


def _finished(boot: Observed, options: ProofOptions) -> bool:
    """Whether nothing more can come that changes the result."""
    if boot.complete_at is not None:
        return boot.watch.after_report is not None or boot.seconds >= boot.complete_at + SETTLE_SECONDS
    if boot.overflowed:
        return True
    failure = boot.watch.failure
    if failure is not None and (failure.kind is FailureKind.PANIC or not boot.guest.begun):
        quiet = QUIET_SECONDS[boot.accelerator] if options.quiet_seconds is None else options.quiet_seconds
        return boot.seconds > boot.watch.last_at + quiet
    silent = SILENT_REPORTER[boot.accelerator] if options.reporter_seconds is None else options.reporter_seconds
    prompt = boot.watch.reached.get(Stage.SYSTEM)
    return prompt is not None and not boot.guest.begun and boot.seconds > prompt + silent


def _report(setup: _Setup, boot: Observed, notes: tuple[str, ...]) -> ProofReport:
    guest, watch, program = boot.guest, boot.watch, boot.expected.program
    return ProofReport(
        disk=str(setup.disk),
        firmware=setup.options.firmware.value,
        architecture=setup.emulator.architecture.value,
        accelerator=boot.accelerator.value,
        qemu_version=setup.emulator.version,
        seconds=boot.seconds if boot.complete_at is None else boot.complete_at,
        evidence="reporter" if guest.begun else "console",
        stages=stage_reports(boot),
        root=guest.root,
        system_state=guest.state,
        failed_units=tuple(guest.failed_units),
        os_name=guest.os_name,
        kernel=guest.kernel or next(iter(watch.details.get(Stage.KERNEL, ())), None) or None,
        bootloader=boot.expected.loader,
        loader=guest.loader or guest.stub,
        arguments=boot.expected.arguments,
        command_line=guest.command_line,
        secure_boot=guest.secure_boot,
        setup_mode=guest.setup_mode,
        signed_by=program.signers if program is not None else (),
        pcr11=judge_pcr(program, guest.stub, guest.pcr11) if program is not None and guest.complete else None,
        kernel_log=tuple(guest.kernel_log),
        notes=notes,
        failure=failure_of(boot, setup.options.accepted),
        findings=tuple(watch.findings),
        console_tail=last_lines(boot.console),
    )
