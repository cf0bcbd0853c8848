"""``cfs kargs``, ``config-diff``, ``usr-overlay`` and ``edit``: what is this machine's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfs_core.cli.machine import dry_run_option, machine_options, refuse_elsewhere, root_option, show_change
from cfs_core.cli.output import ResultCommand, ResultGroup, say, show_json
from cfs_core.documents import machine as documents
from cfs_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfs_core.app.app import App


@click.group(cls=ResultGroup)
def kargs() -> None:
    """Show and change kernel arguments of this machine; upgrades carry them on.

    A change is for the next start, of what is staged or of what starts by itself.
    """


@kargs.command("list")
@machine_options
@click.pass_obj
def list_(app: App, root: Path, output: str) -> None:
    """Show the kernel arguments of the next start, and mark those that do not run yet.

    \b
    Example:
      cfs kargs list
    """
    from cfs_core.lifecycle.access import machine_below
    from cfs_core.lifecycle.addons import words_on

    machine = machine_below(root, app)
    goal = machine.status.get(machine.default)
    found = words_on(machine.target, goal.boot_entry if goal is not None else None)
    running = machine.running.arguments
    if output == "json":
        show_json(documents.arguments(found, running))
        return
    if not found:
        for text in running:
            say(text)
    for word in found:
        notes = [f"addon {word.origin}"] if word.origin.endswith(".addon.efi") else []
        notes += [] if word.text in running else ["from the next start on"]
        say(f"{word.text}  ({', '.join(notes)})" if notes else word.text)


def _addon_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--uki-addon", "addons", multiple=True, metavar="ADDON", help=what)


@kargs.command()
@click.argument("arguments", nargs=-1)
@_addon_option("Add this addon of the UKI: a name of the image's, or DIR/NAME.addon.efi (repeatable).")
@dry_run_option
@machine_options
@click.pass_obj
def add(
    app: App, arguments: tuple[str, ...], addons: tuple[str, ...], root: Path, output: str, *, dry_run: bool
) -> None:
    """Add kernel arguments; to a sealed system an addon that holds them.

    An addon is signed by a key that the firmware trusts. It belongs to the deployment: upgrades carry it on, and a
    rollback goes back to what was.

    \b
    Examples:
      cfs kargs add console=ttyS0,115200
      cfs kargs add --uki-addon ./keymap.addon.efi
    """
    from cfs_core.image.kernel_arguments import quote

    if _is_about_addons(arguments, addons):
        _change_addons(app, root, output, added=addons, dry_run=dry_run)
        return
    _change(app, root, output, appended=tuple(map(quote, arguments)), dry_run=dry_run)


@kargs.command()
@click.argument("arguments", nargs=-1)
@_addon_option("Take this addon of the UKI away (repeatable).")
@dry_run_option
@machine_options
@click.pass_obj
def delete(
    app: App, arguments: tuple[str, ...], addons: tuple[str, ...], root: Path, output: str, *, dry_run: bool
) -> None:
    """Take kernel arguments away: KEY, or KEY=VALUE; from a sealed system an addon.

    \b
    Examples:
      cfs kargs delete quiet
      cfs kargs delete --uki-addon keymap
    """
    if _is_about_addons(arguments, addons):
        _change_addons(app, root, output, removed=addons, dry_run=dry_run)
        return
    _change(app, root, output, deleted=arguments, dry_run=dry_run)


def _is_about_addons(arguments: tuple[str, ...], addons: tuple[str, ...]) -> bool:
    if bool(arguments) == bool(addons):
        msg = "name either kernel arguments or addons (--uki-addon)"
        raise UsageError(msg, hint="a sealed system takes addons, others take arguments: cfs kargs list shows them")
    return bool(addons)


def _change_addons(
    app: App, root: Path, output: str, *, added: tuple[str, ...] = (), removed: tuple[str, ...] = (), dry_run: bool
) -> None:
    from cfs_core.lifecycle.addon_changes import change_addons
    from cfs_core.lifecycle.session import session

    with session(root, app, "kargs", writable=not dry_run) as opened:
        result = change_addons(opened, added=added, removed=removed, dry_run=dry_run)
    show_change(result, output)


def _change(
    app: App,
    root: Path,
    output: str,
    *,
    appended: tuple[str, ...] = (),
    deleted: tuple[str, ...] = (),
    dry_run: bool,
) -> None:
    from cfs_core.lifecycle.changes import change_arguments
    from cfs_core.lifecycle.session import session

    with session(root, app, "kargs", writable=not dry_run) as opened:
        result = change_arguments(opened, appended=appended, deleted=deleted, dry_run=dry_run)
    show_change(result, output)


@click.command("config-diff", cls=ResultCommand)
@machine_options
@click.pass_obj
def config_diff(app: App, root: Path, output: str) -> None:
    """Show what differs in /etc from the image that runs.

    \b
    Example:
      cfs config-diff
    """
    from cfs_core.lifecycle.config_diff import config_diff as compare
    from cfs_core.lifecycle.session import session

    with session(root, app, "config-diff", writable=False) as opened:
        found = compare(opened)
    if output == "json":
        show_json(documents.etc_differences(found))
        return
    for each in found:
        what = f" ({', '.join(each.what)})" if each.what else ""
        say(f"{each.change:8}  {each.path}{what}")


@click.command("usr-overlay", cls=ResultCommand)
@click.option("--read-only", is_flag=True, help="Let nothing be written through it yet.")
@root_option
@click.pass_obj
def usr_overlay(app: App, root: Path, *, read_only: bool) -> None:
    """Make /usr writable until the next start.

    \b
    Example:
      cfs usr-overlay
    """
    from cfs_core.lifecycle.access import machine_below
    from cfs_core.lifecycle.usr_overlay import mount_usr_overlay

    refuse_elsewhere(root, "usr-overlay")
    mount_usr_overlay(machine_below(root, app), read_only=read_only)
    say("an overlay is mounted over /usr; what is changed there is gone after the next start")


@click.command(cls=ResultCommand)
@click.option("--image", metavar="REF", help="Where updates come from.")
@click.option("--filename", "-f", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A host document.")
@machine_options
@click.pass_obj
def edit(app: App, image: str | None, filename: Path | None, root: Path, output: str) -> None:
    """Change what this machine follows, without fetching anything.

    FILE is the document that `cfs status --format json` prints; its spec is what counts.

    \b
    Example:
      cfs edit --image docker://quay.io/example/os:stable
    """
    from cfs_core.lifecycle.changes import follow, rollback
    from cfs_core.lifecycle.session import session

    if (image is None) == (filename is None):
        msg = "name either an image (--image) or a document (--filename)"
        raise UsageError(msg, hint="cfs status --format json prints one to change")
    wanted, order = (image, None) if image is not None else _spec(filename)
    with session(root, app, "edit") as opened:
        result = None
        if wanted is not None:
            result = follow(opened, wanted)
        queued = opened.machine.rollback_queued
        if order is not None and (order == "rollback") != queued:
            result = rollback(opened)
    if result is not None:
        show_change(result, output)


def _spec(filename: Path | None) -> tuple[str | None, str | None]:
    """Return image and boot order of a host document."""
    import json

    try:
        spec = json.loads((filename or Path()).read_bytes())["spec"]
        image = spec.get("image")
        transport = "docker" if image and image["transport"] == "registry" else image and image["transport"]
        wanted = f"{transport}:{'//' if transport == 'docker' else ''}{image['image']}" if image else None
        return wanted, spec.get("bootOrder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        msg = f"{filename} is no host document"
        raise UsageError(msg, hint="start from what `cfs status --format json` prints") from cause
