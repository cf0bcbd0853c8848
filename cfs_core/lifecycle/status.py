"""What a disk or a machine holds: deployments, how each is started, what was verified, and what does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cfs_core.errors import CfsError
from cfs_core.model.disk import Volume
from cfs_core.model.origin import OriginFile, unread_message
from cfs_core.model.places import DEPLOYMENTS
from cfs_core.model.plan import Finding

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from pathlib import Path

    from cfs_core.interfaces.bootloader import Bootloader
    from cfs_core.interfaces.target import TargetView
    from cfs_core.model.boot import BootEntry, BootMenu, EntryKind

_ESPS = ("boot/efi", "efi", "esp", "boot")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryStatus:
    """A choice in a boot menu. ``position`` counts from 1, as shown; ``once`` is set for the next boot only."""

    loader: str
    name: str
    title: str
    kind: EntryKind
    position: int
    default: bool
    once: bool
    tries_left: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStatus:
    """A deployment as its origin file and the boot menus have it; what the origin does not say is None or empty."""

    id: str
    image: str | None = None
    manifest_digest: str | None = None
    layout: EntryKind | None = None
    verified: tuple[str, ...] = ()
    bootloader: str | None = None
    """What it was installed with, and the distribution whose plugin reads it."""

    bootloader_distribution: str | None = None
    entries: tuple[EntryStatus, ...] = ()
    origin: OriginFile = field(default_factory=OriginFile, repr=False)
    boot_entry: BootEntry | None = field(default=None, repr=False)
    """Its first entry, as the loader shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Deployments in the order of the menu, those that nothing starts last; entries of other systems.

    ``problems`` are inconsistencies; ``notes`` are worth knowing and right as they are.
    What nothing starts is a note: bootc drops the oldest of three from the menu and leaves the rest of it to a
    collection, and what is staged has no entry yet.
    """

    deployments: tuple[DeploymentStatus, ...]
    foreign: tuple[EntryStatus, ...]
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...] = ()
    menus: Mapping[str, BootMenu] = field(default_factory=dict, repr=False)
    """The menu of each loader that could be read."""

    def get(self, identity: str | None) -> DeploymentStatus | None:
        """Return the deployment with this id."""
        return next((each for each in self.deployments if each.id == identity), None)


def read_status(target: TargetView, bootloaders: Mapping[str, Bootloader]) -> Status:
    """Read origin files and boot menus of *target*. Contents are not checked: that is what fsck does.

    Raises:
        DiskError: a filesystem is damaged, or cannot be read.
    """
    problems: list[Finding] = []
    found = {name: _deployment(target, name, problems) for name in target.names(DEPLOYMENTS)}
    menus: dict[str, BootMenu] = {}
    for loader, bootloader in bootloaders.items():
        try:
            menus[loader] = bootloader.read_menu(target)
        except CfsError as error:
            problems.append(Finding.error("boot.menu", error.message, where=loader))
    ordered: dict[str, DeploymentStatus] = {}
    foreign: list[EntryStatus] = []
    for loader, menu in menus.items():
        for position, entry in enumerate(menu.entries, 1):
            status = _entry(loader, menu, entry, position)
            problems += _examine_files(target, entry)
            if entry.foreign:
                foreign.append(status)
                continue
            identity = entry.deployment_id
            known = ordered.get(identity) or found.get(identity) or DeploymentStatus(id=identity)
            first = known.boot_entry or entry
            ordered[identity] = replace(known, entries=(*known.entries, status), boot_entry=first)
    deployments = tuple({**ordered, **{name: each for name, each in found.items() if name not in ordered}}.values())
    problems += _examine(deployments, frozenset(found), menus, bootloaders)
    notes = tuple(_unstarted(deployments)) if any(menu.entries for menu in menus.values()) else ()
    return Status(deployments=deployments, foreign=tuple(foreign), problems=tuple(problems), notes=notes, menus=menus)


def mounted_volumes(sysroot: Path, outside: Path | None = None) -> dict[Volume, Path]:
    """Return where the volumes of the system below *sysroot* are mounted; *outside*: another place to look, ``/``."""
    roots = {Volume.ROOT: sysroot}
    bases = [base for base in (sysroot, outside) if base is not None]
    places = [base / name for base in bases for name in _ESPS]
    esp = next((path for path in places if _is_there(path / "EFI") or _is_there(path / "loader/loader.conf")), None)
    if esp is not None:
        roots[Volume.ESP] = esp
    boot = next((base / "boot" for base in bases if (base / "boot").is_mount()), None)
    if boot is not None and boot != esp:
        grub = any((boot / name).is_dir() for name in ("grub", "grub2"))
        roots[Volume.BOOT if grub else Volume.XBOOTLDR] = boot
    return roots


def _is_there(path: Path) -> bool:
    """Look without minding what cannot be looked at: a mount on demand while the system shuts down, say."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _deployment(target: TargetView, name: str, problems: list[Finding]) -> DeploymentStatus:
    location = DEPLOYMENTS / name / f"{name}.origin"
    try:
        origin = OriginFile.parse(target.read(location).decode("utf-8", "replace"))
    except FileNotFoundError:
        problems.append(Finding.error("state.origin", "is missing", where=str(location)))
        return DeploymentStatus(id=name)
    except ValueError as error:
        problems.append(Finding.error("state.origin", str(error), where=str(location)))
        return DeploymentStatus(id=name)
    if origin != OriginFile():
        problems += (
            Finding.error("state.origin", f"does not say {what}", where=str(location))
            for what, value in (
                ("container-image-reference", origin.image),
                ("manifest_digest", origin.manifest_digest),
                ("boot_type", origin.boot_type),
            )
            if value is None
        )
    return DeploymentStatus(
        id=name,
        image=origin.image,
        manifest_digest=origin.manifest_digest,
        layout=origin.boot_type,
        verified=origin.verified,
        origin=origin,
        bootloader=origin.bootloader,
        bootloader_distribution=origin.bootloader_distribution,
    )


