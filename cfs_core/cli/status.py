"""``cfs status``: what is installed, how it is started, what was verified."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfs_core.cli.output import say, show_json
from cfs_core.documents.values import plain
from cfs_core.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.app.app import App
    from cfs_core.lifecycle.machine import Machine
    from cfs_core.lifecycle.status import DeploymentStatus, EntryStatus


@click.command()
@click.argument("disk", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--sysroot",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory where the root volume of a system that does not run is mounted.",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the system to look at (default: this machine, /).",
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "humanreadable", "json", "yaml"]),
    default="text",
    show_default=True,
    help="Form of the result; json and yaml are bootc's document.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--format-version", type=click.IntRange(0, 1), default=1, show_default=True, help="Version of the document."
)
@click.option("--booted", is_flag=True, help="Only the deployment that runs.")
@click.option("--verbose", "-v", is_flag=True, help="Show kernel arguments, digests and dates too.")
@click.pass_obj
def status(app: App, /, disk: Path | None, **options: Any) -> int:  # noqa: ANN401 - the options above
    """Show deployments: image, boot entries, what was verified.

    Reads this machine, a disk image (nothing is mounted), or a system below a directory. Exit status 12 if anything in
    it is inconsistent or a deployment did not come up; contents are checked by `cfs repo fsck`.

    \b
    Examples:
      cfs status
      cfs status --format json disk.img
      cfs status --sysroot /mnt
    """
    from cfs_core.lifecycle.document import document, entry_document

    if sum(place is not None for place in (disk, options["sysroot"], options["root"])) > 1:
        msg = "DISK, --sysroot and --root contradict each other"
        raise UsageError(msg, hint="name one of them")
    output = "json" if options["as_json"] else options["output"]
    with _opened(app, disk, options["sysroot"], options["root"]) as machine:
        if output in {"json", "yaml"}:
            found = entry_document(machine) if options["booted"] else document(machine)
            show_json(found) if output == "json" else _show_yaml(found)
        else:
            _show(machine, booted_only=options["booted"], verbose=options["verbose"])
    return StateError.exit_status if machine.status.problems or machine.failures else 0


@contextmanager
def _opened(app: App, disk: Path | None, sysroot: Path | None, root: Path | None) -> Iterator[Machine]:
    from cfs_core.lifecycle.access import machine_below, machine_of_sysroot, machine_on

    if disk is not None:
        with machine_on(disk, app) as machine:
            yield machine
    elif sysroot is not None:
        yield machine_of_sysroot(sysroot, app)
    else:
        yield machine_below(root or Path("/"), app)


def _show_yaml(value: object) -> None:
    from cfs_core.report.yaml import to_yaml

    say(to_yaml(plain(value)).rstrip("\n"))


def _show(machine: Machine, *, booted_only: bool, verbose: bool) -> None:
    for deployment in machine.status.deployments:
        if not booted_only or deployment.id == machine.running.booted:
            _show_deployment(machine, deployment, verbose=verbose)
    if not machine.status.deployments:
        say("no deployments")
    _show_loader(machine)
    for entry in machine.status.foreign:
        say(f"other system\n  boot entry  {_words(entry)}")
    for name, failure in machine.failures.items():
        say(f"failed: {name:.16}: {failure.reason}")
    for note in machine.status.notes:
        say(f"note: {note.where}: {note.message} [{note.code}]")
    for problem in machine.status.problems:
        say(f"inconsistent: {problem.where}: {problem.message} [{problem.code}]")
        if problem.hint:
            say(f"  hint: {problem.hint}")


def _show_loader(machine: Machine) -> None:
    """Show the loader's version, and the image's where that is another: what an upgrade, or nobody, exchanges."""
    versions = machine.versions
    installed, offered = versions.installed, versions.offered
    if installed is not None:
        other = f"; the running image has {offered}" if offered not in {None, installed} else ""
        say(f"bootloader {machine.loader} {installed}{other}")


def _show_deployment(machine: Machine, deployment: DeploymentStatus, *, verbose: bool) -> None:
    say(f"deployment {deployment.id}")
    origin = deployment.origin
    rows = [("state", word) for word in (machine.words(deployment),) if word]
    rows += [
        ("image", deployment.image or "unknown"),
        ("manifest", deployment.manifest_digest or "unknown"),
        ("layout", deployment.layout.value if deployment.layout else "unknown"),
    ]
    rows += [("version", origin.version)] if origin.version else []
    rows += [("made", origin.created)] if verbose and origin.created else []
    rows += [("verified", what) for what in deployment.verified or ("nothing is recorded",)]
    rows += [("boot entry", _words(entry)) for entry in deployment.entries]
    if verbose:
        entry = deployment.boot_entry
        rows += [("boot digest", origin.boot_digest)] if origin.boot_digest else []
        rows += [("arguments", " ".join(entry.arguments))] if entry is not None else []
    for name, value in rows:
        say(f"  {name:10}  {value}")


def _words(entry: EntryStatus) -> str:
    words = [f"{entry.title} ({entry.loader} {entry.name}, number {entry.position})"]
    words += ["default"] if entry.default else []
    words += ["next boot only"] if entry.once else []
    words += [f"{entry.tries_left} tries left"] if entry.tries_left is not None else []
    return ", ".join(words)
