"""Reading and planning the menu of systemd-boot: entry files, boot files, loader.conf."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cfs_core.bls import (
    BootFiles,
    EntryFile,
    EntryName,
    MenuFile,
    Place,
    default_of,
    edit_entry,
    entry_priorities,
    entry_stem,
    guard_default,
    is_steady,
    join_arguments,
    kept_entry_text,
    list_names,
    new_entry_text,
    parse_entry,
    plan_entries,
    read_file,
    scan_entries,
    sort_key,
    split_arguments,
    unknown_entry,
)
from cfs_core.plugin import (
    Action,
    BootEntry,
    BootError,
    BootMenu,
    Location,
    SetEfiVariable,
    Volume,
    WriteFile,
)
from cfs_systemd_boot.binary import installed_machines
from cfs_systemd_boot.discovered import discovered
from cfs_systemd_boot.order import Shown, chosen, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.plugin import TargetView

ENTRIES = "/loader/entries"
LOADER_CONF = Location(Volume.ESP, "/loader/loader.conf")
LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""Vendor of the variables of the Boot Loader Interface."""

OURS = "bootc_*"
"""Pattern of loader.conf that means the best of our entries."""

UKI_KEY_SINCE = 258
"""Version of systemd-boot that knows the ``uki`` key; older ones start a unified kernel image by ``efi``."""

DEFAULT_TIMEOUT = 5
_DIGITS = re.compile("[0-9]{1,10}")
_LONGEST_TIMEOUT = (1 << 32) - 1
LAST_CHARACTER = "\uffff"
"""systemd-boot 257 leaves out what UTF-16 needs two units for."""


def boot_volume(target: TargetView, volumes: frozenset[Volume]) -> Volume:
    """Return where entries and kernels go: XBOOTLDR where there is one, as the Boot Loader Specification wants it."""
    return Volume.XBOOTLDR if Volume.XBOOTLDR in target.volumes() | volumes else Volume.ESP


def scan(target: TargetView) -> tuple[EntryFile, ...]:
    """Read the entry files on both volumes the loader looks at."""
    places = tuple(Place(directory=Location(volume, ENTRIES)) for volume in (Volume.ESP, Volume.XBOOTLDR))
    return scan_entries(target, tuple(place for place in places if place.directory.volume in target.volumes()))


def read_menu(target: TargetView) -> BootMenu:
    """Return what the loader will show, in its order. It does not show entries whose kernel or EFI file is missing."""
    machines = installed_machines(target)
    files = {
        str(file.location): file
        for file in scan(target)
        if file.loader_files and target.exists(file.loader_files[0]) and _fits(file, machines)
    }
    shown = [Shown.of(key, file.name, file.fields) for key, file in files.items()]
    entries = {key: _entry(file) for key, file in files.items()}
    for entry, how in discovered(target):
        entries[how.key] = entry
        shown.append(how)
    ordered = in_order(shown)
    settings = parse_entry(read_file(target, LOADER_CONF) or b"")
    default = chosen(ordered, settings.first("default"))
    unique: dict[tuple[bool, str], BootEntry] = {}
    for how in ordered:
        entry = entries[how.key]
        # While names change a deployment may have two entries: what the loader shows first is the one that counts.
        unique.setdefault((entry.foreign, entry.deployment_id), entry)
    return BootMenu(
        entries=tuple(unique.values()),
        default=entries[default.key].deployment_id if default is not None and default is not ordered[0] else None,
        timeout_seconds=_seconds(settings.first("timeout")),
    )


def _seconds(timeout: str | None) -> int | None:
    """Return the number that systemd-boot would read: it ignores what is none, or needs more than 32 bits."""
    if timeout is None or not _DIGITS.fullmatch(timeout):
        return None
    return int(timeout) if int(timeout) <= _LONGEST_TIMEOUT else None


def _fits(file: EntryFile, machines: frozenset[str]) -> bool:
    machine = file.fields.first("architecture")
    return machine is None or not machines or machine.lower() in machines


