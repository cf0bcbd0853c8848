"""``cfs status``: what is installed, how it is started, what was verified."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfs_core.cli.output import format_option, say, show_json
from cfs_core.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfs_core.cli.app import App
    from cfs_core.interfaces.target import TargetView
    from cfs_core.lifecycle.status import DeploymentStatus, EntryStatus

SYSROOT = Path("/sysroot")


@click.command()
@click.argument("disk", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--sysroot",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory where the root volume of a system is mounted (default: /sysroot of this machine).",
)
@format_option
@click.pass_obj
def status(app: App, disk: Path | None, sysroot: Path | None, output: str) -> int:
    """Show deployments: image, boot entries, what was verified.

    Reads a disk image (nothing is mounted), or a system below a directory. Exit status 12 if anything in it is
    inconsistent; contents are checked by `cfs repo fsck`.

    \b
    Examples:
      cfs status disk.img
      cfs status --sysroot /mnt --format json
    """
    from cfs_core.lifecycle.status import read_status
    from cfs_core.pluginhost import families

    if disk is not None and sysroot is not None:
        msg = "DISK and --sysroot contradict each other"
        raise UsageError(msg)
    loaders = {
        provider.name: app.make(families.BOOTLOADERS, provider.name)
        for provider in app.host.collect(families.BOOTLOADERS)
    }
    with _opened(app, disk, sysroot) as target:
        found = read_status(target, loaders)
    if output == "json":
        show_json(found)
        return StateError.exit_status if found.problems else 0
    for deployment in found.deployments:
        _show(deployment)
    if not found.deployments:
        say("no deployments")
    for entry in found.foreign:
        say(f"other system\n  boot entry  {_words(entry)}")
    for note in found.notes:
        say(f"note: {note.where}: {note.message} [{note.code}]")
    for problem in found.problems:
        say(f"inconsistent: {problem.where}: {problem.message} [{problem.code}]")
    return StateError.exit_status if found.problems else 0


@contextmanager
def _opened(app: App, disk: Path | None, sysroot: Path | None) -> Iterator[TargetView]:
    if disk is not None:
        from cfs_core.examine.disk import opened_disk

        with opened_disk(app, disk) as image:
            yield image
        return
    from cfs_core.lifecycle.status import mounted_volumes
    from cfs_core.target.mounted import MountedTarget

    root = sysroot or SYSROOT
    if not (root / "state/deploy").is_dir():
        msg = f"{root} holds no deployments: it has no state/deploy"
        raise StateError(msg, hint="name a disk image, or where the root volume is mounted: --sysroot PATH")
    yield MountedTarget(mounted_volumes(root, Path("/") if sysroot is None else None))


def _show(deployment: DeploymentStatus) -> None:
    say(f"deployment {deployment.id}")
    rows = [
        ("image", deployment.image or "unknown"),
        ("manifest", deployment.manifest_digest or "unknown"),
        ("layout", deployment.layout.value if deployment.layout else "unknown"),
    ]
    rows += [("verified", what) for what in deployment.verified or ("nothing is recorded",)]
    rows += [("boot entry", _words(entry)) for entry in deployment.entries]
    for name, value in rows:
        say(f"  {name:10}  {value}")


def _words(entry: EntryStatus) -> str:
    words = [f"{entry.title} ({entry.loader} {entry.name}, number {entry.position})"]
    words += ["default"] if entry.default else []
    words += ["next boot only"] if entry.once else []
    words += [f"{entry.tries_left} tries left"] if entry.tries_left is not None else []
    return ", ".join(words)
