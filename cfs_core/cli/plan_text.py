"""The plan of an install as people read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from cfs_core.cli.output import say, show_json, table
from cfs_core.documents.install import REPOSITORY_STEP, planned
from cfs_core.errors import DiskError, UsageError
from cfs_core.model.action import CopyObject, Effect, WriteFile
from cfs_core.model.disk import Location, Volume
from cfs_core.model.plan import Severity
from cfs_core.report.actions import amount_of, place_of
from cfs_core.report.progress import counted, human_bytes

if TYPE_CHECKING:
    from cfs_core.deploy.prepare import PreparedImage
    from cfs_core.install.plan import PreparedInstall
    from cfs_core.install.request import InstallRequest
    from cfs_core.model.action import Action
    from cfs_core.model.plan import Finding, Step

COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
FIRST_BOOT_STEP = "first-boot"
_READ_BY_ALL = 0o004
_STATE = re.compile(r"/state/(deploy/[0-9a-f]+/etc|os/default/var)/")
_LONG_HEX = re.compile(r"[0-9a-f]{64,}")


def show_plan(
    image: PreparedImage, prepared: PreparedInstall, request: InstallRequest, *, output: str, full: bool
) -> None:
    """Print the whole plan (*full*), or what a person must see of it before it is carried out."""
    plan = prepared.plan
    if output == "json":
        show_json(planned(image, prepared, request.disk))
        return
    if full:
        _head(image, prepared, request)
        _volumes(prepared, request)
        _files(prepared)
        _first_boot(prepared)
        say("kernel command line")
        for argument in plan.arguments:
            say(f"  {argument.text}    ({argument.origin})")
    for finding in _shown(plan.findings, full=full):
        word = click.style(finding.severity.value, fg=COLORS[finding.severity])
        say(f"{word}: {finding.message} [{finding.code}]", err=not full)
        if finding.hint:
            say(f"  hint: {finding.hint}", err=not full)


def show_file(prepared: PreparedInstall, where: str) -> None:
    """Print a text file that the plan makes; *where* is ``VOLUME:/path``, as the plan names it.

    Raises:
        UsageError: no such volume or file, or it is no text.
    """
    name, _, path = where.partition(":")
    volume = Volume.__members__.get(name.upper())
    if volume is None or not path.startswith("/"):
        msg = f"{where!r} is not VOLUME:/PATH"
        known = ", ".join(sorted(each.name for each in prepared.target.volumes()))
        raise UsageError(msg, hint=f"volumes of this plan: {known}")
    _refuse_secret(prepared, Location(volume, path))
    try:
        text = prepared.target.read(Location(volume, path)).decode()
    except (FileNotFoundError, DiskError):
        msg = f"the plan makes no file {where}"
        raise UsageError(msg, hint="--dry-run lists what it makes") from None
    except UnicodeDecodeError:
        msg = f"{where} is not a text file"
        raise UsageError(msg, hint="install, and read it from the disk") from None
    say(text.removesuffix("\n"))


def _refuse_secret(prepared: PreparedInstall, location: Location) -> None:
    """Refuse to print what not everybody may read on the machine: password hashes, keys."""
    action = prepared.target.contents(location.volume).get(location.path)
    if isinstance(action, CopyObject | WriteFile) and not action.attributes.mode & _READ_BY_ALL:
        msg = f"{location} may hold a secret: it has mode {action.attributes.mode:04o}"
        raise UsageError(msg, hint="install, and read it from the disk")


def _head(image: PreparedImage, prepared: PreparedInstall, request: InstallRequest) -> None:
    decisions = prepared.decisions
    layers = image.resolved.manifest.layers
    say(f"image     {image.resolved.reference} ({image.resolved.manifest.digest})")
    say(f"identity  {prepared.plan.image_id}" + (" (sealed)" if image.seal is not None else ""))
    say(f"download  {counted(len(layers), 'layer')}, {human_bytes(sum(layer.size for layer in layers))}")
    say(f"kernel    {decisions.artifacts.kernel_version or 'unknown'} ({decisions.artifacts.path})")
    say(f"storage   {image.storage_choice.value} ({image.storage_choice.origin})")
    for what in image.verified or ("nothing: no policy is required",):
        say(f"verified  {what}")
    say(f"loader    {decisions.bootloader_choice.value} ({decisions.bootloader_choice.origin})")
    say(f"disk      {request.disk}\n")


def _volumes(prepared: PreparedInstall, request: InstallRequest) -> None:
    """List partitions: used and left bytes where there are files; what PARTUUID= and UUID= (as in root=) name."""
    rows = []
    for part in prepared.plan.partitions:
        room = tuple(map(human_bytes, prepared.disk.room_on(part, prepared.target) or ())) or ("", "")
        kind = part.filesystem or "raw"
        rows.append(
            (str(part.number), part.volume.value, human_bytes(part.size), *room, kind, part.uuid, part.fs_uuid or "")
        )
    table(rows, ("#", "VOLUME", "SIZE", "USED", "LEFT", "FILESYSTEM", "PARTUUID", "UUID"))
    if request.seed is None:
        say("identifiers will be others when the disk is made; --seed TEXT makes the same ones in every run")
    say()


def _first_boot(prepared: PreparedInstall) -> None:
    """List the settings of first boot; secrets are not among what there is to list."""
    if prepared.first_boot:
        say("settings of first boot")
        for line in prepared.first_boot:
            say(f"  {line.setting:19} {line.value}    ({line.origin})")
        say()


def _shown(findings: tuple[Finding, ...], *, full: bool) -> list[Finding]:
    """Leave out the first error where the run is about to end with it."""
    last = None if full else next((item for item in findings if item.severity is Severity.ERROR), None)
    return [item for item in findings if item is not last]


def _files(prepared: PreparedInstall) -> None:
    """List files with their effect, the worst first; what is copied in bulk is summed up by its place."""
    for step in prepared.plan.steps:
        say(f"{step.title} ({step.provider})")
        single, bulk = _summed(step)
        for place, (count, size) in bulk.items():
            amount = human_bytes(size) if size else "directory"
            say(f"  {'add':8} {amount:>10}  {place}  {counted(count, 'entry', 'entries')}")
        for action in sorted(single, key=lambda item: (-item.effect, place_of(item).split("/"))):
            say(f"  {action.effect.name.lower():8} {amount_of(action):>10}  {_short(place_of(action))}")
        say()


def _summed(step: Step) -> tuple[list[Action], dict[str, tuple[int, int]]]:
    """Split actions into those shown one by one, and sums by place of what is copied in bulk."""
    single: list[Action] = []
    bulk: dict[str, tuple[int, int]] = {}
    for action in step.actions:
        place = _bulk_place(action, whole=step.id == REPOSITORY_STEP) if step.id != FIRST_BOOT_STEP else None
        if place is None:
            single.append(action)
        else:
            count, size = bulk.get(place, (0, 0))
            bulk[place] = (count + 1, size + (action.source.size if isinstance(action, CopyObject) else 0))
    return single, bulk


def _bulk_place(action: Action, *, whole: bool) -> str | None:
    location = getattr(action, "location", None)
    if location is None or action.effect is not Effect.ADD:
        return None
    if whole:
        return f"{location.volume.name}:/{location.path.split('/')[1]}"
    if _STATE.match(location.path):
        return _short(f"{location.volume.name}:{_STATE.match(location.path)[0]}")  # type: ignore[index]  # just matched
    return None


def _short(text: str) -> str:
    """Shorten digests: a plan is read by people."""
    return _LONG_HEX.sub(lambda found: found[0][:12] + "…", text)
