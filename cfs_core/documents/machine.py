"""What the verbs of an installed machine say as JSON; ``cfs status`` has bootc's document (`lifecycle.document`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.documents.values import found

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cfs_core.lifecycle.changes import ChangeResult
    from cfs_core.lifecycle.etc_merge.difference import Difference
    from cfs_core.lifecycle.finalize import FinalizeResult
    from cfs_core.lifecycle.fsck import Repaired
    from cfs_core.lifecycle.garbage import GarbageResult
    from cfs_core.lifecycle.ownership import OwnershipResult
    from cfs_core.lifecycle.trial import TrialResult
    from cfs_core.lifecycle.unattended import RestartResult
    from cfs_core.lifecycle.upgrade import Checked, UpgradeResult
    from cfs_core.model.boot import KernelArgument
    from cfs_core.model.plan import Finding


def upgraded(result: UpgradeResult, *, at_shutdown: bool) -> dict[str, object]:
    """Return what ``upgrade`` and ``switch`` did; *at_shutdown* says that a unit will finalize it."""
    plan = dict(result.plan)
    if "findings" in plan:
        plan["findings"] = found(plan["findings"])
    return {
        "result": result.result,
        "image": result.image,
        "manifest_digest": result.manifest_digest,
        "why": result.why,
        "image_id": result.image_id,
        "version": result.version,
        "plan": plan,
        "finalized_at_shutdown": at_shutdown,
    }


def update_found(result: Checked) -> dict[str, object]:
    """Return what ``upgrade --check`` found."""
    return {
        "image": result.image,
        "manifest_digest": result.manifest_digest,
        "version": result.version,
        "update": result.update,
        "why": result.why,
    }


def changed(result: ChangeResult) -> dict[str, object]:
    """Return what ``rollback``, ``kargs``, ``edit`` and ``deployments`` changed."""
    return {
        "result": result.result,
        "image_id": result.image_id,
        "why": result.why,
        "actions": result.actions,
        "before": result.before,
        "after": result.after,
    }


def finalized(result: FinalizeResult) -> dict[str, object]:
    """Return what ``finalize`` did."""
    loader = result.loader
    return {
        "result": result.result,
        "why": result.why,
        "image_id": result.image_id,
        "conflicts": result.conflicts,
        "dropped": result.dropped,
        "loader": {"result": loader.result, "files": loader.files, "why": loader.why} if loader is not None else None,
    }


def tried(result: TrialResult | RestartResult) -> dict[str, object]:
    """Return what ``boot good``, ``check``, ``failed`` and ``restart`` did."""
    return {"result": result.result, "image_id": result.image_id, "why": result.why}


def owned(result: OwnershipResult) -> dict[str, object]:
    """Return what ``boot ownership`` did."""
    return {"result": result.result, "image_id": result.image_id, "files": result.files}


def collected(result: GarbageResult) -> dict[str, object]:
    """Return what ``gc`` freed. Sizes in bytes."""
    return {
        "kept": [{"id": kept.id, "why": kept.why} for kept in result.kept],
        "states": result.states,
        "tags": result.tags,
        "boot_files": result.boot_files,
        "objects_removed": result.objects_removed,
        "bytes_freed": result.bytes_freed,
        "dry_run": result.dry_run,
    }


def examined(problems: Sequence[Finding], repaired: Iterable[Repaired]) -> dict[str, object]:
    """Return what ``fsck`` found and mended."""
    return {
        "clean": not problems,
        "problems": found(problems),
        "repaired": [{"problem": found([each.problem])[0], "done": each.done, "what": each.what} for each in repaired],
    }


def etc_differences(differences: Iterable[Difference]) -> list[dict[str, object]]:
    """Return what ``config-diff`` found."""
    return [{"path": each.path, "change": each.change, "what": each.what} for each in differences]


def arguments(following: Sequence[KernelArgument], running: Sequence[str]) -> dict[str, object]:
    """Return what ``kargs list`` shows: the words of the next start, whose they are, and those of this one."""
    origins = [{"text": word.text, "origin": word.origin} for word in following]
    return {"next": [word.text for word in following], "origins": origins, "running": running}
