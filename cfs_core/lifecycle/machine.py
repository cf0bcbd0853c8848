"""A machine as it was found: what runs, what is deployed, what its loader will start. Read, never written."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cfs_core.errors import StateError
from cfs_core.lifecycle.loader_versions import LoaderVersions, loader_versions
from cfs_core.lifecycle.records import Records
from cfs_core.lifecycle.running import RunningSystem
from cfs_core.lifecycle.status import read_status
from cfs_core.model.boot import BootMenu
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cfs_core.interfaces.bootloader import Bootloader
    from cfs_core.interfaces.target import TargetView
    from cfs_core.lifecycle.records import Failure
    from cfs_core.lifecycle.status import DeploymentStatus, Status
    from cfs_core.model.boot import BootEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Everything of it in one place. ``loader`` is the provider whose menu starts it, None where none does."""

    target: TargetView
    status: Status
    running: RunningSystem = field(default_factory=RunningSystem)
    records: Records = field(default_factory=Records)
    loader: str | None = None
    read_versions: Callable[[], LoaderVersions] = field(default=LoaderVersions, compare=False)

    @property
    def versions(self) -> LoaderVersions:
        """The versions of its loader: reads programs of some megabytes each time, which few have to know."""
        return self.read_versions()

    @property
    def menu(self) -> BootMenu:
        """The menu of the loader that is in charge."""
        return self.status.menus[self.loader] if self.loader else BootMenu(entries=())

    @property
    def entries(self) -> tuple[BootEntry, ...]:
        """The entries of deployments, best first."""
        return tuple(entry for entry in self.menu.entries if not entry.foreign)

    @property
    def default(self) -> str | None:
        """Id of the deployment, or name of the foreign entry, that starts when nobody chooses."""
        if self.menu.default is not None:
            return self.menu.default
        return self.menu.entries[0].deployment_id if self.menu.entries else None

    @property
    def booted(self) -> DeploymentStatus | None:
        """The deployment that runs."""
        return self.status.get(self.running.booted)

    @property
    def staged(self) -> DeploymentStatus | None:
        """The deployment that waits for the shutdown."""
        return self.status.get(self.running.staged.id) if self.running.staged else None

    @property
    def rollback(self) -> DeploymentStatus | None:
        """What `cfs rollback` goes to: the best deployment of the menu that does not run."""
        running = self.running.booted
        if running is None:
            return None
        return next(
            (self.status.get(each.deployment_id) for each in self.entries if each.deployment_id != running), None
        )

    @property
    def rollback_queued(self) -> bool:
        """Whether the next boot is not what runs, though nothing is staged."""
        rollback = self.rollback
        return rollback is not None and self.default == rollback.id

    @property
    def followed(self) -> DeploymentStatus | None:
        """The deployment whose origin says where updates come from: staged, booted, or what starts by itself."""
        return self.staged or self.booted or self.status.get(self.default) or next(iter(self.status.deployments), None)

    @property
    def live(self) -> frozenset[str]:
        """The deployments that nothing may take away: in a menu, booted, staged or pinned."""
        found = {each.id for each in self.status.deployments if each.entries}
        found |= {self.running.booted} if self.running.booted is not None else set()
        found |= {self.running.staged.id} if self.running.staged is not None else set()
        return frozenset(found) | self.records.pinned

    @property
    def failures(self) -> dict[str, Failure]:
        """Deployments that are here and did not come up."""
        return {name: each for name, each in self.records.failed.items() if self.status.get(name) is not None}

    def words(self, deployment: DeploymentStatus) -> str:
        """Say what *deployment* is to the machine, in words."""
        staged = self.running.staged
        said = {
            "booted": deployment.id == self.running.booted,
            "staged for the next boot": staged is not None and staged.id == deployment.id and not staged.locked,
            "downloaded only": staged is not None and staged.id == deployment.id and staged.locked,
            "rollback": deployment == self.rollback,
            "pinned": deployment.id in self.records.pinned,
            "failed": deployment.id in self.records.failed,
            "not in the menu": not deployment.entries and not (staged and staged.id == deployment.id),
        }
        return ", ".join(word for word, true in said.items() if true)

    def require_booted(self) -> DeploymentStatus:
        """Return what runs.

        Raises:
            StateError: nothing of what is deployed here does.
        """
        if self.booted is None:
            what = f"{self.running.booted:.16} runs, and is" if self.running.booted else "what runs is"
            msg = f"{what} not one of this machine's deployments"
            raise StateError(
                msg, hint="run it on a machine that booted from composefs; `cfs status` shows what is there"
            )
        return self.booted

    def require_loader(self) -> str:
        """Return the loader that is in charge.

        Raises:
            StateError: none has an entry of a deployment.
        """
        if self.loader is None:
            msg = "no bootloader that is installed as a plugin has an entry of a deployment on this machine"
            raise StateError(msg, hint="mount the EFI system partition, or install the plugin: cfs plugins list")
        return self.loader


def read_machine(
    target: TargetView, bootloaders: Mapping[str, Bootloader], running: RunningSystem | None = None
) -> Machine:
    """Read *target*, and bring it together with what is *running* from it.

    Raises:
        DiskError: a filesystem is damaged, or cannot be read.
    """
    running = running or RunningSystem()
    status = read_status(target, bootloaders)
    problems = [*status.problems, *_odd(status, running)]
    return Machine(
        target=target,
        status=replace(status, problems=tuple(problems)),
        running=running,
        records=Records.read(target),
        loader=_loader(status, running),
    )


def with_versions(machine: Machine, bootloaders: Mapping[str, Bootloader], root: Path | None = None) -> Machine:
    """Let *machine* tell the versions of its loader; *root*: where the image that runs is mounted, if one does."""
    if machine.loader is None:
        return machine
    followed = machine.followed
    architecture = followed.origin.architecture if followed is not None else None
    image = root if machine.booted is not None else None
    loader = bootloaders[machine.loader]
    return replace(
        machine, read_versions=functools.partial(loader_versions, machine.target, loader, architecture, image)
    )


def _loader(status: Status, running: RunningSystem) -> str | None:
    """Return the loader with entries of deployments; of several the one that is recorded, or that has what runs."""
    having = [name for name, menu in status.menus.items() if any(not entry.foreign for entry in menu.entries)]
    booted = status.get(running.booted)
    recorded = [each.origin.bootloader for each in (booted, *status.deployments) if each is not None]
    return next((name for name in (*recorded, *having) if name in having), None)


def _odd(status: Status, running: RunningSystem) -> list[Finding]:
    found = []
    if running.booted is not None and status.get(running.booted) is None:
        message = "runs, and is neither deployed nor in a boot menu"
        found.append(Finding.error("state.missing", message, where=f"{running.booted:.16}"))
    staged = running.staged
    if staged is not None and status.get(staged.id) is None:
        message = "is staged, and not deployed"
        found.append(Finding.error("state.staged", message, where=f"{staged.id:.16}", repairable=True))
    return found
