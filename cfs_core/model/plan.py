"""Findings and install plans."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfs_core.model.action import Action
    from cfs_core.model.boot import BootMenu, KernelArgument
    from cfs_core.model.deployment import ImageId
    from cfs_core.model.disk import Partition
    from cfs_core.model.manifest import ResolvedImage


class Severity(enum.StrEnum):
    """An ``error`` stops before anything is written."""

    NOTE = "note"
    """Good to know."""

    WARNING = "warning"
    """May be wrong; the install goes on."""

    ERROR = "error"
    """The install is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that was found: in an image, on a host, on a disk or in a repository, before or after writing.

    ``code`` is stable: ``boot.loader-missing``. Where there is a ``where``, *message* says what is the matter with it
    (``is missing``); else it is a whole sentence.
    """

    severity: Severity
    """How much it matters."""

    code: str
    """For programs."""

    message: str
    """What was found, for people."""

    hint: str | None = None
    """What to do: a command, an option, a setting or a file."""

    where: str = ""
    """An object, stream, image, location or path; empty where the message says it."""

    repairable: bool = False
    """Whether ``cfs fsck --repair`` can mend it."""

    origin: str = ""
    """The distribution that found it; core fills it in."""

    @classmethod
    def error(
        cls, code: str, message: str, hint: str | None = None, *, where: str = "", repairable: bool = False
    ) -> Finding:
        """Return one that refuses an install, or names what is broken."""
        return cls(severity=Severity.ERROR, code=code, message=message, hint=hint, where=where, repairable=repairable)

    @classmethod
    def warning(cls, code: str, message: str, hint: str | None = None, *, where: str = "") -> Finding:
        """Return one that may be wrong."""
        return cls(severity=Severity.WARNING, code=code, message=message, hint=hint, where=where)

    @classmethod
    def note(cls, code: str, message: str, hint: str | None = None, *, where: str = "") -> Finding:
        """Return one that is good to know."""
        return cls(severity=Severity.NOTE, code=code, message=message, hint=hint, where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A group of actions by one provider."""

    id: str
    """Names it in progress and events."""

    provider: str
    """Whose actions these are."""

    title: str
    """What people see."""

    actions: tuple[Action, ...]
    """In this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """Everything an install will do."""

    image: ResolvedImage
    """What is installed."""

    image_id: ImageId
    """Identity of its tree, in hex."""

    partitions: tuple[Partition, ...]
    """The disk, in the order of the table."""

    steps: tuple[Step, ...]
    """In this order."""

    menu: BootMenu
    """What the disk will offer."""

    arguments: tuple[KernelArgument, ...]
    """The kernel command line of the new entry, each word with its origin."""

    findings: tuple[Finding, ...] = ()
    """What was found while planning."""
