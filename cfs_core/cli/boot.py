"""``cfs boot``: what the units of an image tell about the boot they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cfs_core.cli.machine import dry_run_option, end_at, finalize_at_shutdown, machine_options, reboot
from cfs_core.cli.output import ResultGroup, say, show_json
from cfs_core.documents.machine import owned, tried

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.app.app import App
    from cfs_core.lifecycle.trial import TrialResult
    from cfs_core.lifecycle.unattended import RestartResult

WAIT = 300
"""Seconds; the units of one boot come at the same time, and one of them may be an upgrade."""


@click.group(cls=ResultGroup)
def boot() -> None:
    """Tell what became of a boot: the units that `cfs host install` puts into an image do."""


@boot.command()
@machine_options
@click.pass_obj
def good(app: App, root: Path, output: str) -> None:
    """Say that the system came up: what runs is no longer on trial.

    \b
    Example:
      cfs boot good
    """
    from cfs_core.lifecycle.session import session
    from cfs_core.lifecycle.trial import bless

    with session(root, app, "boot good", wait_seconds=WAIT) as opened:
        result = bless(opened)
    _show(result, output)


@boot.command()
@machine_options
@click.pass_obj
def check(app: App, root: Path, output: str) -> None:
    """Record which deployments used up their tries; nobody takes their image again by itself.

    Where this boot is on trial, systemd is told to end it boot.trial-timeout minutes after it began.

    \b
    Example:
      cfs boot check
    """
    from pathlib import Path as FilePath

    from cfs_core.lifecycle.session import session
    from cfs_core.lifecycle.trial import minutes_to_come_up, record_failures

    with session(root, app, "boot check", wait_seconds=WAIT) as opened:
        result = record_failures(opened)
        minutes = minutes_to_come_up(opened)
    if minutes is not None and root == FilePath("/"):
        end_at(app, minutes)
    _show(result, output)


@boot.command()
@click.option("--reason", default="the system did not come up", show_default=True, help="What went wrong, in words.")
@click.option("--no-reboot", is_flag=True, help="Only say whether the machine would be restarted.")
@machine_options
@click.pass_obj
def failed(app: App, reason: str, root: Path, output: str, *, no_reboot: bool) -> None:
    """End a boot that did not come up, if it is on trial and there is something else to start.

    \b
    Example:
      cfs boot failed --no-reboot
    """
    from pathlib import Path as FilePath

    from cfs_core.lifecycle.session import session
    from cfs_core.lifecycle.trial import give_up

    with session(root, app, "boot failed", wait_seconds=WAIT) as opened:
        result = give_up(opened, reason)
    _show(result, output)
    if result.result == "reboot" and not no_reboot and root == FilePath("/"):
        reboot(app)


@boot.command()
@machine_options
@click.pass_obj
def ownership(app: App, root: Path, output: str) -> None:
    """Bring owners in /var to the numbers that users and groups have in what runs.

    Only after an upgrade with --fix-ownership, and after going back from one.

    \b
    Example:
      cfs boot ownership
    """
    from cfs_core.lifecycle.ownership import follow_ownership
    from cfs_core.lifecycle.session import session

    with session(root, app, "boot ownership", wait_seconds=WAIT) as opened:
        result = follow_ownership(opened)
    if output == "json":
        show_json(owned(result))
    else:
        say(f"{result.result}{f': {result.files} files' if result.files else ''}")


@boot.command()
@dry_run_option
@machine_options
@click.pass_obj
def restart(app: App, root: Path, output: str, *, dry_run: bool) -> None:
    """Restart into what is staged, if the settings let the machine do that now.

    upgrade.restart must be auto, now must be in upgrade.window, and upgrade.restart-command must not say no. Machines
    with the same window restart at different times of it, spread over upgrade.spread minutes.

    \b
    Example:
      cfs boot restart --dry-run
    """
    from datetime import UTC, datetime
    from pathlib import Path as FilePath

    from cfs_core.lifecycle.session import session
    from cfs_core.lifecycle.unattended import decide_restart

    with session(root, app, "boot restart", writable=False) as opened:
        result = decide_restart(opened, datetime.now(UTC))
    _show(result, output)
    if result.result == "restart" and not dry_run and root == FilePath("/"):
        finalize_at_shutdown(app, root)
        reboot(app)


def _show(result: TrialResult | RestartResult, output: str) -> None:
    if output == "json":
        show_json(tried(result))
        return
    about = f" {result.image_id:.16}…" if result.image_id else ""
    say(f"{result.result}{about}{f': {result.why}' if result.why else ''}")
