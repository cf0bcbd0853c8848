"""``cfs prove``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfs_core.plugin import Architecture, BootError, Event, Firmware, OutputFormat
from cfs_prove.report import Accelerator, FailureKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfs_core.plugin import CommandContext
    from cfs_prove.measured import Pcr
    from cfs_prove.report import ProofReport, Stage

HELP = """
Boot DISK in a virtual machine, without changing it, and say what it saw: loader, kernel with the arguments of the boot
entry, composefs root with fs-verity required, state of systemd, seconds for each. Exit status 0 only if all of it was
seen. A system before systemd 256 cannot tell all of it: it is proven only with --allow-console-evidence.

What a disk says of itself is worth as much as the disk is trusted.

\b
Example:
  cfs prove disk.img
  cfs prove disk.img --firmware bios --timeout 120 --format json
"""

PROOF_FAILED = "look at the console's last lines above, or keep all of it with --console-log FILE"
FIRMWARE = {"uefi": (Firmware.UEFI,), "bios": (Firmware.BIOS,), "both": (Firmware.UEFI, Firmware.BIOS)}


class UnprovenError(BootError):
    """A login prompt appeared, and not everything that makes a proof was seen."""

    code = "boot.unproven"


def make_prove(context: CommandContext) -> click.Command:
    """Return the command."""
    return click.Command(
        "prove",
        callback=functools.partial(_prove, context),
        help=HELP,
        short_help="Boot a disk in a virtual machine and say what it saw.",
        params=[
            click.Argument(["disk"], type=click.Path(path_type=Path)),
            click.Option(
                ["--firmware"], type=click.Choice(list(FIRMWARE)), default="uefi", show_default=True,
                help="What starts the disk; both: one boot each.",
            ),
            click.Option(
                ["--loader"], metavar="NAME",
                help="Bootloader the disk was made with; default: the one whose menu is on it.",
            ),
            click.Option(
                ["--timeout", "timeout_seconds"],
                type=click.FloatRange(min=1),
                default=300,
                show_default=True,
                metavar="S",
                help="Seconds after which the boot has failed.",
            ),
            click.Option(
                ["--memory", "memory_mib"],
                type=click.IntRange(min=256),
                default=1024,
                show_default=True,
                metavar="MIB",
                help="Memory of the virtual machine.",
            ),
            click.Option(
                ["--arch", "architecture"],
                type=click.Choice([Architecture.AMD64.value, Architecture.ARM64.value]),
                help="Architecture of the disk's system; default: this machine's.",
            ),
            click.Option(
                ["--accelerator"],
                type=click.Choice([each.value for each in Accelerator]),
                default="auto",
                show_default=True,
                help="KVM where it works, or emulation.",
            ),
            click.Option(
                ["--allow-missing-verity"], is_flag=True, help="Accept a composefs root without required fs-verity."
            ),
            click.Option(
                ["--allow-console-evidence"],
                is_flag=True,
                help="Accept a login prompt and what the console says of the root, where the state of systemd cannot "
                "be seen (before systemd 256).",
            ),
            click.Option(
                ["--disk-format"],
                type=click.Choice(["raw", "qcow2"]),
                help="Form of the disk; default: raw, or qcow2 if it is named so and is. A qcow2 file may name other "
                "files of this host, so say so only of one that you trust.",
            ),
            click.Option(
                ["--variables"],
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                metavar="FILE",
                help="Variables of firmware with keys enrolled (`cfs secureboot enroll`): starts with Secure Boot on.",
            ),
            click.Option(
                ["--tpm"],
                type=click.Choice(["yes", "no", "auto"]),
                default="auto",
                show_default=True,
                help="Give the machine a TPM (swtpm) that measures what is started; auto: for unified kernel images.",
            ),
            click.Option(
                ["--console-log"], type=click.Path(path_type=Path, dir_okay=False), help="Keep the console's output."
            ),
        ],
    )  # fmt: skip


def _prove(
    context: CommandContext,
    disk: Path,
    *,
    firmware: str,
    loader: str | None,
    architecture: str | None,
    tpm: str,
    **choices: Any,  # noqa: ANN401 - options under the names ProofOptions has
) -> None:
    from cfs_prove.proof import ProofOptions

    wanted = {"yes": True, "no": False, "auto": None}[tpm]
    options = {"architecture": Architecture(architecture) if architecture else None, "tpm": wanted, **choices}
    several = len(FIRMWARE[firmware]) > 1
    reports = []
    for each in FIRMWARE[firmware]:
        report = _boot(context, disk, ProofOptions(firmware=each, **_log_of(options, each, several=several)), loader)
        reports.append(report)
        if context.output.format is OutputFormat.TEXT:
            for line in _lines(report):
                context.output.say(line)
    if context.output.format is OutputFormat.JSON:
        proven = all(report.proven for report in reports)
        proofs = [report.as_json() for report in reports]
        context.output.show({"proven": proven, "proofs": proofs} if several else proofs[0])
    _refuse(reports)


def _log_of(options: dict[str, Any], firmware: Firmware, *, several: bool) -> dict[str, Any]:
    """Return the options, with a console log for each of several boots: ``log.uefi``, ``log.bios``."""
    log = options.get("console_log")
    if log is None or not several:
        return options
    return {**options, "console_log": log.with_name(f"{log.name}.{firmware.value}")}


def _boot(context: CommandContext, disk: Path, options: Any, loader: str | None) -> ProofReport:  # noqa: ANN401 - ProofOptions, imported when needed
    from dataclasses import replace

    from cfs_prove import machine
    from cfs_prove.expectation import expect
    from cfs_prove.proof import prove

    machine.disk_format(disk, options.disk_format)  # what cannot be read at all is refused in prove's own words
    expected = expect(disk, context.boot_menus, firmware=options.firmware, loader=loader, open_disk=context.open_disk)

    def on_stage(stage: Stage, seconds: float) -> None:
        context.emit(Event(name="prove.stage", facts={"stage": stage.value, "seconds": seconds}))

    return prove(
        disk,
        replace(options, expected=expected),
        progress=lambda text: context.output.tell(f"prove: {text}"),
        on_stage=on_stage,
        scratch=context.scratch,
    )


def _refuse(reports: Sequence[ProofReport]) -> None:
    """Raise what the first boot that was no proof says.

    Raises:
        BootError: one of them was none.
    """
    for report in reports:
        if report.failure is not None:
            kind = UnprovenError if report.failure.kind is FailureKind.UNPROVEN else BootError
            hint = report.failure.hint or PROOF_FAILED
            raise kind(report.failure.message, hint=hint, facts={"failure": report.failure.kind.value})


def _lines(report: ProofReport) -> Iterator[str]:
    loader = f", made with {report.bootloader}" if report.bootloader else ""
    yield f"{report.disk}: {report.firmware}{loader}, QEMU {report.qemu_version} ({report.accelerator})"
    for item in report.stages:
        seconds = f"{item.seconds:7.1f} s" if item.seconds is not None else " " * 9
        yield f"  {'✓' if item.reached else '✗'} {item.stage.value:<9}{seconds}  {item.detail}".rstrip()
    if report.os_name:
        yield f"system:  {report.os_name}"
    if report.root is not None:
        verity = "required" if report.root.verity_required else "NOT required"
        kind = "composefs" if report.root.image_id else report.root.filesystem
        yield f"root:    {kind}, fs-verity {verity}"
    yield from _trust_lines(report)
    if report.system_state:
        failed = f", failed: {', '.join(report.failed_units)}" if report.failed_units else ""
        yield f"systemd: {report.system_state}{failed}"
    for note in report.notes:
        yield f"note:    {note}"
    if report.failure is None:
        yield f"proven in {report.seconds:.1f} s"
        return
    yield "last lines of the console:"
    yield from (f"  | {line}" for line in report.console_tail)
    if report.findings:
        yield "what it said of failure:"
        yield from (f"  | {line}" for line in report.findings)
    yield f"NOT proven: {report.failure.kind.value}"


def _trust_lines(report: ProofReport) -> Iterator[str]:
    """Yield what firmware and TPM say of what was started."""
    if report.secure_boot is not None:
        state = "on" if report.secure_boot else "off"
        yield f"secure boot: {state}{', keys can still be enrolled' if report.setup_mode else ''}"
    if report.signed_by:
        yield f"signed by: {' and '.join(report.signed_by)}"
    elif report.pcr11 is not None:
        yield "signed by: nobody"
    if report.pcr11 is not None:
        yield f"PCR 11:  {_pcr_words(report.pcr11)}"


def _pcr_words(pcr: Pcr) -> str:
    if pcr.as_predicted is None:
        return f"not compared: {pcr.detail}" if pcr.value else pcr.detail
    if pcr.as_predicted:
        return "as predicted" + (f" ({pcr.detail})" if pcr.detail else "")
    return "NOT as predicted: something else than the disk's unified kernel image was measured"
