"""The plan of an install as people read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from cfs_core.cli.output import say, show_json, table
from cfs_core.model.action import CopyObject, Effect, WriteBlocks, WriteFile
from cfs_core.model.plan import Severity
from cfs_core.report.progress import counted, human_bytes

if TYPE_CHECKING:
    from cfs_core.install.plan import PreparedInstall
    from cfs_core.install.prepare import PreparedImage
    from cfs_core.install.request import InstallRequest
    from cfs_core.model.action import Action
    from cfs_core.model.plan import Finding

COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
REPOSITORY_STEP = "repository"
_STATE = re.compile(r"/state/(deploy/[0-9a-f]+/etc|os/default/var)/")
_LONG_HEX = re.compile(r"[0-9a-f]{64,}")


def show_plan(
    image: PreparedImage, prepared: PreparedInstall, request: InstallRequest, *, output: str, full: bool
) -> None:
    """Print the whole plan (*full*), or what a person must see of it before it is carried out."""
    plan = prepared.plan
    if output == "json":
        show_json(_record(image, prepared, request))
        return
    if full:
        say(f"image     {image.resolved.reference} ({image.resolved.manifest.digest})")
        say(f"identity  {plan.image_id}" + (" (sealed)" if image.seal is not None else ""))
        say(f"storage   {image.storage_name} ({image.storage_origin})")
        for what in image.verified or ("nothing: no policy is required",):
            say(f"verified  {what}")
        say(f"loader    {prepared.bootloader_choice.value} ({prepared.bootloader_choice.origin})")
        say(f"disk      {request.disk}\n")
        table(
            [
                (str(p.number), p.volume.value, human_bytes(p.size), p.filesystem or "raw", p.uuid)
                for p in plan.partitions
            ],
            ("#", "VOLUME", "SIZE", "FILESYSTEM", "UUID"),
        )
        say()
        _files(prepared)
        say("kernel command line")
        for argument in plan.arguments:
            say(f"  {argument.text}    ({argument.origin})")
    for finding in _shown(plan.findings, full=full):
        word = click.style(finding.severity.value, fg=COLORS[finding.severity])
        say(f"{word}: {finding.message} [{finding.code}]", err=not full)
        if finding.hint:
            say(f"  hint: {finding.hint}", err=not full)


def _shown(findings: tuple[Finding, ...], *, full: bool) -> list[Finding]:
    """Leave out the first error where the run is about to end with it."""
    last = None if full else next((item for item in findings if item.severity is Severity.ERROR), None)
    return [item for item in findings if item is not last]


def _files(prepared: PreparedInstall) -> None:
    """List files with their effect, the worst first; what is copied in bulk is summed up by its place."""
    for step in prepared.plan.steps:
        say(f"{step.title} ({step.provider})")
        single, bulk = _summed(step.actions, whole=step.id == REPOSITORY_STEP)
        for place, (count, size) in bulk.items():
            say(f"  {'add':8} {place}  {counted(count, 'entry', 'entries')}, {human_bytes(size)}")
        for action in sorted(single, key=lambda item: -item.effect):
            say(f"  {action.effect.name.lower():8} {_short(describe(action))}")
        say()


def _summed(actions: tuple[Action, ...], *, whole: bool) -> tuple[list[Action], dict[str, tuple[int, int]]]:
    """Split actions into those shown one by one, and sums by place of what is copied in bulk."""
    single: list[Action] = []
    bulk: dict[str, tuple[int, int]] = {}
    for action in actions:
        place = _bulk_place(action, whole=whole)
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


def describe(action: Action) -> str:
    """Return one line about an action: where, and how much."""
    where = getattr(action, "location", None) or getattr(action, "a", None) or ""
    if isinstance(action, CopyObject):
        return f"{where}  {human_bytes(action.source.size)}"
    if isinstance(action, WriteFile):
        return f"{where}  {human_bytes(len(action.data))}"
    if isinstance(action, WriteBlocks):
        return f"{where}  {human_bytes(len(action.data))} at byte {action.offset}"
    return f"{where}  {type(action).__name__}"


def _record(image: PreparedImage, prepared: PreparedInstall, request: InstallRequest) -> dict[str, object]:
    plan = prepared.plan
    return {
        "result": "planned",
        "disk": request.disk,
        "image": {
            "reference": str(image.resolved.reference),
            "manifest_digest": image.resolved.manifest.digest,
            "image_id": plan.image_id,
            "sealed": image.seal is not None,
            "verified": image.verified,
        },
        "storage": {"name": image.storage_name, "origin": image.storage_origin},
        "bootloader": {"name": prepared.bootloader_choice.value, "origin": prepared.bootloader_choice.origin},
        "partitions": plan.partitions,
        "kernel_arguments": plan.arguments,
        "steps": [
            {
                "id": step.id,
                "provider": step.provider,
                "actions": len(step.actions)
                if step.id == REPOSITORY_STEP
                else [{"effect": item.effect.name.lower(), "what": describe(item)} for item in step.actions],
            }
            for step in plan.steps
        ],
        "findings": plan.findings,
    }
