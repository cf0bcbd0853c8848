"""Whether userspace alone can be started again into another deployment: same kernel, same command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.lifecycle.machine import Machine
    from cfs_core.lifecycle.status import DeploymentStatus


def why_not_soft(machine: Machine, deployment: DeploymentStatus) -> str | None:
    """Return the reason why *deployment* cannot be reached by a soft reboot; None if it can."""
    booted = machine.booted
    if booted is None:
        return "what runs is not known"
    if deployment.id == booted.id:
        return "it runs already"
    if deployment.origin.boot_digest is None or deployment.origin.boot_digest != booted.origin.boot_digest:
        return "its kernel or initramfs differs"
    entry, running = deployment.boot_entry, booted.boot_entry
    if entry is not None and running is not None and _words(entry.arguments) != _words(running.arguments):
        return "its kernel arguments differ"
    return None


def _words(arguments: tuple[str, ...]) -> list[str]:
    return [word for word in arguments if word.partition("=")[0] not in {"composefs", "composefs.digest"}]
