"""What could make the result unbootable, found before anything is written. Each finding has its own code and a hint."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.errors import BootError
from cfs_core.model.plan import Finding, Severity
from cfs_core.pluginhost import families
from cfs_core.report.progress import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cfs_core.deploy.services import Services
    from cfs_core.image.reader import ImageReader
    from cfs_core.interfaces.initramfs import InitramfsVerdict
    from cfs_core.model.boot import BootArtifacts
    from cfs_core.pluginhost.registry import PluginId


EXAMINE = "examine"
LOADER_FAULTS = frozenset({"boot.loader-missing", "boot.loader-damaged", "boot.tool-missing"})
"""What keeps a loader from being installed keeps no machine from being upgraded that has it."""


class PreflightError(BootError):
    """The image cannot be installed so that it boots; nothing was written."""

    code = "boot.preflight"


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Stop if a finding says so.

    Raises:
        PreflightError: with the first error's message and hint; all of them are in ``facts['findings']``.
    """
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return
    first, *rest = errors
    message = first.message + (f" (and {len(rest)} more: {', '.join(item.code for item in rest)})" if rest else "")
    raise PreflightError(message, hint=first.hint, code=first.code, facts={"findings": errors})


def stamped(findings: Iterable[Finding], owner: PluginId) -> list[Finding]:
    """Return *findings* with the distribution that found them, whatever they claim."""
    return [replace(finding, origin=owner.distribution) for finding in findings]


def without_loader(findings: Iterable[Finding]) -> list[Finding]:
    """Return *findings* as they are where the loader is on the target already: no fault of its files is an error."""
    return [
        replace(finding, severity=Severity.WARNING)
        if finding.code in LOADER_FAULTS and finding.severity is Severity.ERROR
        else finding
        for finding in findings
    ]


def examine_initramfs(
    services: Services, artifacts: BootArtifacts, image: ImageReader, storage: str
) -> tuple[InitramfsVerdict | None, list[Finding]]:
    """Ask every initramfs plugin; the first that recognises the initramfs answers."""

    def examine(name: str) -> InitramfsVerdict:
        answer: InitramfsVerdict = services.make(families.INITRAMFS, name).examine(artifacts, image, storage)
        return answer

    refusals: list[tuple[PluginId, InitramfsVerdict]] = []
    registry = services.host.collect(families.INITRAMFS)
    for provider in registry:
        verdict = services.host.attempt(registry.owner(provider.name), EXAMINE, examine, provider.name)
        if verdict is None:
            continue
        if verdict.supported:
            return verdict, []
        if verdict.supported is False:
            refusals.append((registry.owner(provider.name), verdict))
    if refusals:
        owner, first = refusals[0]
        return None, stamped([Finding.error("boot.initramfs", first.reason, first.hint)], owner)
    faults = [str(trouble) for trouble in services.host.trouble if trouble.hook == EXAMINE and trouble.fatal]
    if faults:
        hint = "fix the plugin, or switch it off with --disable-plugin"
        return None, [Finding.error("plugin.fault", f"the initramfs was not checked: {'; '.join(faults)}", hint)]
    if not registry.providers:
        message = "no plugin can tell whether the image's initramfs can mount the root; it was not checked"
        return None, [Finding.warning("boot.initramfs-unchecked", message, "install cfs-initramfs")]
    message = f"the initramfs of kernel {artifacts.kernel_version} has nothing that can mount {storage}"
    hint = (
        "add the early-boot hook to the image and rebuild its initramfs: `cfs initramfs install ROOTDIR` copies the "
        "hooks for dracut, mkinitcpio and initramfs-tools; bootc's and composefs-rs's own code works too"
    )
    return None, [Finding.error("boot.initramfs", message, hint)]


def examine_space(needs: Iterable[tuple[Path, int, str]]) -> Iterator[Finding]:
    """Compare what will really be written with what the host has left.

    *needs* are (directory, bytes, what for); what is on one filesystem adds up.
    """
    devices: dict[int, list[tuple[Path, int, str]]] = {}
    for where, needed, what in needs:
        try:
            devices.setdefault(where.stat().st_dev, []).append((where, needed, what))
        except OSError as cause:
            yield Finding.error("disk.host-space", f"{where} cannot be looked at: {cause.strerror}")
    for together in devices.values():
        status = os.statvfs(together[0][0])
        available = status.f_bavail * status.f_frsize
        if sum(needed for _, needed, _ in together) > available:
            where = together[0][0]
            listed = " and ".join(f"{what} about {human_bytes(needed)}" for _, needed, what in together)
            message = f"{listed} will be needed, and {where} has {human_bytes(available)} free"
            hint = "free some space, put the disk image elsewhere, or set TMPDIR to another filesystem"
            yield Finding.error("disk.host-space", message, hint)
