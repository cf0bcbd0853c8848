"""What plugins say of what a machine is to start next: whether its firmware will take it, above all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfs_core.deploy import preflight
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from cfs_core.lifecycle.session import Session
    from cfs_core.model.boot import BootArtifacts

HOOK = "cfs_check_boot"
EFI_VARIABLES = "sys/firmware/efi/efivars"


def examine_boot(session: Session, artifacts: BootArtifacts) -> tuple[Finding, ...]:
    """Ask every plugin; a check that was lost to a fault is an error."""
    host = session.services.host
    asked = {"artifacts": artifacts, "efivars": session.places.root / EFI_VARIABLES}
    contributed = host.contribute(HOOK, Finding, **asked)
    lost = [
        Finding.error("plugin.fault", str(trouble), "fix the plugin, or switch it off with --disable-plugin")
        for trouble in host.trouble
        if trouble.fatal and trouble.hook == HOOK
    ]
    return (*(finding for owner, each in contributed for finding in preflight.stamped([each], owner)), *lost)
