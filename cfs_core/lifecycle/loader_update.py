"""The loader on the boot volumes follows the image: equal files stay, others are exchanged whole, one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfs_core.deploy.bounds import Bounds
from cfs_core.errors import CfsError, DiskError
from cfs_core.model.action import CopyObject, MakeDirectory, WriteFile
from cfs_core.model.content import read_all
from cfs_core.model.event import Event
from cfs_core.pluginhost import families

if TYPE_CHECKING:
    from cfs_core.interfaces.storage import TreeReader
    from cfs_core.lifecycle.session import Session
    from cfs_core.model.action import Action

REMOVABLE = "/EFI/BOOT/"
"""What firmware starts when it knows nothing else, and so what is exchanged last."""


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
        for action in _planned(session, image):
            session.apply([action])
            _read_back(session, action)
            done.append(str(getattr(action, "location", "")))
    except (CfsError, OSError) as error:
        why = error.message if isinstance(error, CfsError) else str(error)
        session.services.emit(Event(name="loader.update-failed", facts={"problem": why}, warning=True))
        return LoaderUpdate(result="failed", files=tuple(done), why=why)
    if done:
        session.target.settle()
        session.services.emit(Event(name="loader.updated", facts={"files": len(done)}))
    return LoaderUpdate(result="done" if done else "none", files=tuple(done))


def _planned(session: Session, image: TreeReader) -> list[Action]:
    """Return what differs. A loader that has to be made by a tool is left to who installs: nothing makes it twice."""
    loader = session.machine.require_loader()
    facts = replace(session.facts(), image=image, generic=True)
    if any(finding.code.startswith("boot.loader") for finding in session.bootloader.check(facts)):
        return []
    actions = tuple(session.bootloader.plan_install(session.target, facts))
    if not all(isinstance(action, CopyObject | WriteFile | MakeDirectory) for action in actions):
        return []
    owner = session.services.host.collect(families.BOOTLOADERS).owner(loader)
    roots = frozenset(session.places.roots)
    Bounds.of_bootloader(loader, owner, (), replace(facts, volumes=roots)).check(actions)
    wanted = [action for action in actions if not isinstance(action, MakeDirectory) and _differs(session, action)]
    return sorted(wanted, key=lambda action: _where(action).startswith(REMOVABLE))


def _differs(session: Session, action: Action) -> bool:
    expected = _bytes(action)
    if expected is None:
        return False
    location = getattr(action, "location", None)
    if location is None or location.volume not in session.target.volumes():
        return False
    try:
        return bool(session.target.read(location) != expected)
    except FileNotFoundError:
        return True


def _read_back(session: Session, action: Action) -> None:
    if _differs(session, action):
        msg = f"{_where(action)} reads back other than it was written"
        raise DiskError(msg, hint="check the disk; the loader that was there is gone, and this one is not whole")


def _bytes(action: Action) -> bytes | None:
    if isinstance(action, WriteFile):
        return action.data
    return read_all(action.source) if isinstance(action, CopyObject) else None


def _where(action: Action) -> str:
    location = getattr(action, "location", None)
    return location.path if location is not None else ""
