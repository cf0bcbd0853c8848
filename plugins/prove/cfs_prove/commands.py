"""``cfs prove``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfs_core.plugin import Architecture, BootError, Firmware
from cfs_prove.report import FailureKind

if TYPE_CHECKING:
    from cfs_prove.report import ProofReport

HELP = """
Boot DISK in a virtual machine, without changing it, and say what it saw: loader, kernel, composefs root with fs-verity
required, state of systemd, seconds for each. Exit status 0 only if all of it was seen. A system before systemd 256
cannot tell all of it: it is proven only with --allow-console-evidence.

\b
Example:
  cfs prove disk.img
  cfs prove disk.img --firmware bios --timeout 120 --format json
"""

PROOF_FAILED = "look at the console's last lines above, or keep all of it with --console-log FILE"


class UnprovenError(BootError):
    """A login prompt appeared, and not everything that makes a proof was seen."""

    code = "boot.unproven"


def make_prove() -> click.Command:
    """Return the command."""
    return click.Command(
        "prove",
        callback=_prove,
        help=HELP,
        short_help="Boot a disk in a virtual machine and say what it saw.",
        params=[
            click.Argument(["disk"], type=click.Path(path_type=Path)),
            click.Option(
                ["--firmware"], type=click.Choice(["uefi", "bios"]), default="uefi", show_default=True
            ),
            click.Option(
                ["--timeout"],
                type=click.FloatRange(min=1),
                default=300,
                show_default=True,
                metavar="S",
                help="Seconds after which the boot has failed.",
            ),
            click.Option(
                ["--memory"], type=click.IntRange(min=256), default=1024, show_default=True, metavar="MIB",
                help="Memory of the virtual machine.",
            ),
            click.Option(
                ["--arch"],
                type=click.Choice([Architecture.AMD64.value, Architecture.ARM64.value]),
                help="Architecture of the disk's system; default: this machine's.",
            ),
            click.Option(
                ["--accelerator"],
                type=click.Choice(["auto", "kvm", "tcg"]),
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
                ["--console-log"], type=click.Path(path_type=Path, dir_okay=False), help="Keep the console's output."
            ),
            click.Option(
                ["--format", "output"],
                type=click.Choice(["text", "json"]),
                default="text",
                show_default=True,
                help="Form of the result.",
            ),
        ],
    )  # fmt: skip


def _prove(
    disk: Path,
    *,
    firmware: str,
    timeout: float,
    memory: int,
    arch: str | None,
    output: str,
    **choices: Any,  # noqa: ANN401 - options under the names ProofOptions has
) -> None:
    from cfs_prove.proof import ProofOptions, prove

    options = ProofOptions(
        firmware=Firmware(firmware),
        timeout_seconds=timeout,
        memory_mib=memory,
        architecture=Architecture(arch) if arch else None,
        **choices,
    )
    report = prove(disk, options, progress=_tell if output == "text" else _tell_nobody)
    if output == "json":
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        _show(report)
    if report.failure is not None:
        kind = UnprovenError if report.failure.kind is FailureKind.UNPROVEN else BootError
        hint = report.failure.hint or PROOF_FAILED
        raise kind(report.failure.message, hint=hint, facts={"failure": report.failure.kind.value})


def _tell(text: str) -> None:
    click.echo(f"prove: {text}", err=True)


def _tell_nobody(_text: str) -> None:
    """Keep standard error clean for programs."""


def _show(report: ProofReport) -> None:
    click.echo(f"{report.disk}: {report.firmware}, QEMU {report.qemu_version} ({report.accelerator})")
    for item in report.stages:
        seconds = f"{item.seconds:7.1f} s" if item.seconds is not None else " " * 9
        click.echo(f"  {'✓' if item.reached else '✗'} {item.stage.value:<9}{seconds}  {item.detail}".rstrip())
    if report.os_name:
        click.echo(f"system:  {report.os_name}")
    if report.root is not None:
        verity = "required" if report.root.verity_required else "NOT required"
        kind = "composefs" if report.root.image_id else report.root.filesystem
        click.echo(f"root:    {kind}, fs-verity {verity}")
    if report.system_state:
        failed = f", failed: {', '.join(report.failed_units)}" if report.failed_units else ""
        click.echo(f"systemd: {report.system_state}{failed}")
    for note in report.notes:
        click.echo(f"note:    {note}")
    if report.failure is None:
        click.echo(f"proven in {report.seconds:.1f} s")
        return
    click.echo("last lines of the console:")
    for line in report.console_tail:
        click.echo(f"  | {line}")
    if report.findings:
        click.echo("what it said of failure:")
        for line in report.findings:
            click.echo(f"  | {line}")
    click.echo(f"NOT proven: {report.failure.kind.value}")
