"""``cfs deployments``, ``cfs gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cfs_core.cli.machine import dry_run_option, machine_options, show_change
from cfs_core.cli.output import ResultCommand, ResultGroup, say, show_json, table
from cfs_core.documents.machine import collected
from cfs_core.report.progress import human_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from cfs_core.app.app import App

_WIDTH = 16


@click.group(cls=ResultGroup)
def deployments() -> None:
    """List deployments, keep one, take one out of the boot menu.

    ID is a deployment's id, the beginning of it, or booted, rollback, staged.
    """


@deployments.command("list")
@machine_options
@click.pass_obj
def list_(app: App, root: Path, output: str) -> None:
    """List what is deployed on this machine.

    \b
    Example:
      cfs deployments list
    """
    from cfs_core.lifecycle.access import machine_below
    from cfs_core.lifecycle.document import document

    machine = machine_below(root, app)
    if output == "json":
        show_json(document(machine)["cfs"]["deployments"])
        return
    rows = [
        (each.id[:_WIDTH], each.origin.version or "", machine.words(each) or "in the menu", each.image or "")
        for each in machine.status.deployments
    ]
    table(rows, ("ID", "VERSION", "STATE", "IMAGE"))


@deployments.command()
@click.argument("identity", metavar="ID")
@machine_options
@click.pass_obj
def pin(app: App, identity: str, root: Path, output: str) -> None:
    """Keep a deployment in the boot menu, however many come after it.

    \b
    Example:
      cfs deployments pin booted
    """
    _pin(app, identity, root, output, pinned=True)


@deployments.command()
@click.argument("identity", metavar="ID")
@machine_options
@click.pass_obj
def unpin(app: App, identity: str, root: Path, output: str) -> None:
    """Let a pinned deployment go when its time comes.

    \b
    Example:
      cfs deployments unpin 3fa9
    """
    _pin(app, identity, root, output, pinned=False)


@deployments.command()
@click.argument("identity", metavar="ID")
@dry_run_option
@machine_options
@click.pass_obj
def remove(app: App, identity: str, root: Path, output: str, *, dry_run: bool) -> None:
    """Take a deployment out of the boot menu; `cfs gc` then frees its space.

    \b
    Example:
      cfs deployments remove rollback
    """
    from cfs_core.lifecycle.changes import remove as take_out
    from cfs_core.lifecycle.session import session

    with session(root, app, "deployments remove", writable=not dry_run) as opened:
        result = take_out(opened, identity, dry_run=dry_run)
    show_change(result, output)


def _pin(app: App, identity: str, root: Path, output: str, *, pinned: bool) -> None:
    from cfs_core.lifecycle.changes import pin as keep
    from cfs_core.lifecycle.session import session

    with session(root, app, "deployments pin") as opened:
        result = keep(opened, identity, pinned=pinned)
    show_change(result, output)


@click.command(cls=ResultCommand)
@dry_run_option
@machine_options
@click.pass_obj
def gc(app: App, root: Path, output: str, *, dry_run: bool) -> None:
    """Free what nothing on this machine needs any more.

    What runs, what is in the boot menu, staged or pinned stays, and so does whatever cannot be told.

    \b
    Example:
      cfs gc --dry-run
    """
    from cfs_core.lifecycle.garbage import collect
    from cfs_core.lifecycle.session import session

    with session(root, app, "gc", writable=not dry_run) as opened:
        found = collect(opened, dry_run=dry_run)
    if output == "json":
        show_json(collected(found))
        return
    would = "would free" if dry_run else "freed"
    for kept in found.kept:
        say(f"kept {kept.id[:_WIDTH]}…: {kept.why}")
    for name in found.states:
        say(f"{would} the state of {name[:_WIDTH]}…: no boot entry, not running, staged or pinned")
    for name in found.tags:
        say(f"{would} the image {name}")
    for name in found.boot_files:
        say(f"{would} {name}")
    least = "at least " if dry_run else ""
    say(f"{would} {least}{found.objects_removed} objects, {human_bytes(found.bytes_freed)}")
