"""Planning GRUB's menu: boot files, entry files, user.cfg, environment block, grub.cfg."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.bls import (
    BootFiles,
    EntryFile,
    Fields,
    Files,
    edit_entry,
    entry_stem,
    every,
    first,
    format_entry,
    join_arguments,
    parse_entry,
    plan_entries,
    priorities,
    read_file,
    sort_key,
    split_arguments,
    uki_deployment,
)
from cfs_core.plugin import (
    Action,
    BootEntry,
    BootError,
    BootMenu,
    Effect,
    EntryKind,
    Firmware,
    Location,
    RemovePath,
    Volume,
    WriteFile,
)
from cfs_grub import config, environment
from cfs_grub.chain import ESP_KERNELS, EfiKernels
from cfs_grub.config import Counted, ScriptEntry, uki_title
from cfs_grub.order import Sorting, best_first
from cfs_grub.place import ESP_UKIS, filesystem_uuid
from cfs_grub.script import find_commands, menu_entries, parse_script
from cfs_grub.state import State, tries_variable
from cfs_grub.words import is_plain, linux_words, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.plugin import BootFacts

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
        self._files = BootFiles(state.target, state.place.directory, ESP_UKIS)
        self._stems = self._choose_stems()

    def actions(self) -> Sequence[Action]:
        """Return files first, then entries, then what makes them the menu, and removals last.

        Raises:
            BootError: the menu cannot be expressed.
        """
        state = self._state
        want = self._entry_files()
        user = self._user_cfg()
        have = {file.location: (file.deployment_id or "", file.data) for file in state.files if file.ours}
        writes, removals = plan_entries(have, want)
        grub_cfg, env = self._grub_cfg(want, user)
        actions = [*self._files.actions, *self._kernels.actions, *self._efiuuid(user), *writes]
        actions += self._write("user.cfg", user, "entries for unified kernel images") if user else []
        actions += [*self._grubenv(env), *self._write("grub.cfg", grub_cfg, "the menu"), *removals]
        if user is None and "user.cfg" in state.texts:
            actions.append(RemovePath(location=state.place.grub / "user.cfg", why="it has no entries any more"))
        texts = [data for _, data in want.values()] + state.other_texts()
        texts += [(text or "").encode("utf-8", "surrogateescape") for text in (user, grub_cfg)]
        on_esp = BootFiles(state.target, ESP_KERNELS, ESP_UKIS).removals(texts)
        return [*actions, *dict.fromkeys([*self._files.removals(texts), *on_esp])]

    # --- entry files --------------------------------------------------------------------------

    def _choose_stems(self) -> dict[str, str]:
        """Return names of entry files by deployment, such that a GRUB that sorts them shows the wanted order."""
        ranked = list(zip(self._ours, priorities(len(self._ours)), strict=True))
        entries = [(entry, priority) for entry, priority in ranked if entry.kind is EntryKind.BLS]
        if not entries:
            return {}
        os_id = self._os_id()
        names = [entry_stem(os_id, entry.version or entry.deployment_id, priority) for entry, priority in entries]
        if any(best_first(names, sorting) != names for sorting in Sorting):
            # GRUB looks at versions before priorities: then all get the same.
            version = entries[0][0].version or entries[0][0].deployment_id
            names = [entry_stem("bootc", version, priority) for _, priority in entries]
        return {entry.deployment_id: name for (entry, _), name in zip(entries, names, strict=True)}

    def _os_id(self) -> str:
        ids = {entry.os_id for entry in self._ours if entry.kind is EntryKind.BLS}
        return ids.pop() if len(ids) == 1 else "bootc"

    def _entry_files(self) -> Files:
        want: Files = {}
        for rank, entry in enumerate(self._ours):
            if entry.kind is not EntryKind.BLS:
                continue
            text = self._new_text(entry) if entry.artifacts is not None else self._kept_text(entry)
            data = edit_entry(text, {"sort-key": sort_key(self._os_id(), rank)})
            location = self._state.place.entries.directory / f"{self._stems[entry.deployment_id]}.conf"
            want[location] = (entry.deployment_id, data)
        return want

    def _new_text(self, entry: BootEntry) -> bytes:
        paths = [self._state.place.spell(location) for location in self._files.place(entry)]
        fields = [("title", entry.title), ("version", entry.version or entry.deployment_id), ("linux", paths[0])]
        fields += [("initrd", path) for path in paths[1:]]
        fields.append(("options", join_arguments(entry.arguments)))
        if entry.machine_id:
            fields.append(("machine-id", entry.machine_id))
        return format_entry(fields)

    def _kept_text(self, entry: BootEntry) -> bytes:
        files = [file for file in self._state.files if file.ours and file.deployment_id == entry.deployment_id]
        if not files:
            raise _unknown(entry.deployment_id)
        data = files[0].data
        old = split_arguments(" ".join(every(files[0].fields, "options")))
        return data if entry.arguments == old else edit_entry(data, {"options": join_arguments(entry.arguments)})

    # --- unified kernel images ----------------------------------------------------------------

    def _user_cfg(self) -> str | None:
        """Return what user.cfg is to be, None if it is not needed. What is not ours in it stays as it is."""
        old = self._state.texts.get("user.cfg", "")
        known: dict[str, str] = {}
        rest, at = old, None
        for command in reversed(list(menu_entries(parse_script(old)))):
            chain = next(find_commands(command.body, "chainloader"), None)
            deployment = uki_deployment(chain.arguments[0]) if chain and chain.arguments else None
            if deployment is not None:
                known[deployment] = old[command.start : command.end] + "\n"
                at = command.start
                rest = rest[: command.start] + rest[command.end :].removeprefix("\n")
        entries = "".join(self._uki_text(entry, known) for entry in self._ours if entry.kind is EntryKind.UKI)
        if not entries:
            return rest if rest.strip() and rest.strip() != config.USER_CFG_HEAD.strip() else None
        if "efiuuid.cfg" not in rest:
            rest, at = rest + config.USER_CFG_HEAD, None
        at = len(rest) if at is None else at
        return rest[:at] + entries + rest[at:]

    def _uki_text(self, entry: BootEntry, known: dict[str, str]) -> str:
        if entry.artifacts is None:
            if entry.deployment_id not in known:
                raise _unknown(entry.deployment_id)
            return known[entry.deployment_id]
        extra = [text for text in entry.arguments if text not in entry.artifacts.sealed_arguments]
        if extra:
            message = f"a unified kernel image carries its own command line: {extra[0]!r} cannot be added to it"
            raise BootError(message, hint="build it into the image, or add it with a UKI addon", arguments=extra)
        self._files.place(entry)
        return config.uki_entry(entry.title, entry.deployment_id)

    def _efiuuid(self, user: str | None) -> list[Action]:
        if user is None or not any(entry.kind is EntryKind.UKI for entry in self._ours):
            return []
        text = config.efiuuid_cfg(filesystem_uuid(self._state.target, Volume.ESP))
        return self._write("efiuuid.cfg", text, "tells GRUB the EFI system partition")

    # --- grub.cfg and its environment block ---------------------------------------------------

    def _grub_cfg(self, want: Files, user: str | None) -> tuple[str | None, dict[str, str | None]]:
        """Return grub.cfg (None: somebody else's stays) and changes of the environment block."""
        state, wanted = self._state, self._wanted
        scripted = self._sorting is None or not all(is_plain(entry.arguments) for entry in self._ours)
        foreign = [file for file in state.files if not file.ours and first(file.fields, "linux")]
        texts = {_stem(location): parse_entry(data) for location, (_, data) in want.items()}
        texts |= {_name(file): file.fields for file in foreign}
        stems = [self._stems[e.deployment_id] for e in self._ours if e.deployment_id in self._stems]
        stems = self._order(stems, [_name(file) for file in foreign], scripted=scripted)
        ukis = [uki_title(*label) for entry in self._ours if (label := self._label(entry, user))]
        ukis_first = bool(self._ours) and self._ours[0].kind is EntryKind.UKI
        if state.foreign:
            ukis_first = state.texts["grub.cfg"].find("user.cfg") < state.texts["grub.cfg"].find("blscfg")
        shown = [*ukis, *stems] if ukis_first else [*stems, *ukis]
        choices = [self._counted(entry, user) for entry in self._ours]
        env = self._environment(shown, choices, user)
        if state.foreign:
            self._check_foreign(scripted=scripted, ukis=bool(ukis), env=env)
            return None, env
        entries = [self._script_entry(stem, texts[stem]) for stem in stems] if scripted else None
        text = config.grub_cfg(
            choices=choices,
            entries=entries,
            entries_path=state.place.spell(state.place.entries.directory),
            prefix=state.place.prefix,
            sorting=self._sorting,
            has_ukis=user is not None,
            ukis_first=ukis_first,
            timeout=state.menu().timeout_seconds if wanted.timeout_seconds is None else wanted.timeout_seconds,
            most_tries=max((entry.tries_left or 0 for entry in self._ours), default=0),
        )
        return text, env

    def _script_entry(self, stem: str, fields: Fields) -> ScriptEntry:
        """Turn an entry file into a menu entry of our script."""
        linux = first(fields, "linux") or ""
        initrds = tuple(path for value in every(fields, "initrd") for path in value.split())
        title = first(fields, "title") or stem
        entry = next((e for e in self._ours if self._stems.get(e.deployment_id) == stem), None)
        if entry is None:
            words = map(_foreign_word, split_arguments(" ".join(every(fields, "options"))))
            paths = tuple(map(_foreign_word, initrds))
            return ScriptEntry(id=stem, title=title, linux=linux, words=tuple(words), initrds=paths)
        start = self._kernels.start(entry, linux, initrds) if Firmware.UEFI in self._firmware else None
        uuid, efi = start or ("", ())
        if efi and Firmware.BIOS not in self._firmware:
            return ScriptEntry(id=stem, title=title, linux="", words=(), initrds=(), efi=efi, efi_uuid=uuid)
        words = map(quote, linux_words(entry.arguments))
        paths = tuple(map(quote, initrds))
        return ScriptEntry(id=stem, title=title, linux=linux, words=tuple(words), initrds=paths, efi=efi, efi_uuid=uuid)

    def _order(self, ours: list[str], foreign: list[str], *, scripted: bool) -> list[str]:
        """Return names of entries in the order in which they will be shown."""
        if not scripted and self._sorting is not None:
            return best_first([*ours, *foreign], self._sorting)
        asked = [entry.deployment_id.removesuffix(".conf") for entry in self._wanted.entries if entry.foreign]
        rest = [name for name in foreign if name not in asked]
        ordered: list[str] = []
        for entry in self._wanted.entries:
            name = self._stems.get(entry.deployment_id, entry.deployment_id.removesuffix(".conf"))
            if name in ours or name in foreign:
                ordered.append(name)
        return [*ordered, *rest]

    def _label(self, entry: BootEntry, user: str | None) -> tuple[str, str] | None:
        """Return label and id of a UKI's menu entry as user.cfg has it."""
        if entry.kind is not EntryKind.UKI or user is None:
            return None
        match = re.search(rf'"([^"\n]*): \({re.escape(entry.deployment_id)}\)"', user)
        return (match[1] if match else entry.title, entry.deployment_id)

    def _id(self, entry: BootEntry, user: str | None) -> str:
        label = self._label(entry, user)
        return uki_title(*label) if label else self._stems.get(entry.deployment_id, entry.deployment_id)

    def _counted(self, entry: BootEntry, user: str | None) -> Counted:
        variable = tries_variable(entry.deployment_id) if entry.tries_left is not None else None
        return Counted(id=self._id(entry, user), variable=variable)

    def _environment(self, shown: list[str], choices: list[Counted], user: str | None) -> dict[str, str | None]:
        wanted = self._wanted
        ids = {entry.deployment_id: self._id(entry, user) for entry in self._ours}
        counted = any(choice.variable for choice in choices)
        automatic = choices[0].id if counted else next(iter(shown), None)
        if self._state.foreign and self._leads():
            automatic = None
        changes: dict[str, str | None] = {"saved_entry": None, "next_entry": None}
        if wanted.entries:
            goal = wanted.default or wanted.entries[0].deployment_id
            goal_id = ids.get(goal, goal.removesuffix(".conf"))
            if goal_id != automatic:
                changes["saved_entry"] = self._existing(goal_id, shown)
        if wanted.once is not None:
            changes["next_entry"] = self._existing(ids.get(wanted.once, wanted.once.removesuffix(".conf")), shown)
        for name in self._state.environment:
            if name.startswith("cfs_tries_"):
                changes[name] = None
        for entry in self._ours:
            if entry.tries_left is not None:
                changes[tries_variable(entry.deployment_id)] = str(entry.tries_left)
        needs_writing = changes["next_entry"] is not None or counted
        if needs_writing and self._filesystem in _UNWRITABLE:
            message = f"GRUB cannot write its environment block on {self._filesystem}, so it cannot count or boot once"
            raise BootError(message, hint="put /boot on a volume of its own with ext4")
        old = self._state.environment
        return {name: value for name, value in changes.items() if (old.get(name) or None) != value}

    def _leads(self) -> bool:
        """Return whether a menu entry that stands in somebody else's script comes before ours."""
        first_shown = next(iter(self._state.choices()), None)
        files = {_name(file) for file in self._state.files}
        return first_shown is not None and first_shown.entry.foreign and first_shown.id not in files

    def _existing(self, identity: str, shown: list[str]) -> str:
        known = {*shown, *(choice.id for choice in self._state.choices() if choice.entry.foreign)}
        if identity not in known:
            raise _unknown(identity)
        return identity

    def _check_foreign(self, *, scripted: bool, ukis: bool, env: dict[str, str | None]) -> None:
        """Refuse what somebody else's grub.cfg will not show or obey."""
        text = self._state.texts["grub.cfg"]
        problem = None
        if any(entry.kind is EntryKind.BLS for entry in self._ours) and (scripted or not self._state.reads_entries):
            problem = "does not read boot loader entries, or not with these kernel arguments"
        elif ukis and "user.cfg" not in text:
            problem = "does not read user.cfg"
        elif any(entry.tries_left is not None for entry in self._ours):
            problem = "does not count tries"
        elif env.get("saved_entry") and "saved_entry" not in text:
            problem = "does not obey saved_entry"
        elif env.get("next_entry") and "next_entry" not in text:
            problem = "does not obey next_entry"
        if problem:
            message = f"{self._state.place.grub / 'grub.cfg'} was written by another program and {problem}"
            raise BootError(message, hint="move it away to let cfs write its own")

    def _grubenv(self, changes: dict[str, str | None]) -> list[Action]:
        old = read_file(self._state.target, self._state.place.grub / "grubenv")
        if old is not None and not changes:
            return []
        data = environment.edit(old, changes)
        effect = Effect.ADD if old is None else Effect.REPLACE
        location = self._state.place.grub / "grubenv"
        return [
            WriteFile(
                location=location,
                data=data,
                why="default, next boot and tries of the menu",
                effect=effect,
                volatile=True,
            )
        ]

    def _write(self, name: str, text: str | None, why: str) -> list[Action]:
        location = self._state.place.grub / name
        old = read_file(self._state.target, location)
        data = (text or "").encode("utf-8", "surrogateescape")
        if text is None or data == old:
            return []
        effect = Effect.ADD if old is None else Effect.REPLACE
        return [WriteFile(location=location, data=data, why=why, effect=effect)]


def _stem(location: Location) -> str:
    return location.path.rpartition("/")[2].removesuffix(".conf")


def _name(file: EntryFile) -> str:
    return str(file.name).removesuffix(".conf")


def _foreign_word(argument: str) -> str:
    """Spell an argument of somebody else's entry: variables (``$kernelopts``) are GRUB's to fill in."""
    try:
        (argument,) = linux_words((argument,))
    except BootError:
        argument = argument.replace('"', "")
    parts = re.split(r"(\$[A-Za-z_][A-Za-z0-9_]*)", argument)
    return "".join(f"${{{part[1:]}}}" if part.startswith("$") else quote(part) for part in parts if part)


def _unknown(identity: str) -> BootError:
    message = f"the menu has no entry for {identity[:64]!r}"
    return BootError(message, hint="run `cfs status` to see which deployments can be started")
