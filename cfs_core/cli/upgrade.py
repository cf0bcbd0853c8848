"""``cfs upgrade``, ``switch``, ``rollback`` and ``finalize``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cfs_core.cli.machine import (
    NOTHING,
    dry_run_option,
    finalize_at_shutdown,
    machine_options,
    refuse_elsewhere,
    restart,
    show_change,
    soft_reboot_option,
)
from cfs_core.cli.output import ResultCommand, authfile_option, say, show_json
from cfs_core.documents import machine as documents
from cfs_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cfs_core.app.app import App
    from cfs_core.lifecycle.upgrade import UpgradeRequest, UpgradeResult

F = TypeVar("F", bound="Callable[..., Any]")

WAIT = 60
"""Seconds that finalizing waits for a verb which the shutdown has not ended yet."""


def _staging_options(command: F) -> F:
    for option in (
        click.option(
            "--etc-conflicts",
            type=click.Choice(["fail", "local", "image"]),
            help="Who wins where /etc cannot be merged (default: nobody).",
        ),
        click.option(
            "--fix-ownership", is_flag=True, help="Change owners of files where users or groups get another number."
        ),
        click.option("--allow-weaker", is_flag=True, help="Go on though less is verified than before."),
        click.option("--apply", is_flag=True, help="Restart the machine into it."),
        soft_reboot_option,
        click.option("--quiet", is_flag=True, help="Say nothing but errors."),
        dry_run_option,
        machine_options,
        authfile_option,
    ):
        command = option(command)
    return command


@click.command(cls=ResultCommand)
@click.option("--check", is_flag=True, help="Only look whether there is an update: exit status 77 if not.")
@click.option("--download-only", is_flag=True, help="Fetch and stage, and let a restart drop it.")
@click.option("--from-downloaded", is_flag=True, help="Use what --download-only has fetched; fetch nothing.")
@click.option("--from", "content_from", metavar="REF", help="Take the content from here, such as oci:/media/stick.")
@click.option("--tag", metavar="TAG", help="Follow this tag of the same image from now on.")
@click.option("--retry", is_flag=True, help="Take an image, too, that this machine went back from.")
@_staging_options
@click.pass_obj
def upgrade(app: App, /, root: Path, output: str, **options: Any) -> int:  # noqa: ANN401 - the options above
    """Fetch the image that this machine follows, and stage it for the next start.

    What runs stays as it is; at shutdown /etc is merged and the new deployment becomes the default. Exit status 0 if
    something was staged or there was nothing to do.

    \b
    Examples:
      cfs upgrade --check
      cfs upgrade --apply
      cfs upgrade --from oci:/run/media/stick:latest
    """
    _contradictions(options)
    target = _with_tag(app, root, options["tag"]) if options["tag"] else None
    request = _request(app, options, target=target)
    if options["check"]:
        return _check(app, root, request, output)
    return _stage(app, root, request, output, options)


@click.command(cls=ResultCommand)
@click.argument("target")
@click.option("--transport", metavar="NAME", help="What TARGET is looked for in (default: registry).")
@click.option("--retain", is_flag=True, help="Pin what runs: it stays in the boot menu.")
@click.option("--enforce-container-sigpolicy", is_flag=True, help="Refuse if no policy judges the image.")
@_staging_options
@click.pass_obj
def switch(app: App, /, target: str, root: Path, output: str, **options: Any) -> int:  # noqa: ANN401 - see above
    """Stage another image, TARGET, and follow that one from now on.

    What is trusted never gets less by accident: --allow-weaker says that it is meant.

    \b
    Example:
      cfs switch docker://quay.io/example/os:stable
    """
    from cfs_core.deploy.target_reference import target_reference

    transport = options["transport"]
    if transport is not None and transport != "registry":
        target = f"{transport}:{target}"
    return _stage(app, root, _request(app, options, target=target_reference(target, "TARGET")), output, options)


@click.command(cls=ResultCommand)
@click.option("--apply", is_flag=True, help="Restart the machine into it.")
@soft_reboot_option
@click.option("--yes", "-y", is_flag=True, help="Drop a staged upgrade without asking.")
@dry_run_option
@machine_options
@click.pass_obj
def rollback(app: App, /, root: Path, output: str, **options: Any) -> int:  # noqa: ANN401 - the options above
    """Make the previous deployment start next; once more, and it is taken back.

    \b
    Example:
      cfs rollback --apply
    """
    from cfs_core.lifecycle.changes import rollback as go_back
    from cfs_core.lifecycle.session import session

    if options["apply"]:
        refuse_elsewhere(root, "--apply")
    with session(root, app, "rollback", writable=not options["dry_run"]) as opened:
        drop = options["yes"]
        if opened.machine.running.staged is not None and not drop and sys.stdin.isatty() and not options["dry_run"]:
            click.confirm("This drops the upgrade that is staged. Go on?", abort=True, err=True)
            drop = True
        result = go_back(opened, drop_staged=drop, dry_run=options["dry_run"])
    show_change(result, output)
    if options["apply"] and not options["dry_run"]:
        restart(app, root, result.image_id, options["soft_reboot"])
    return 0


@click.command(cls=ResultCommand)
@click.option("--etc-conflicts", type=click.Choice(["fail", "local", "image"]), help="Who wins in /etc.")
@machine_options
@click.pass_obj
def finalize(app: App, /, root: Path, output: str, etc_conflicts: str | None) -> int:
    """Make what is staged the default: merge /etc, write the boot menu.

    The unit cfs-finalize-staged.service runs this at shutdown, when services have ended. Until it is through, the
    machine starts what it started before; it can be run again.

    \b
    Example:
      cfs finalize
    """
    from cfs_core.lifecycle.etc_merge.rules import OnConflict
    from cfs_core.lifecycle.finalize import finalize as run
    from cfs_core.lifecycle.session import session

    with session(root, app, "finalize", wait_seconds=WAIT) as opened:
        result = run(opened, OnConflict(etc_conflicts) if etc_conflicts else None)
    if output == "json":
        show_json(documents.finalized(result))
    else:
        about = f" {result.image_id:.16}…" if result.image_id else ""
        say(f"{result.result}{about}{f': {result.why}' if result.why else ''}")
    return 0


def _contradictions(options: Mapping[str, Any]) -> None:
    """Refuse options that exclude each other, as bootc does."""
    for one, others in {
        "check": ("apply", "download_only", "from_downloaded", "dry_run"),
        "download_only": ("apply", "from_downloaded"),
        "from_downloaded": ("content_from", "tag", "dry_run"),
    }.items():
        for other in others:
            if options[one] and options[other]:
                msg = f"--{one.replace('_', '-')} and --{other.replace('_', '-')} contradict each other"
                raise UsageError(msg.replace("--content-from", "--from"), hint="leave one of them out")


def _request(app: App, options: Mapping[str, Any], *, target: str | None) -> UpgradeRequest:
    from cfs_core.lifecycle.etc_merge.rules import OnConflict
    from cfs_core.lifecycle.upgrade import UpgradeRequest

    conflicts, elsewhere = options["etc_conflicts"], options.get("content_from")
    return UpgradeRequest(
        target=target,
        content_from=app.locate(elsewhere) if elsewhere else None,
        download_only=bool(options.get("download_only")),
        dry_run=options["dry_run"],
        allow_weaker=options["allow_weaker"],
        retry=bool(options.get("retry")),
        etc_conflicts=OnConflict(conflicts) if conflicts else None,
        fix_ownership=options["fix_ownership"],
        retain=bool(options.get("retain")),
        judged=bool(options.get("enforce_container_sigpolicy")),
    )


def _with_tag(app: App, root: Path, tag: str) -> str:
    """Return the image that is followed, with another tag."""
    from cfs_core.deploy.target_reference import target_reference
    from cfs_core.lifecycle.session import session
    from cfs_core.lifecycle.upgrade import UpgradeRequest, followed_reference

    with session(root, app, "upgrade", writable=False) as opened:
        reference = followed_reference(opened, UpgradeRequest())
    name = reference.partition("@")[0]
    head, colon, last = name.rpartition(":")
    if colon and "/" not in last:
        name = head
    return target_reference(f"{name}:{tag}", "--tag")


def _check(app: App, root: Path, request: UpgradeRequest, output: str) -> int:
    from cfs_core.lifecycle.session import session
    from cfs_core.lifecycle.upgrade import check

    with session(root, app, "upgrade", writable=False) as opened:
        found = check(opened, app, request)
    app.progress.close()
    if output == "json":
        show_json(documents.update_found(found))
    else:
        version = f" ({found.version})" if found.version else ""
        say(f"update: {found.image} {found.manifest_digest}{version}" if found.update else f"no update: {found.why}")
    return 0 if found.update else NOTHING


def _stage(app: App, root: Path, request: UpgradeRequest, output: str, options: Mapping[str, Any]) -> int:
    from cfs_core.lifecycle.garbage import collect
    from cfs_core.lifecycle.session import session
    from cfs_core.lifecycle.soft_reboot import refuse_soft
    from cfs_core.lifecycle.upgrade import unlock
    from cfs_core.lifecycle.upgrade import upgrade as run

    if options["apply"]:
        refuse_elsewhere(root, "--apply")
    with session(root, app, "upgrade", writable=not request.dry_run) as opened:
        result = unlock(opened) if options.get("from_downloaded") else run(opened, app, request)
        if options["soft_reboot"] == "required" and result.result == "staged" and result.image_id is not None:
            refuse_soft(opened.machine, result.image_id)
        if result.result in {"staged", "downloaded"}:
            collect(opened)
    app.progress.close()
    at_shutdown = result.result == "staged" and finalize_at_shutdown(app, root)
    if not options["quiet"]:
        _show(result, output, at_shutdown=at_shutdown)
    if options["apply"] and result.result == "staged":
        if not at_shutdown or options["soft_reboot"]:
            _finalize_now(app, root)
        restart(app, root, result.image_id, options["soft_reboot"])
    return 0


def _finalize_now(app: App, root: Path) -> None:
    """Finalize while services still run: better than never, where the image has no unit that does it in time."""
    from cfs_core.lifecycle.finalize import finalize as run
    from cfs_core.lifecycle.session import session

    with session(root, app, "finalize") as opened:
        run(opened)


def _show(result: UpgradeResult, output: str, *, at_shutdown: bool) -> None:
    if output == "json":
        show_json(documents.upgraded(result, at_shutdown=at_shutdown))
        return
    version = f" ({result.version})" if result.version else ""
    if result.result == "nothing":
        say(f"nothing to do: {result.why}")
        return
    say(f"{result.result} {result.image}{version}")
    say(f"  deployment  {result.image_id}")
    for line in _plan_lines(result.plan):
        say(f"  {line}")
    if result.result == "plan":
        for action in result.plan.get("boot", ()):
            say(f"  {action['action']} {action['where']}: {action['why']}")
    elif result.result == "downloaded":
        say("a restart drops it; `cfs upgrade --from-downloaded` keeps it")
    elif not at_shutdown:
        say("`cfs finalize` makes it the default: this system has no cfs-finalize-staged.service that would")


def _plan_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield what changes but for boot files, one line each."""
    yield from (f"weaker      {word}" for word in plan.get("weaker", ()))
    arguments = plan.get("kernel_arguments", {})
    for sign, one, other in (("-", "before", "after"), ("+", "after", "before")):
        yield from (
            f"argument {sign}  {word}" for word in arguments.get(one, ()) if word not in arguments.get(other, ())
        )
    etc = plan.get("etc", {})
    yield from (f"{note['path']}  {note['message']}" for note in (*etc.get("conflicts", ()), *etc.get("notes", ())))
    yield from (f"/etc/{orphan}: belongs to nobody, and is left out" for orphan in etc.get("orphans", ()))
    for each in etc.get("renumbered", ()):
        yield f"{each['kind']} {each['name']} has number {each['old']} now and {each['new']} then"
    yield from (f"{finding.severity.value}: {finding.message}" for finding in plan.get("findings", ()))
