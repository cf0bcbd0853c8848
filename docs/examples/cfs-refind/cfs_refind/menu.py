"""From the stanzas there are to those that are wanted: boot files, one refind.conf, removals."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import (
    BootFiles,
    argument_deployment,
    join_arguments,
    list_names,
    read_file,
    refuse_added_arguments,
    split_arguments,
    uki_deployment,
    unknown_entry,
)
from cfs_core.plugin import BootEntry, BootError, BootMenu, EntryKind, Location, Volume, WriteFile
from cfs_refind.config import Config, Stanza, check_ascii, plain, quoted
from cfs_refind.once import plan_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.plugin import Action, Architecture, TargetView

HOME = Location(Volume.ESP, "/EFI/BOOT")
CONFIG = HOME / "refind.conf"
ONCE = "refind-once.conf"
LINUX = Location(Volume.ESP, "/EFI/Linux")
UKIS = LINUX / "bootc"
CONFIG_LIMIT = 1 << 20
"""Bytes; a longer file is no configuration of rEFInd."""

_NEW = (
    "# Configuration of rEFInd; see https://www.rodsbooks.com/refind/configfile.html\n",
    "# Only what is written here is offered.\n",
    "scanfor manual\n",
    "timeout 5\n",
)


@dataclass(frozen=True, slots=True)
class Known:
    """A stanza and what cfs makes of it."""

    stanza: Stanza
    entry: BootEntry


def read_config(target: TargetView) -> Config:
    """Read refind.conf; nothing where there is none."""
    data = read_file(target, CONFIG) or b""
    return Config.parse(data if len(data) <= CONFIG_LIMIT else b"")


def known(config: Config) -> tuple[Known, ...]:
    """Return the stanzas of *config* as entries, in the order shown; of two with one identity the first counts."""
    found: dict[tuple[bool, str], Known] = {}
    for stanza in config.stanzas:
        entry = _entry(stanza)
        found.setdefault((entry.foreign, entry.deployment_id), Known(stanza, entry))
    return tuple(found.values())


def read_menu(target: TargetView) -> BootMenu:
    """Read what refind.conf offers. What rEFInd finds by itself on other disks cannot be known here."""
    config = read_config(target)
    entries = known(config)
    default = config.default()
    first = entries[0].stanza if entries else None
    identity = next((item.entry.deployment_id for item in entries if item.stanza is default), None)
    timeout = config.setting("timeout")
    return BootMenu(
        entries=tuple(item.entry for item in entries),
        default=identity if default is not first else None,
        timeout_seconds=_seconds(timeout),
    )


def _seconds(timeout: str | None) -> int | None:
    if timeout == "-1":
        return 0
    return int(timeout) if timeout is not None and timeout.isdecimal() and timeout != "0" else None


def _entry(stanza: Stanza) -> BootEntry:
    words = split_arguments(stanza.get("options") or "")
    initrds = [word.removeprefix("initrd=") for word in words if word.startswith("initrd=")]
    paths = [path for path in (stanza.get("loader"), stanza.get("initrd"), *initrds) if path]
    files = tuple(Location(Volume.ESP, _path(path)) for path in paths)
    arguments = tuple(word for word in words if not word.startswith("initrd="))
    loader = files[0].path if files else ""
    uki = uki_deployment(loader)
    deployment = uki or argument_deployment(arguments)
    ours = deployment is not None and loader.lower().startswith(LINUX.path.lower() + "/")  # FAT knows no letter case
    is_uki = uki is not None or loader.lower().endswith(".efi")
    return BootEntry(
        deployment_id=deployment if ours and deployment else stanza.title,
        kind=EntryKind.UKI if is_uki else EntryKind.BLS,
        title=stanza.title,
        version=stanza.note("version") or "",
        os_id=stanza.note("os-id") or "",
        machine_id=stanza.note("machine-id"),
        arguments=arguments,
        foreign=not ours,
        files=files,
        name=stanza.title,
    )


def _with_initrds(options: str, paths: Sequence[str]) -> str:
    """Name several initrds in the options, where the kernel reads them in this order; rEFInd itself takes only one."""
    words = [f"initrd={path}".replace("/", "\\") for path in paths] if len(paths) > 1 else []
    return " ".join(filter(None, (options, *words)))


def _path(path: str) -> str:
    return posixpath.normpath("/" + path.replace("\\", "/").lstrip("/"))


_OURS = re.compile(r"\[[0-9a-f]{1,16}\]")
"""A ``default_selection`` that means an entry of ours."""


def _handle(deployment_id: str) -> str:
    """Return the part of our titles that ``default_selection`` looks for."""
    return f"[{deployment_id[:16]}]"


class MenuPlan:
    """One change of the menu. ``actions`` is the result."""

    def __init__(self, target: TargetView, wanted: BootMenu, architecture: Architecture, *, generic: bool) -> None:
        self._target = target
        self._wanted = wanted
        self._loader = HOME / f"BOOT{architecture.efi.upper()}.EFI"
        self._generic = generic
        self._old = read_config(target)
        self._known = known(self._old)

    def actions(self) -> Sequence[Action]:
        """Return boot files first, then refind.conf in one step, the next boot's choice, removals.

        Raises:
            BootError: the menu cannot be expressed.
        """
        files = BootFiles(self._target, LINUX, UKIS)
        ours = [item.stanza for item in self._known if not item.entry.foreign]
        entries = [entry for entry in self._wanted.entries if not entry.foreign]
        stanzas = [self._stanza(entry, files) for entry in entries]
        config = self._old if self._old.parts else Config(_NEW)
        if [stanza.lines for stanza in ours] != [stanza.lines for stanza in stanzas]:
            config = config.with_stanzas(self._all_ours(), stanzas)
        config = self._with_timeout(self._with_default(config))
        actions: list[Action] = list(files.actions)
        if config.data() != self._old.data():
            actions.append(WriteFile(location=CONFIG, data=config.data(), why="menu of rEFInd"))
        actions += self._once(config)
        return [*actions, *files.removals([config.data(), *self._texts_of_others()])]

    def _all_ours(self) -> list[Stanza]:
        return [stanza for stanza in self._old.stanzas if not _entry(stanza).foreign]

    def _stanza(self, entry: BootEntry, files: BootFiles) -> Stanza:
        if entry.tries_left is not None:
            message = "rEFInd does not count attempts to boot"
            raise BootError(message, hint="use a bootloader that does, such as systemd-boot")
        for argument in entry.arguments:
            check_ascii(argument)
        options = join_arguments(entry.arguments)
        if entry.artifacts is None:
            return self._kept(entry, options)
        paths = [location.path for location in files.place(entry)]
        lines = [f"menuentry {quoted(f'{plain(entry.title)} {_handle(entry.deployment_id)}')} {{\n"]
        notes = {"version": entry.version, "os-id": entry.os_id, "machine-id": entry.machine_id or ""}
        lines += [f"    # {key}: {plain(value)}\n" for key, value in notes.items() if value]
        lines.append(f"    loader {paths[0]}\n")
        if entry.kind is EntryKind.BLS:
            lines += [f"    initrd {path}\n" for path in paths[1:] if len(paths) == 2]  # noqa: PLR2004 - kernel, initrd
            lines.append(f"    options {quoted(_with_initrds(options, paths[1:]))}\n")
        else:
            refuse_added_arguments(entry)
        return Stanza((*lines, "}\n"))

    def _kept(self, entry: BootEntry, options: str) -> Stanza:
        for item in self._known:
            if not item.entry.foreign and item.entry.deployment_id == entry.deployment_id:
                refuse_added_arguments(entry, item.entry.arguments)
                changed = entry.kind is EntryKind.BLS and entry.arguments != item.entry.arguments
                initrds = [location.path for location in item.entry.files[1:]]
                return item.stanza.with_options(_with_initrds(options, initrds)) if changed else item.stanza
        raise unknown_entry(entry.deployment_id)

    def _with_default(self, config: Config) -> Config:
        if not self._wanted.entries:
            ours = _OURS.fullmatch(config.setting("default_selection") or "")
            return config.without_setting("default_selection") if ours else config
        goal = self._wanted.default or self._wanted.entries[0].deployment_id
        return _selecting(config, goal)

    def _with_timeout(self, config: Config) -> Config:
        wanted = self._wanted.timeout_seconds
        if wanted is None or _seconds(config.setting("timeout")) == wanted:
            return config
        return config.with_setting("timeout", str(wanted or -1))

    def _once(self, config: Config) -> list[Action]:
        if self._wanted.once is None:
            return []
        if self._generic:
            message = "rEFInd's choice for the next boot is made by firmware variables; a disk image has none"
            raise BootError(message, hint="choose the default instead")
        text = Config((f"include {CONFIG.path.rpartition('/')[2]}\n",)).data()
        chosen = _selecting(config, self._wanted.once).setting("default_selection") or ""
        data = text + f"default_selection {quoted(chosen)}\ntimeout -1\n".encode("ascii")
        location = HOME / ONCE
        actions: list[Action] = []
        if read_file(self._target, location) != data:
            actions.append(WriteFile(location=location, data=data, why="menu of the next boot only"))
        return [*actions, *plan_once(self._target, self._loader.path, ONCE)]

    def _texts_of_others(self) -> list[bytes]:
        """Return entries of other loaders on this ESP, which may share our boot files."""
        entries = Location(Volume.ESP, "/loader/entries")
        return [read_file(self._target, entries / name) or b"" for name in list_names(self._target, entries)]


def _selecting(config: Config, goal: str) -> Config:
    """Return *config* with a ``default_selection`` that means entry *goal*, by name; as it is where it says so already.

    Raises:
        BootError: there is no such entry, or none of its names means it.
    """
    found = next((item for item in known(config) if item.entry.deployment_id == goal), None)
    if found is None:
        raise unknown_entry(goal)
    # Without the option, rEFInd starts what was started last.
    selected = config.setting("default_selection")
    if selected is not None and "+" not in selected.split(",") and config.default() is found.stanza:
        return config
    name = found.stanza.title if found.entry.foreign else _handle(goal)
    changed = config.with_setting("default_selection", quoted(name))
    if changed.default() is not found.stanza:
        message = f"rEFInd cannot start {found.stanza.title!r} by default: its name means another entry as well"
        raise BootError(message, hint="give its stanza another name, without commas")
    return changed
