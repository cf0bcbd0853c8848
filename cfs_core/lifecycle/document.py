"""The status document: what bootc's users script against, and what is ours under a key of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfs_core.lifecycle.soft_reboot import why_not_soft
from cfs_core.model.boot import EntryKind

if TYPE_CHECKING:
    from cfs_core.lifecycle.machine import Machine
    from cfs_core.lifecycle.status import DeploymentStatus

API = "org.containers.bootc/v1"
OURS = "cfs"

_BOOTC_LOADERS = {"systemd-boot": "systemd", "grub": "grub"}
_BOOTC_TRANSPORTS = {"docker": "registry"}


def document(machine: Machine) -> dict[str, Any]:
    """Return the status of *machine* as bootc's host document, version 1 (its ``BootcHost``)."""
    followed = machine.followed
    return {
        "apiVersion": API,
        "kind": "BootcHost",
        "metadata": {"name": "host"},
        "spec": {
            "bootOrder": "rollback" if machine.rollback_queued else "default",
            "image": _reference(followed),
        },
        "status": _status(machine),
        OURS: _ours(machine),
    }


def entry_document(machine: Machine) -> dict[str, Any] | None:
    """Return the entry of what runs alone; None where nothing does."""
    return _entry(machine, machine.booted)


def _status(machine: Machine) -> dict[str, Any]:
    named = [each for each in (machine.staged, machine.booted, machine.rollback) if each is not None]
    others = [each for each in machine.status.deployments if each.entries and each not in named]
    status: dict[str, Any] = {
        "staged": _entry(machine, machine.staged),
        "booted": _entry(machine, machine.booted),
        "rollback": _entry(machine, machine.rollback),
        "rollbackQueued": machine.rollback_queued,
        "type": None,
        "usrOverlay": _overlay(machine),
        "readOnly": False,
    }
    if others:
        status["otherDeployments"] = [_entry(machine, each) for each in others]
    return status


def _overlay(machine: Machine) -> dict[str, str] | None:
    access = machine.running.usr_overlay
    return {"accessMode": access, "persistence": "transient"} if access else None


def _entry(machine: Machine, deployment: DeploymentStatus | None) -> dict[str, Any] | None:
    if deployment is None:
        return None
    origin = deployment.origin
    staged = machine.running.staged
    return {
        "image": {
            "image": _reference(deployment),
            "version": origin.version,
            "timestamp": origin.created,
            "imageDigest": origin.manifest_digest,
            "architecture": origin.architecture,
        },
        "cachedUpdate": None,
        "incompatible": False,
        "pinned": deployment.id in machine.records.pinned,
        "softRebootCapable": machine.running.booted is not None and why_not_soft(machine, deployment) is None,
        "downloadOnly": staged is not None and staged.id == deployment.id and staged.locked,
        "store": None,
        "ostree": None,
        "composefs": {
            "verity": deployment.id,
            "bootType": "Uki" if kind_of(deployment) is EntryKind.UKI else "Bls",
            "bootloader": _loader(machine, deployment),
            "bootDigest": origin.boot_digest,
            "missingVerityAllowed": verity_optional(deployment),
        },
    }


def kind_of(deployment: DeploymentStatus) -> EntryKind | None:
    """Return how the deployment is started: as its origin file says, or as its entry is."""
    if deployment.layout is not None:
        return deployment.layout
    return deployment.boot_entry.kind if deployment.boot_entry is not None else None


def verity_optional(deployment: DeploymentStatus) -> bool:
    """Return whether its command line lets the system start without fs-verity (``composefs=?``)."""
    entry = deployment.boot_entry
    words = entry.arguments if entry is not None else ()
    return any(word.partition("=")[2].startswith("?") for word in words if word.startswith("composefs"))


def _loader(machine: Machine, deployment: DeploymentStatus) -> str:
    name = next((entry.loader for entry in deployment.entries), machine.loader)
    return _BOOTC_LOADERS.get(name or "", "none")


def _reference(deployment: DeploymentStatus | None) -> dict[str, str] | None:
    """Split a reference as bootc does: the transport is a word of its own, and ``docker:`` is called ``registry``."""
    if deployment is None or deployment.image is None:
        return None
    scheme, _, name = deployment.image.partition(":")
    return {"image": name.removeprefix("//"), "transport": _BOOTC_TRANSPORTS.get(scheme, scheme)}


def _ours(machine: Machine) -> dict[str, Any]:
    """Return what bootc's document has no place for."""
    records, versions = machine.records, machine.versions
    return {
        "bootloader": machine.loader,
        "bootloader_version": {"installed": versions.installed, "offered": versions.offered},
        "default": machine.default,
        "deployments": [
            {
                "id": each.id,
                "image": each.image,
                "manifest_digest": each.manifest_digest,
                "layout": each.layout,
                "verified": each.verified,
                "bootloader": each.bootloader,
                "bootloader_distribution": each.bootloader_distribution,
                "entries": each.entries,
                "pinned": each.id in records.pinned,
                "failed": records.failed.get(each.id),
                "live": each.id in machine.live,
            }
            for each in machine.status.deployments
        ],
        "foreign": machine.status.foreign,
        "problems": machine.status.problems,
        "notes": machine.status.notes,
    }
