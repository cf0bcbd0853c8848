"""``cfs boot``: what the units of an image tell about the boot they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cfs_core.cli.machine import machine_options, reboot
from cfs_core.cli.output import ResultGroup, say, show_json
from cfs_core.documents.machine import tried

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.app.app import App
    from cfs_core.lifecycle.trial import TrialResult

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

    \b
    Example:
      cfs boot check
    """
    from cfs_core.lifecycle.session import session
    from cfs_core.lifecycle.trial import record_failures

    with session(root, app, "boot check", wait_seconds=WAIT) as opened:
        result = record_failures(opened)
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


def _show(result: TrialResult, output: str) -> None:
    if output == "json":
        show_json(tried(result))
        return
    about = f" {result.image_id:.16}…" if result.image_id else ""
    say(f"{result.result}{about}{f': {result.why}' if result.why else ''}")