def _entry(loader: str, menu: BootMenu, entry: BootEntry, position: int) -> EntryStatus:
    default = menu.default if menu.default is not None else menu.entries[0].deployment_id
    return EntryStatus(
        loader=loader,
        name=entry.name or entry.deployment_id,
        title=entry.title,
        kind=entry.kind,
        position=position,
        default=entry.deployment_id == default,
        once=menu.once is not None and entry.deployment_id == menu.once,
        tries_left=entry.tries_left,
    )


def _examine_files(target: TargetView, entry: BootEntry) -> Iterator[Finding]:
    for location in entry.files:
        if location.volume in target.volumes() and not target.exists(location):
            message = f"is named by the boot entry {entry.title!r} and missing"
            yield Finding.error("boot.menu", message, where=str(location))


def _unstarted(deployments: tuple[DeploymentStatus, ...]) -> Iterator[Finding]:
    """Point out deployments without an entry: whoever upgrades twice keeps two entries and, until gc, three of them."""
    for each in deployments:
        if not each.entries:
            yield Finding.note("state.unstarted", "is started by no boot entry", where=f"{each.id:.16}")


def _examine(
    deployments: tuple[DeploymentStatus, ...],
    present: frozenset[str],
    menus: Mapping[str, BootMenu],
    known: Container[str],
) -> Iterator[Finding]:
    unread = [each for each in deployments if each.bootloader is not None and each.bootloader not in known]
    for each in unread:
        message = unread_message(each.bootloader or "", each.bootloader_distribution)
        yield Finding.error("boot.loader-unknown", message, where=f"{each.id:.16}")
    if deployments and not any(menu.entries for menu in menus.values()):
        if not unread:
            yield Finding.error("boot.menu", "has no entries, or its volume is not here", where="boot menu")
        return
    for each in deployments:
        yield from _examine_deployment(each, deployed=each.id in present)
    yield from _examine_choices(menus)


def _examine_deployment(each: DeploymentStatus, *, deployed: bool) -> Iterator[Finding]:
    if not deployed:
        names = ", ".join(entry.name for entry in each.entries)
        message = f"has a boot entry ({names}) and is not deployed"
        yield Finding.error("state.missing", message, where=f"{each.id:.16}")
    for entry in each.entries:
        if each.layout is not None and entry.kind is not each.layout:
            message = f"is of kind {entry.kind.value}, but its deployment was made as {each.layout.value}"
            yield Finding.error("state.layout", message, where=entry.name)


def _examine_choices(menus: Mapping[str, BootMenu]) -> Iterator[Finding]:
    for loader, menu in menus.items():
        offered = {entry.deployment_id for entry in menu.entries}
        for what, goal in (("default", menu.default), ("choice for the next boot", menu.once)):
            if goal is not None and goal not in offered:
                message = f"its {what} is {goal:.16}, which it does not offer"
                yield Finding.error("boot.menu", message, where=loader)
