"""Planning GRUB's menu: boot files, entry files, user.cfg, environment block, grub.cfg."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from cfs_core.bls import (
    BootFiles,
    EntryFile,
    Fields,
    MenuFile,
    default_of,
    edit_entry,
    entry_priorities,
    entry_stem,
    guard_default,
    guard_stem,
    is_steady,
    join_arguments,
    kept_entry_text,
    new_entry_text,
    parse_entry,
    plan_entries,
    read_file,
    refuse_added_arguments,
    sort_key,
    split_arguments,
    unknown_entry,
)
from cfs_core.plugin import (
    Action,
    BootEntry,
    BootError,
    BootMenu,
    EntryKind,
    Firmware,
    RemovePath,
    Volume,
    WriteFile,
)
from cfs_grub import config, environment, foreign
from cfs_grub.chain import ESP_KERNELS, EfiKernels
from cfs_grub.config import Counted, ScriptEntry, uki_title
from cfs_grub.order import Sorting, best_first
from cfs_grub.place import ESP_UKIS, filesystem_uuid
from cfs_grub.state import State, entry_stem_of, tries_variable, uki_entries
from cfs_grub.words import is_plain, linux_words, quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfs_core.plugin import BootFacts, TargetView

_REASONS = {
    "grub.cfg": "the menu",
    "user.cfg": "entries for unified kernel images",
    "efiuuid.cfg": "tells GRUB the EFI system partition",
}
_UNWRITABLE = frozenset({"btrfs"})
"""Filesystems on which GRUB cannot change its environment block while it runs."""


class MenuPlan:
    """One change of the menu on the target that *state* was read from."""

    def __init__(
        self, state: State, wanted: BootMenu, facts: BootFacts, *, sorting: Sorting | None, filesystem: str
    ) -> None:
        self._state = state
        self._firmware = facts.firmware
        self._kernels = EfiKernels(state.target, state.place, facts.architecture)
        self._wanted = wanted
        self._sorting = sorting
        self._filesystem = filesystem
        self._ours = [entry for entry in wanted.entries if not entry.foreign]
        kinds = [kind for kind, _ in groupby(entry.kind for entry in self._ours)]
        # GRUB shows all entry files in a row, and user.cfg before or after them. A menu that goes to and fro between
        # the two kinds must be written out, in a script of ours.
        self._interleaved = len(kinds) > len(EntryKind) and not state.foreign
        plain = all(is_plain(entry.arguments) for entry in self._ours)
        # Written out, too, where GRUB cannot read entry files, or would take the quotes and signs in an argument for
        # its own.
        self._scripted = sorting is None or self._interleaved or not plain
        self._files = BootFiles(state.target, state.place.directory, ESP_UKIS)
        self._stems = self._choose_stems()
        scripts = [state.texts.get(name, "") for name in ("grub.cfg", "user.cfg")]
        self._known_ukis = {
            deployment: (command.arguments[0], text[command.start : command.end] + "\n")
            for text in scripts
            for command, deployment in uki_entries(text)
        }

    def actions(self) -> Sequence[Action]:
        """Return files first, then entries, then what makes them the menu, and removals last.

        Raises:
            BootError: the menu cannot be expressed.
        """
        state = self._state
        want = self._entry_files()
        scripts = self._scripts(want)
        env = self._environment()
        if state.foreign:
            foreign.check(state, self._ours, env, scripted=self._scripted)
        block = environment.edit(self._block(), env) if env or self._block() is None else self._block() or b""
        texts = [file.data for file in want] + state.other_texts()
        texts += [text.encode("utf-8", "surrogateescape") for text in scripts.values()]
        on_esp = BootFiles(state.target, ESP_KERNELS, ESP_UKIS).removals(texts)
        gone = dict.fromkeys([*self._files.removals(texts), *on_esp])
        before = [*self._files.actions, *self._kernels.actions, *self._efiuuid()]
        have = [file.menu_file() for file in state.files if file.ours]
        writes, removals = plan_entries(have, want)
        menu = [*writes, *self._write_scripts(state.texts, scripts), *self._grubenv(self._block(), block), *removals]
        steps = [*before, *menu, *gone]
        if is_steady(state.target, steps, self._read) or (state.foreign and not state.obeys("saved_entry")):
            return steps
        return [*before, *self._guarded(have, want, scripts, block), *gone]

    def _read(self, target: TargetView) -> BootMenu:
        place = self._state.place
        return State.read(target, frozenset({place.directory.volume}), place.prefix).menu()

    # --- the default while names change -----------------------------------------------------------

    def _guarded(
        self, have: Sequence[MenuFile], want: Sequence[MenuFile], scripts: dict[str, str], env: bytes
    ) -> list[Action]:
        """Return the steps to the new menu with the old default held until the last: ``saved_entry`` is a name."""
        state = self._state
        menu = state.menu()
        old = next(entry for entry in menu.entries if entry.deployment_id == default_of(menu))
        name = next(choice.path for choice in state.choices() if choice.entry == old)
        change = guard_default(have, want, old.deployment_id, state.place.entries.directory)
        held: dict[str, str | None] = {"saved_entry": change.stem or name, "next_entry": None}
        if old.tries_left == 0:
            held[tries_variable(old.deployment_id)] = None  # what has no tries left would be passed over
        block = environment.edit(self._block(), held)
        added = None if any(entry.deployment_id == old.deployment_id for entry in self._ours) else old
        bridge = self._scripts(want, added)
        return change.actions(
            hold=self._grubenv(self._block(), block),
            between=self._write_scripts(state.texts, bridge),
            settle=[*self._grubenv(block, env), *self._write_scripts(bridge, scripts)],
        )

    # --- entry files --------------------------------------------------------------------------

    def _choose_stems(self) -> dict[str, str]:
        """Return names of entry files by deployment, such that a GRUB that sorts them shows the wanted order."""
        ranked = list(zip(self._ours, entry_priorities(len(self._ours)), strict=True))
        entries = [(entry, priority) for entry, priority in ranked if entry.kind is EntryKind.BLS]
        if not entries:
            return {}
        os_id = self._os_id()
        names = [entry_stem(os_id, entry.version or entry.deployment_id, priority) for entry, priority in entries]
        # In both orders, whichever GRUB is there today: an update may bring the other one.
        if any(best_first(names, sorting) != names for sorting in Sorting):
            # GRUB looks at versions before priorities: then all get the same.
            version = entries[0][0].version or entries[0][0].deployment_id
            names = [entry_stem("bootc", version, priority) for _, priority in entries]
        return {entry.deployment_id: name for (entry, _), name in zip(entries, names, strict=True)}

    def _os_id(self) -> str:
        ids = {entry.os_id for entry in self._ours if entry.kind is EntryKind.BLS}
        return ids.pop() if len(ids) == 1 else "bootc"

    def _entry_files(self) -> list[MenuFile]:
        want: list[MenuFile] = []
        for rank, entry in enumerate(self._ours):
            if entry.kind is not EntryKind.BLS:
                continue
            if entry.artifacts is None:
                text = kept_entry_text(entry, self._file(entry), arguments_of=_arguments, options_of=_options)
            else:
                paths = [self._state.place.spell(location) for location in self._files.place(entry)]
                text = new_entry_text(entry, paths, options_of=_options)
            data = edit_entry(text, {"sort-key": sort_key(self._os_id(), rank)})
            location = self._state.place.entries.directory / f"{self._stems[entry.deployment_id]}.conf"
            want.append(MenuFile(location=location, deployment_id=entry.deployment_id, data=data))
        return want

    def _file(self, entry: BootEntry) -> EntryFile | None:
        return next(
            (file for file in self._state.files if file.ours and file.deployment_id == entry.deployment_id), None
        )

    def _scripts(self, want: Sequence[MenuFile], added: BootEntry | None = None) -> dict[str, str]:
        """Return what scripts are to say. *added* is an entry that is on the target and not wanted any more."""
        user = self._user_cfg(added)
        scripts = {} if user is None else {"user.cfg": user}
        return scripts | {"grub.cfg": self._grub_cfg(want, user, added)}

    # --- unified kernel images ----------------------------------------------------------------

    def _user_cfg(self, added: BootEntry | None) -> str | None:
        """Return what user.cfg is to be, None if it is not needed. What is not ours in it stays as it is."""
        old = self._state.texts.get("user.cfg", "")
        rest, at = old, None
        for command, _ in reversed(list(uki_entries(old))):
            at = command.start
            rest = rest[: command.start] + rest[command.end :].removeprefix("\n")
        shown = [] if self._interleaved else [*self._ours, *([added] if added else [])]
        entries = "".join(self._uki_text(entry) for entry in shown if entry.kind is EntryKind.UKI and not entry.foreign)
        if not entries:
            return rest if rest.strip() and rest.strip() != config.USER_CFG_HEAD.strip() else None
        if "efiuuid.cfg" not in rest:
            rest, at = rest + config.USER_CFG_HEAD, None
        at = len(rest) if at is None else at
        return rest[:at] + entries + rest[at:]

    def _uki_text(self, entry: BootEntry) -> str:
        if entry.artifacts is None:
            if entry.deployment_id not in self._known_ukis:
                raise unknown_entry(entry.deployment_id)
            refuse_added_arguments(entry)
            return self._known_ukis[entry.deployment_id][1]
        refuse_added_arguments(entry)
        self._files.place(entry)
        return config.uki_entry(entry.title, entry.deployment_id)

    def _efiuuid(self) -> list[Action]:
        if not any(entry.kind is EntryKind.UKI for entry in self._ours):
            return []
        text = config.efiuuid_cfg(filesystem_uuid(self._state.target, Volume.ESP))
        old = read_file(self._state.target, self._state.place.grub / "efiuuid.cfg")
        return self._write_script("efiuuid.cfg", None if old is None else old.decode("utf-8", "surrogateescape"), text)

    # --- grub.cfg and its environment block ---------------------------------------------------

    def _grub_cfg(self, want: Sequence[MenuFile], user: str | None, added: BootEntry | None) -> str:
        """Return what grub.cfg is to be: somebody else's stays as it is."""
        state, wanted = self._state, self._wanted
        if state.foreign:
            return state.texts["grub.cfg"]
        timeout = state.menu().timeout_seconds if wanted.timeout_seconds is None else wanted.timeout_seconds
        return config.grub_cfg(
            choices=[self._counted(entry) for entry in self._ours],
            entries=self._script_entries(want, added) if self._scripted else None,
            entries_path=state.place.spell(state.place.entries.directory),
            prefix=state.place.prefix,
            sorting=self._sorting,
            has_user=user is not None,
            user_first=self._ukis_first(),
            timeout=timeout,
            most_tries=max((entry.tries_left or 0 for entry in self._ours), default=0),
        )

    def _ukis_first(self) -> bool:
        if self._state.foreign:
            text = self._state.texts["grub.cfg"]
            return text.find("user.cfg") < text.find("blscfg")
        return bool(self._ours) and self._ours[0].kind is EntryKind.UKI and not self._interleaved

    def _listed(self) -> list[BootEntry | EntryFile]:
        """Return what a script of ours writes out: the wanted order, then what of others is not wanted, but stays."""
        others = {f"{entry_stem_of(file)}.conf": file for file in self._foreign_files()}
        listed: list[BootEntry | EntryFile] = []
        for entry in self._wanted.entries:
            if entry.foreign:
                file = others.pop(entry.deployment_id, None)
                listed += [] if file is None else [file]
            elif entry.kind is EntryKind.BLS or self._interleaved:
                listed.append(entry)
        return [*listed, *others.values()]

    def _foreign_files(self) -> list[EntryFile]:
        return [file for file in self._state.files if not file.ours and file.fields.first("linux")]

    def _script_entries(self, want: Sequence[MenuFile], added: BootEntry | None) -> list[ScriptEntry | str]:
        fields = {file.deployment_id: file.fields for file in self._state.files if file.ours}
        fields |= {file.deployment_id: parse_entry(file.data) for file in want}
        written: list[ScriptEntry | str] = []
        for entry in [*self._listed(), *([added] if added and not added.foreign else [])]:
            if isinstance(entry, EntryFile):
                written.append(foreign.script_entry(entry))
            elif entry.kind is EntryKind.BLS:
                written.append(self._script_entry(entry, fields[entry.deployment_id]))
            elif self._interleaved:
                written.append(self._uki_text(entry))
        return written

    def _script_entry(self, entry: BootEntry, fields: Fields) -> ScriptEntry:
        """Turn an entry file of ours into a menu entry of our script."""
        linux, initrds = fields.first("linux") or "", foreign.initrds(fields)
        title, name = fields.first("title") or entry.title, guard_stem(entry.deployment_id)
        start = self._kernels.start(entry, linux, initrds) if Firmware.UEFI in self._firmware else None
        uuid, efi = start or ("", ())
        if efi and Firmware.BIOS not in self._firmware:
            return ScriptEntry(id=name, title=title, linux="", words=(), initrds=(), efi=efi, efi_uuid=uuid)
        words = tuple(map(quote, linux_words(entry.arguments)))
        paths = tuple(map(quote, initrds))
        return ScriptEntry(id=name, title=title, linux=linux, words=words, initrds=paths, efi=efi, efi_uuid=uuid)

    def _shown(self) -> list[str]:
        """Return what the menu will call its entries, in the order in which they will be shown."""
        if self._scripted or self._sorting is None:
            names = [
                entry_stem_of(entry) if isinstance(entry, EntryFile) else self._id(entry) for entry in self._listed()
            ]
        else:
            names = best_first([*self._stems.values(), *map(entry_stem_of, self._foreign_files())], self._sorting)
        if self._interleaved:
            return names
        ukis = [self._id(entry) for entry in self._ours if entry.kind is EntryKind.UKI]
        return [*ukis, *names] if self._ukis_first() else [*names, *ukis]

    def _id(self, entry: BootEntry) -> str:
        """Return what the menu will call an entry of ours."""
        if entry.kind is EntryKind.BLS:
            return guard_stem(entry.deployment_id) if self._scripted else self._stems[entry.deployment_id]
        known = self._known_ukis.get(entry.deployment_id) if entry.artifacts is None else None
        return known[0] if known else uki_title(entry.title, entry.deployment_id)

    def _counted(self, entry: BootEntry) -> Counted:
        variable = tries_variable(entry.deployment_id) if entry.tries_left is not None else None
        return Counted(id=self._id(entry), variable=variable)

    # --- environment block ------------------------------------------------------------------------

    def _environment(self) -> dict[str, str | None]:
        """Return the variables that change."""
        wanted, shown = self._wanted, self._shown()
        counted = any(entry.tries_left is not None for entry in self._ours)
        automatic = self._id(self._ours[0]) if counted else next(iter(shown), None)
        if self._state.foreign:
            automatic = foreign.automatic(self._state, shown, list(map(self._id, self._ours)))
        changes: dict[str, str | None] = {"saved_entry": None, "next_entry": None}
        if wanted.entries:
            goal = self._called(wanted.default or wanted.entries[0].deployment_id, shown)
            changes["saved_entry"] = goal if goal != automatic else None
        if wanted.once is not None:
            changes["next_entry"] = self._called(wanted.once, shown)
        for name in self._state.environment:
            if name.startswith("cfs_tries_"):
                changes[name] = None
        for entry in self._ours:
            if entry.tries_left is not None:
                changes[tries_variable(entry.deployment_id)] = str(entry.tries_left)
            if entry.tries_left == 0 and entry.deployment_id == wanted.default:
                message = f"{entry.title} is to be the default, and has no tries left"
                raise BootError(message, hint="give it new tries, or stop counting them")
        needs_writing = changes["next_entry"] is not None or counted
        if needs_writing and self._filesystem in _UNWRITABLE:
            message = f"GRUB cannot write its environment block on {self._filesystem}, so it cannot count or boot once"
            raise BootError(message, hint="put /boot on a volume of its own with ext4")
        old = self._state.environment
        return {name: value for name, value in changes.items() if (old.get(name) or None) != value}

    def _called(self, identity: str, shown: list[str]) -> str:
        """Return what the menu will call the entry of that deployment, or that entry of others."""
        names = {choice.entry.deployment_id: choice.path for choice in self._state.choices() if choice.entry}
        names = {name: path for name, path in names.items() if path not in shown}
        names |= {f"{entry_stem_of(file)}.conf": entry_stem_of(file) for file in self._foreign_files()}
        names |= {entry.deployment_id: self._id(entry) for entry in self._ours}
        if identity not in names:
            raise unknown_entry(identity)
        return names[identity]

    def _block(self) -> bytes | None:
        return read_file(self._state.target, self._state.place.grub / "grubenv")

    def _grubenv(self, old: bytes | None, new: bytes) -> list[Action]:
        location, why = self._state.place.grub / "grubenv", "default, next boot and tries of the menu"
        return [] if old == new else [WriteFile(location=location, data=new, why=why, volatile=True, in_place=True)]

    def _write_scripts(self, old: Mapping[str, str], new: Mapping[str, str]) -> list[Action]:
        """Make scripts that say *old* say *new*."""
        names = ["user.cfg", "grub.cfg"]
        if self._interleaved:
            names.reverse()  # grub.cfg takes entries over from user.cfg
        return [action for name in names for action in self._write_script(name, old.get(name), new.get(name))]

    def _write_script(self, name: str, old: str | None, new: str | None) -> list[Action]:
        location, why = self._state.place.grub / name, _REASONS[name]
        if old == new:
            return []
        if new is None:
            return [RemovePath(location=location, why="it has no entries any more")]
        data = new.encode("utf-8", "surrogateescape")
        return [WriteFile(location=location, data=data, why=why)]


def _arguments(file: EntryFile) -> tuple[str, ...]:
    return split_arguments(file.fields.first("options") or "")  # GRUB takes the first line only


def _options(entry: BootEntry) -> str:
    return join_arguments(entry.arguments)
