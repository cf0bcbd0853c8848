"""Whether userspace alone can be started again into another deployment: same kernel, same command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cfs_core.bls import argument_deployment, list_names, parse_entry, read_file, split_arguments
from cfs_core.errors import CommandError, RefusedError
from cfs_core.lifecycle.running import BOOTC_STAGED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.interfaces.context import CommandRunner
    from cfs_core.lifecycle.access import Places
    from cfs_core.lifecycle.machine import Machine
    from cfs_core.lifecycle.status import DeploymentStatus

NEXT_ROOT = Path("/run/nextroot")
"""Where systemd 254 looks for another root (systemd-soft-reboot.service(8))."""

SCRIPT = "usr/lib/cfs/cfs-setup-root"


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
    waiting = _staged_arguments(machine, deployment)
    words = waiting if waiting is not None else entry.arguments if entry is not None else None
    if words is not None and running is not None and _words(words) != _words(running.arguments):
        return "its kernel arguments differ"
    return None


def _staged_arguments(machine: Machine, deployment: DeploymentStatus) -> tuple[str, ...] | None:
    """Return the arguments that what is staged will have: cfs notes them in /run, bootc in entries beside the menu."""
    staged = machine.running.staged
    if staged is None or staged.id != deployment.id or staged.arguments is not None:
        return staged.arguments if staged is not None and staged.id == deployment.id else None
    for place in BOOTC_STAGED:
        for name in list_names(machine.target, place):
            fields = parse_entry(read_file(machine.target, place / name) or b"")
            words = split_arguments(" ".join(fields.every("options")))
            if argument_deployment(words) == deployment.id:
                return words
    return None


def _words(arguments: tuple[str, ...]) -> list[str]:
    return [word for word in arguments if word.partition("=")[0] not in {"composefs", "composefs.digest"}]


def refuse_soft(machine: Machine, identity: str) -> None:
    """Stop if deployment *identity* cannot be reached without starting the kernel again.

    Raises:
        RefusedError: with the reason (code ``state.soft-reboot``).
    """
    deployment = machine.status.get(identity)
    why = "it is not there" if deployment is None else why_not_soft(machine, deployment)
    if why is not None:
        msg = f"{identity:.16}… cannot be reached by a soft reboot: {why}"
        raise RefusedError(msg, hint="leave out --soft-reboot, or restart the machine", code="state.soft-reboot")


def mount_next_root(places: Places, arguments: Sequence[str], commands: CommandRunner) -> None:
    """Mount the deployment that *arguments* name at /run/nextroot, as early boot would.

    The image's own early-boot script does it, in the mounts of the whole system: this process has its own.

    Raises:
        RefusedError: the image has no such script, or the system no nsenter.
        CommandError: it could not be mounted; nothing is left mounted then.
    """
    script, nsenter = places.root / SCRIPT, commands.find("nsenter")
    if not script.exists() or nsenter is None:
        missing = script if nsenter is not None else "nsenter"
        msg = f"a soft reboot needs {missing}, which is not there"
        raise RefusedError(msg, hint="leave out --soft-reboot, or put it into the image", code="state.soft-reboot")
    line = places.run / "cfs/next-cmdline"
    line.parent.mkdir(parents=True, exist_ok=True)
    line.write_text(" ".join(arguments) + "\n")
    outside = [str(nsenter), "--mount=/proc/1/ns/mnt", "--"]
    commands.run([*outside, "mkdir", "-p", str(NEXT_ROOT)])
    commands.run([*outside, "mount", "--bind", "/sysroot", str(NEXT_ROOT)])
    try:
        commands.run([*outside, "mount", "-o", "remount,bind,rw", str(NEXT_ROOT)])
        variables = {"CFS_SYSROOT": str(NEXT_ROOT), "CFS_CMDLINE": str(line), "CFS_RUN": "/run/cfs/next"}
        commands.run([*outside, "/bin/sh", str(script)], env=variables)
    except CommandError:
        commands.run([*outside, "umount", "-R", "-l", str(NEXT_ROOT)], ok=frozenset(range(256)))
        raise