def _entry(file: EntryFile) -> BootEntry:
    return replace(file.entry(), arguments=_arguments(file))


def _arguments(file: EntryFile) -> tuple[str, ...]:
    return split_arguments(" ".join(_unquoted(text) for text in file.fields.every("options")))


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


class MenuPlan:
    """One change of the menu. ``actions`` is the result."""

    def __init__(self, target: TargetView, wanted: BootMenu, volume: Volume, *, uki_key: str, generic: bool) -> None:
        self._target = target
        self._wanted = wanted
        self._place = Place(directory=Location(volume, ENTRIES))
        self._uki_key = uki_key
        self._generic = generic
        self._scanned = scan(target)

    def actions(self) -> Sequence[Action]:
        """Return files first, then entries and the default, and removals last.

        Raises:
            BootError: the menu cannot be expressed.
        """
        ours = [entry for entry in self._wanted.entries if not entry.foreign]
        volume = self._place.directory.volume
        linux = Location(volume, "/EFI/Linux")
        boot_files = BootFiles(self._target, linux, linux / "bootc")
        want: list[MenuFile] = []
        os_ids = {entry.os_id for entry in ours}
        # Sort keys carry the OS id: entries of two systems would sort by it, so they then share bootc's own.
        os_id = os_ids.pop() if len(os_ids) == 1 else "bootc"
        for rank, (entry, priority) in enumerate(zip(ours, entry_priorities(len(ours)), strict=True)):
            old = self._current(entry)
            if entry.artifacts is None:
                text = kept_entry_text(entry, old, arguments_of=_arguments, options_of=_options)
            else:
                paths = [self._place.spell(location) for location in boot_files.place(entry)]
                text = new_entry_text(entry, paths, options_of=_options, uki_key=self._uki_key)
            data = edit_entry(text, {"sort-key": sort_key(os_id, rank)})
            version = parse_entry(data).first("version") or entry.deployment_id
            name = _counted(EntryName(stem=entry_stem(os_id, version, priority)), entry, old)
            location = self._place.directory / str(name)
            want.append(MenuFile(location=location, deployment_id=entry.deployment_id, data=data))
        have = [file.menu_file() for file in self._scanned if file.ours]
        writes, removals = plan_entries(have, want)
        old_conf = read_file(self._target, LOADER_CONF)
        conf = self._loader_conf(want, old_conf)
        texts = [file.data for file in want] + self._kept_texts({file.location for file in have})
        gone = boot_files.removals(texts)
        once = self._once(want)
        steps = [*boot_files.actions, *writes, *_write_conf(old_conf, conf), *removals]
        if is_steady(self._target, steps, read_menu):
            return [*steps, *once, *gone]
        return [*boot_files.actions, *self._guarded(have, want, old_conf, conf), *once, *gone]

    def _guarded(
        self, have: Sequence[MenuFile], want: Sequence[MenuFile], old_conf: bytes | None, conf: bytes
    ) -> list[Action]:
        """Return the steps to the new menu with the old default held until the last: loader.conf knows only names."""
        old = default_of(read_menu(self._target)) or ""
        change = guard_default(have, want, old, self._place.directory)
        name = self._entry([], old).id if change.stem is None else f"{change.stem}.conf"
        held = edit_entry(old_conf or b"", {"default": name})
        return change.actions(hold=_write_conf(old_conf, held), settle=_write_conf(held, conf))

    def _current(self, entry: BootEntry) -> EntryFile | None:
        files = [file for file in self._scanned if file.ours and file.deployment_id == entry.deployment_id]
        return next((file for file in files if entry.name == f"{file.name.stem}.conf"), files[0] if files else None)

    def _kept_texts(self, ours: set[Location]) -> list[bytes]:
        texts = [file.data for file in self._scanned if file.location not in ours]
        for volume in (Volume.ESP, Volume.XBOOTLDR):
            staged = Location(volume, ENTRIES + ".staged")
            texts += [read_file(self._target, staged / name) or b"" for name in list_names(self._target, staged)]
        return texts

    def _loader_conf(self, want: Sequence[MenuFile], old: bytes | None) -> bytes:
        settings = parse_entry(old or b"")
        changes: dict[str, str | None] = {}
        timeout = self._wanted.timeout_seconds
        if old is None or (timeout is not None and settings.first("timeout") != str(timeout)):
            changes["timeout"] = str(DEFAULT_TIMEOUT if timeout is None else timeout)
        pattern = self._default_pattern(want, settings.first("default"))
        if pattern != settings.first("default"):
            changes["default"] = pattern
        return edit_entry(old or b"", changes)

    def _default_pattern(self, want: Sequence[MenuFile], pattern: str | None) -> str | None:
        """Return the ``default`` of loader.conf that starts the wanted entry; the one there is, if it does."""
        if not self._wanted.entries:
            return pattern
        goal = self._wanted.default or self._wanted.entries[0].deployment_id
        shown = [_shown(file) for file in want]
        shown += [Shown.of(file.identity, file.name, file.fields) for file in self._scanned if not file.ours]
        shown += [how for _, how in discovered(self._target)]
        ordered = in_order(shown)
        # What stands there stays if it does. Else nothing at all is better than a pattern, and that better than a name,
        # which will move to another entry.
        for candidate in (pattern, None, OURS):
            taken = chosen(ordered, candidate)
            if taken is not None and taken.key == goal:
                return candidate
        return self._entry(want, goal).id

    def _entry(self, want: Sequence[MenuFile], goal: str) -> Shown:
        for wanted in want:
            if wanted.deployment_id == goal:
                return _shown(wanted)
        for file in self._scanned:
            if not file.ours and file.identity == goal:
                return Shown.of(goal, file.name, file.fields)
        for _, how in discovered(self._target):
            if how.key == goal:
                return how
        raise unknown_entry(goal)

    def _once(self, want: Sequence[MenuFile]) -> list[Action]:
        if self._wanted.once is None:
            return []
        if self._generic:
            message = "systemd-boot keeps the choice for the next boot in a firmware variable; a disk image has none"
            raise BootError(message, hint="choose the default instead")
        entry = self._entry(want, self._wanted.once)
        data = (entry.id + "\0").encode("utf-16-le")
        why = "entry for the next boot only"
        return [SetEfiVariable(name="LoaderEntryOneShot", guid=LOADER_GUID, data=data, why=why)]


