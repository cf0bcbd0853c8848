"""The loader on the boot volumes follows the image: equal files stay, others are exchanged whole, one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.deploy.bounds import Bounds
from cfs_core.errors import BootError, CfsError, DiskError
from cfs_core.model.action import CopyObject, RunCommand, WriteBlocks, WriteFile
from cfs_core.model.boot import Firmware
from cfs_core.model.content import read_all
from cfs_core.model.disk import Volume
from cfs_core.model.event import Event
from cfs_core.model.plan import Severity
from cfs_core.pluginhost import families
from cfs_core.target.run_command import refuse_host_tools

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.lifecycle.session import Session
    from cfs_core.model.action import Action
    from cfs_core.model.disk import Location
    from cfs_core.model.plan import Finding

REMOVABLE = "/EFI/BOOT/"
"""What firmware starts when it knows nothing else, and so what is exchanged last."""

_MAKES = RunCommand | WriteBlocks
"""What is no file: done when a file that it depends on is another, as `Bootloader.plan_install` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderUpdate:
    """``none``: everything is as the image has it, or nobody wants it; ``done``, or ``failed`` and why."""

    result: str
    files: tuple[str, ...] = ()
    why: str = ""


def update_loader(session: Session, image: TreeReader) -> LoaderUpdate:
    """Bring the loader of *image* to the boot volumes, if the setting ``loader.update`` does not say never.

    A failure is told and no error: the loader that is there starts what the menu says, old or new.
    """
    if session.services.settings.value("loader.update") == "never":
        return LoaderUpdate(result="none", why="loader.update is never")
    done: list[str] = []
    try:
        for firmware in sorted(_firmware(session)):
            for action in _planned(session, image, firmware):
                for made in session.target.resolved(action):
                    session.apply([made])
                    _read_back(session, made)
                    done.append(str(_location(made) or ""))
    except (CfsError, OSError) as error:
        why = error.message if isinstance(error, CfsError) else str(error)
        session.services.emit(Event(name="loader.update-failed", facts={"problem": why}, warning=True))
        return LoaderUpdate(result="failed", files=tuple(done), why=why)
    if done:
        session.target.settle()
        session.services.emit(Event(name="loader.updated", facts={"files": len(done)}))
    return LoaderUpdate(result="done" if done else "none", files=tuple(done))


def _firmware(session: Session) -> frozenset[Firmware]:
    """Return what this disk starts from: a disk for both is started by one of them now, and by either elsewhere."""
    disk = session.target.partition(Volume.BIOS_BOOT)
    return session.facts().firmware | ({Firmware.BIOS} if disk is not None else frozenset())


def _planned(session: Session, image: TreeReader, firmware: Firmware) -> list[Action]:
    """Return what differs, and with it all that is made of files that differ.

    Raises:
        BootError: that cannot be made here.
        RefusedError: it would be made by a tool, and host tools are forbidden.
    """
    loader = session.machine.require_loader()
    facts = replace(session.facts(), image=image, generic=True, firmware=frozenset({firmware}))
    errors = [each for each in session.bootloader.check(facts) if each.severity is Severity.ERROR]
    if any(each.code.startswith(("boot.loader", "boot.firmware")) for each in errors):
        return []
    actions = tuple(session.bootloader.plan_install(session.target, facts))
    owner = session.services.host.collect(families.BOOTLOADERS).owner(loader)
    roots = frozenset(session.places.roots) | ({Volume.BIOS_BOOT} if firmware is Firmware.BIOS else frozenset())
    Bounds.of_bootloader(loader, owner, (), replace(facts, volumes=roots)).check(actions)
    wanted = [action for action in actions if isinstance(action, _MAKES) or _differs(session, action)]
    if all(isinstance(action, _MAKES) for action in wanted):
        return []
    if not any(isinstance(action, _MAKES) for action in wanted):
        return sorted(wanted, key=lambda action: _where(action).startswith(REMOVABLE))
    _refuse_what_cannot_be_made(session, wanted, [each for each in errors if each.code == "boot.tool-missing"])
    return wanted


def _refuse_what_cannot_be_made(session: Session, wanted: Sequence[Action], missing: Sequence[Finding]) -> None:
    commands = [action for action in wanted if isinstance(action, RunCommand)]
    if commands and missing:
        raise BootError(missing[0].message, hint=missing[0].hint)
    if commands and not session.services.settings.value("install.host-tools"):
        refuse_host_tools(commands[0])


def _differs(session: Session, action: Action) -> bool:
    location, expected = _location(action), _bytes(action)
    if expected is None or location is None:
        return False
    raw = isinstance(action, WriteBlocks)
    if not raw and location.volume not in session.target.volumes():
        return False
    try:
        found = session.target.read(location)
    except FileNotFoundError:
        return True
    if isinstance(action, WriteBlocks):
        found = found[action.offset : action.offset + len(expected)]
    return bool(found != expected)


def _read_back(session: Session, action: Action) -> None:
    if _differs(session, action):
        msg = f"{_location(action)} reads back other than it was written"
        raise DiskError(msg, hint="check the disk; the loader that was there is gone, and this one is not whole")


def _bytes(action: Action) -> bytes | None:
    if isinstance(action, WriteFile | WriteBlocks):
        return action.data
    return read_all(action.source) if isinstance(action, CopyObject) else None


def _location(action: Action) -> Location | None:
    return getattr(action, "location", None)


def _where(action: Action) -> str:
    location = _location(action)
    return location.path if location is not None else ""
