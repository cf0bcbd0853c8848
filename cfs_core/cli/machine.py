"""What the verbs that change a machine have in common: which machine, how results are shown, the restart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cfs_core.cli.output import format_option, progress_fd_option, say, show_json
from cfs_core.documents.machine import changed
from cfs_core.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfs_core.app.app import App
    from cfs_core.lifecycle.changes import ChangeResult

F = TypeVar("F", bound="Callable[..., Any]")

FINALIZE_UNIT = "cfs-finalize-staged.service"
OVERDUE = "cfs-boot-overdue"
"""The timer that ends a boot on trial which does not come up."""

NOTHING = 77
"""Exit status of `--check` where there is no update (sysexits' EX_NOPERM is what others use for it, too)."""


def root_option(command: F) -> F:
    """Add ``--root DIR``."""
    return click.option(
        "--root",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default="/",
        show_default=True,
        help="Directory of the system to change.",
    )(command)


def dry_run_option(command: F) -> F:
    """Add ``--dry-run``."""
    return click.option("--dry-run", is_flag=True, help="Show what would be done and stop.")(command)


def machine_options(command: F) -> F:
    """Add ``--root``, ``--format`` and ``--progress-fd``."""
    return root_option(format_option(progress_fd_option(command)))


def show_change(result: ChangeResult, output: str) -> None:
    """Print what a change did."""
    if output == "json":
        show_json(changed(result))
        return
    about = f" {result.image_id:.16}…" if result.image_id else ""
    say(f"{result.result}{about}{f': {result.why}' if result.why else ''}")
    for word in result.before:
        if word not in result.after:
            say(f"  - {word}")
    for word in result.after:
        if word not in result.before:
            say(f"  + {word}")
    if result.result == "plan":
        for action in result.actions:
            say(f"  {action}")


def refuse_elsewhere(root: Path, option: str) -> None:
    """Refuse what can be done to the system that runs only.

    Raises:
        UsageError: *root* is another.
    """
    if root != Path("/"):
        msg = f"{option} is for the system that runs, and --root names another"
        raise UsageError(msg, hint=f"leave {option} out")


def finalize_at_shutdown(app: App, root: Path) -> bool:
    """Start the unit whose end is the shutdown; return whether the system has it."""
    if root != Path("/"):
        return False
    systemctl = app.commands.find("systemctl")
    if systemctl is None:
        return False
    done = app.commands.run([str(systemctl), "start", FINALIZE_UNIT], ok=frozenset(range(256)))
    return done.returncode == 0


def soft_reboot_option(command: F) -> F:
    """Add ``--soft-reboot``."""
    return click.option(
        "--soft-reboot",
        type=click.Choice(["required", "auto"]),
        help="With --apply: start userspace alone again, where kernel and arguments are the same.",
    )(command)


def restart(app: App, root: Path, identity: str | None, soft: str | None) -> None:
    """Start the machine again; with *soft* ``auto`` or ``required`` only its userspace, into deployment *identity*.

    Raises:
        RefusedError: that is required and cannot be, or there is no systemd to ask.
        CommandError: something refuses.
    """
    from cfs_core.lifecycle.access import find_places, machine_below
    from cfs_core.lifecycle.soft_reboot import mount_next_root, refuse_soft

    systemctl = app.commands.find("systemctl")
    machine = machine_below(root, app)
    deployment = machine.status.get(identity)
    if soft is not None and deployment is not None and systemctl is not None:
        try:
            refuse_soft(machine, deployment.id)
        except RefusedError:
            if soft == "required":
                raise
        else:
            words = deployment.boot_entry.arguments if deployment.boot_entry is not None else ()
            mount_next_root(find_places(root), words or (f"composefs={deployment.id}",), app.commands)
            app.commands.run([str(systemctl), "soft-reboot"])
            return
    reboot(app)


def end_at(app: App, minutes: int) -> None:
    """Have `cfs-boot-failed.service` started *minutes* after the machine was, at once where that was before.

    The service asks whether the system has come up meanwhile. Asked twice, systemd does it once.

    Raises:
        RefusedError: there is no systemd to ask.
        CommandError: it refuses.
    """
    run, systemctl = app.commands.find("systemd-run"), app.commands.find("systemctl")
    if run is None or systemctl is None:
        msg = "there is no systemd-run to end this boot with, if it does not come up"
        raise RefusedError(msg, hint="put systemd-run into the image")
    asked = [str(systemctl), "--quiet", "is-active", f"{OVERDUE}.timer"]
    if app.commands.run(asked, ok=frozenset(range(256))).returncode == 0:
        return
    options = [
        f"--unit={OVERDUE}",
        f"--on-boot={minutes}min",
        "--timer-property=AccuracySec=1s",
        "--quiet",
        "--collect",
    ]
    app.commands.run([str(run), *options, str(systemctl), "--no-block", "start", "cfs-boot-failed.service"])


def reboot(app: App) -> None:
    """Start the machine again.

    Raises:
        RefusedError: there is no systemd to ask.
        CommandError: it refuses.
    """
    systemctl = app.commands.find("systemctl")
    if systemctl is None:
        msg = "there is no systemctl to restart the machine with"
        raise RefusedError(msg, hint="restart it by hand; everything is in place")
    app.commands.run([str(systemctl), "reboot"])