def _write_conf(old: bytes | None, new: bytes) -> list[Action]:
    return (
        [] if old == new else [WriteFile(location=LOADER_CONF, data=new, why="default entry and timeout of the menu")]
    )


def _shown(file: MenuFile) -> Shown:
    name = EntryName.parse(file.location.path.rpartition("/")[2]) or EntryName(stem="")
    return Shown.of(file.deployment_id, name, parse_entry(file.data))


def _counted(name: EntryName, entry: BootEntry, old: EntryFile | None) -> EntryName:
    """Give *name* the wanted boot counter; one that has not changed keeps its count of failures."""
    done = old.name.tries_done if old is not None and old.name.tries_left == entry.tries_left else 0
    return replace(name, tries_left=entry.tries_left, tries_done=done)


def _options(entry: BootEntry) -> str:
    """Return the ``options`` of *entry*. systemd-boot takes quotes off a value that begins and ends with them."""
    text = join_arguments(entry.arguments)
    beyond = next((argument for argument in entry.arguments if max(argument, default="") > LAST_CHARACTER), None)
    if beyond is not None:
        message = f"systemd-boot drops characters of the kernel argument {beyond!r}: it knows those up to U+FFFF only"
        raise BootError(
            message, hint="write the argument without them, or use a unified kernel image", facts={"argument": beyond}
        )
    return text if _unquoted(text) == text else f'"{text}"'
