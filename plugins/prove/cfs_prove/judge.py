"""What a boot proves: console, the system's own report and what was expected, put together. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_prove.console import ConsoleWatch
from cfs_prove.expectation import Expectation, missing_arguments
from cfs_prove.guest import GuestReport
from cfs_prove.report import Accelerator, Failure, FailureKind, Stage, StageReport
from cfs_prove.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

QUOTED_BYTES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What is taken for a proof. ``timeout_seconds`` is only told."""

    timeout_seconds: float = 300.0
    missing_verity: bool = False
    console_evidence: bool = False


@dataclass(slots=True, kw_only=True)
class Observed:
    """One run of the virtual machine. Times in seconds since it was started.

    ``report_at`` is when the system's report began, ``complete_at`` when it was complete. ``overflowed`` says that it
    was larger than any report is.
    """

    accelerator: Accelerator
    expected: Expectation = field(default_factory=Expectation)
    watch: ConsoleWatch = field(default_factory=ConsoleWatch)
    guest: GuestReport = field(default_factory=GuestReport)
    report_at: float | None = None
    complete_at: float | None = None
    overflowed: bool = False
    seconds: float = 0.0
    console: bytes = b""
    console_bytes_lost: int = 0
    qemu_said: str = ""
    exit_status: int | None = None
    kvm_failed: bool = False


def stage_reports(boot: Observed) -> tuple[StageReport, ...]:
    """Put console and report together; a stage that a later one presupposes was reached, too."""
    seconds = dict(boot.watch.reached)
    guest = boot.guest
    details: dict[Stage, str] = {}
    if guest.begun and boot.report_at is not None and guest.uptime is not None:
        seconds.setdefault(Stage.KERNEL, max(0.0, round(boot.report_at - guest.uptime, 1)))
    loader = guest.loader or guest.stub or boot.expected.loader
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
        seconds[Stage.SYSTEM] = boot.complete_at if boot.complete_at is not None else boot.seconds
    known = set(seconds) | (set(details) - {Stage.LOADER}) | ({Stage.LOADER} if guest.loader or guest.stub else set())
    last = max((list(Stage).index(stage) for stage in known), default=-1)
    return tuple(
        StageReport(stage, index <= last, seconds.get(stage), details.get(stage, "") if index <= last else "")
        for index, stage in enumerate(Stage)
    )


def failure_of(boot: Observed, accepted: Accepted) -> Failure | None:
    """Return what keeps this boot from being a proof.

    The system's complete report decides. Nothing that the console said outweighs it but a panic or a corrupted file
    after it, and a corrupted file before it where the system could not read its kernel's log.
    """
    if boot.kvm_failed:
        said = boot.qemu_said[-QUOTED_BYTES:] or "the guest stayed silent"
        return Failure(FailureKind.QEMU, f"KVM does not work here: {said}")
    if boot.guest.complete:
        return boot.watch.after_report or _corrupted(boot) or _judge_report(boot, accepted)
    if boot.overflowed:
        return Failure(FailureKind.UNPROVEN, "what came in place of the system's report is larger than any report")
    if boot.watch.failure is not None:
        return boot.watch.failure
    corrupted = _corrupted(boot)
    if corrupted is not None:
        return corrupted
    if boot.exit_status is not None:
        return _ended(boot)
    if boot.seconds >= accepted.timeout_seconds:
        reached = [item.stage.value for item in stage_reports(boot) if item.reached]
        last = reached[-1] if reached else "none"
        message = f"not done after {accepted.timeout_seconds:.0f} s; last stage reached: {last}"
        return Failure(FailureKind.TIMEOUT, message)
    return _judge_console(boot, accepted)


def notes_of(boot: Observed) -> Iterator[str]:
    """Yield what somebody who reads the result should know besides."""
    yield from boot.expected.notes
    if not boot.guest.begun and Stage.SYSTEM in boot.watch.reached:
        yield (
            "the system did not run the reporting unit (systemd 256 and later take it from SMBIOS): "
            "all that is known of it is from the console"
        )
    for line in boot.watch.overtaken:
        yield f"the console tells of a failure that did not keep the system from coming further: {line}"
    if boot.guest.complete and boot.watch.failure is not None and not boot.watch.failure.kind.is_final:
        yield f"the console tells of a failure, and the system reported all the same: {boot.watch.failure.message}"
    if boot.guest.forged:
        yield f"{boot.guest.forged} lines in the form of a report lack this run's secret, and were not taken for one"
    if boot.console_bytes_lost:
        yield f"the console's output was too long to be kept; {boot.console_bytes_lost} bytes in its middle are lost"


def _corrupted(boot: Observed) -> Failure | None:
    for line in boot.guest.kernel_log:
        if "FILE CORRUPTED" in line:
            return Failure(FailureKind.CORRUPTED, line)
    return None if boot.guest.kernel_log_read else boot.watch.corrupted


def _ended(boot: Observed) -> Failure:
    if boot.exit_status == 0:
        return Failure(FailureKind.RESET, "the guest switched itself off or reset before it had reported")
    return Failure(FailureKind.QEMU, f"QEMU ended with status {boot.exit_status}: {boot.qemu_said[-QUOTED_BYTES:]}")


def _judge_report(boot: Observed, accepted: Accepted) -> Failure | None:
    guest, root = boot.guest, boot.guest.root
    if root is None or root.image_id is None:
        seen = f"{root.filesystem} {root.source}" if root else "unknown"
        return Failure(FailureKind.NOT_COMPOSEFS, f"the root is not a composefs mount: {seen}")
    if not root.verity_required and not accepted.missing_verity:
        message = f"the root is composefs, but fs-verity is not required: {visible(root.options)}"
        return Failure(FailureKind.NO_VERITY, message)
    differing = _judge_arguments(boot)
    if differing is not None:
        return differing
    if guest.state not in {"running", "degraded"}:
        return Failure(FailureKind.SYSTEM_STATE, f"systemd is in state {guest.state or 'unknown'}")
    return None


def _judge_arguments(boot: Observed) -> Failure | None:
    """Compare what the kernel got with the entry that should have been started."""
    planned = boot.expected.arguments
    if planned is None:
        return None
    got = boot.guest.command_line
    missing = missing_arguments(planned, got or "")
    if not missing:
        return None
    loader = boot.expected.loader or "the loader"
    lost = visible(" ".join(missing))
    message = f"{loader} was to hand the kernel {lost}, and /proc/cmdline does not have it so: {visible(got or '')}"
    hint = "compare `arguments` with `command_line` in --format json; quotes are what loaders treat differently"
    return Failure(FailureKind.ARGUMENTS, message, hint=hint)


def _judge_console(boot: Observed, accepted: Accepted) -> Failure | None:
    """Judge a system that only its console speaks for: a login prompt was seen."""
    facts = boot.watch.details.get(Stage.ROOT)
    if facts is None:
        message = "a login prompt, but neither a reporting unit nor the console says what the root is"
        return Failure(FailureKind.UNPROVEN, message)
    if facts[1] != "required" and not accepted.missing_verity:
        return Failure(FailureKind.NO_VERITY, "the root is composefs, but fs-verity is not required")
    if not accepted.console_evidence:
        return Failure(
            FailureKind.UNPROVEN,
            "the console tells of a composefs root and of a login prompt, but nothing tells the state of systemd or "
            "what is mounted: the system did not run the reporting unit, which needs systemd 256",
            hint="--allow-console-evidence takes the console's word for it",
        )
    return None
