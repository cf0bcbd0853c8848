"""What is on a target that GRUB's menu is made of: scripts, entry files, environment block."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cfs_core.bls import (
    FILES_PREFIX,
    EntryFile,
    Place,
    argument_deployment,
    list_names,
    read_file,
    scan_entries,
    split_arguments,
    uki_deployment,
)
from cfs_core.plugin import BootEntry, BootMenu, EntryKind, Location, TargetView, Volume
from cfs_grub import environment
from cfs_grub.config import BLS_MARK, MARK, ROOT_MARK, marked
from cfs_grub.order import Sorting, best_first
from cfs_grub.place import ESP_UKIS, BootPlace, boot_place
from cfs_grub.script import Command, find_commands, menu_entries, parse_script
from cfs_grub.words import kernel_view

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCES = ("user.cfg", "custom.cfg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An entry GRUB shows: what ``default`` may call it, and what it is."""

    id: str
    title: str
    entry: BootEntry


@dataclass(frozen=True, slots=True)
class State:
    """Everything read, nothing decided."""

    target: TargetView
    place: BootPlace
    files: tuple[EntryFile, ...]
    environment: dict[str, str]
    texts: dict[str, str] = field(repr=False)
    """Scripts in GRUB's directory by file name."""

    @classmethod
    def read(cls, target: TargetView, volumes: frozenset[Volume] = frozenset(), root_path: str | None = None) -> State:
        """Read *target*. ``root_path`` None: as our grub.cfg there says, else none."""
        place = boot_place(target, volumes, root_path or "")
        texts = {
            name: data.decode("utf-8", "surrogateescape")
            for name in ("grub.cfg", *_SOURCES)
            if (data := read_file(target, place.grub / name)) is not None
        }
        prefix = marked(texts.get("grub.cfg", ""), ROOT_MARK)
        if root_path is None and prefix:
            place = replace(place, prefix=prefix)
        places = (place.entries,) if place.directory.volume in target.volumes() else ()
        env = environment.parse(read_file(target, place.grub / "grubenv") or b"")
        return cls(target, place, scan_entries(target, places), env, texts)

    @property
    def foreign(self) -> bool:
        """Whether grub.cfg is somebody else's."""
        return "grub.cfg" in self.texts and not self.texts["grub.cfg"].startswith(MARK)

    @property
    def reads_entries(self) -> bool:
        """Whether grub.cfg has GRUB read entry files."""
        return any(find_commands(parse_script(self.texts.get("grub.cfg", "")), "blscfg"))

    @property
    def sorting(self) -> Sorting | None:
        """How the GRUB that is installed sorts entry files, None where it cannot read them."""
        text = marked(self.texts.get("grub.cfg", ""), BLS_MARK)
        if text in list(Sorting):
            return Sorting(text)
        return Sorting.RPM if self.reads_entries else None

    def sorted_files(self, sorting: Sorting) -> list[EntryFile]:
        """Return entry files as GRUB shows them: those with a kernel."""
        by_stem = {_stem(file): file for file in self.files if file.fields and _has_kernel(file)}
        return [by_stem[stem] for stem in best_first(by_stem, sorting)]

    def choices(self) -> list[Choice]:
        """Return what GRUB shows, in its order."""
        return list(self._of(parse_script(self.texts.get("grub.cfg", "")), depth=0))

    def _of(self, commands: tuple[Command, ...], depth: int) -> Iterator[Choice]:
        for command in commands:
            if command.name in {"menuentry", "submenu"}:
                yield from (self.choice(entry) for entry in menu_entries((command,)))
            elif command.name == "blscfg" and self.sorting:
                for file in self.sorted_files(self.sorting):
                    entry = replace(file.entry(), name=_stem(file), tries_left=self.tries(file.identity))
                    yield Choice(id=_stem(file), title=entry.title, entry=entry)
            elif command.name in {"source", ".", "configfile"} and not depth:
                name = command.arguments[0].rpartition("/")[2] if command.arguments else ""
                if name in _SOURCES:
                    yield from self._of(parse_script(self.texts.get(name, "")), depth + 1)

    def tries(self, deployment_id: str) -> int | None:
        """Return how many tries a deployment has left."""
        text = self.environment.get(tries_variable(deployment_id), "")
        return int(text) if text.isdecimal() else None

    def choice(self, command: Command) -> Choice:
        """Return a menu entry of a script."""
        title = command.arguments[0] if command.arguments else ""
        identity = command.option("--id") or command.option("$menuentry_id_option") or title
        linux = next((c for name in ("linux", "linuxefi", "linux16") for c in find_commands(command.body, name)), None)
        chain = next(find_commands(command.body, "chainloader"), None)
        uki = uki_deployment(chain.arguments[0]) if chain and chain.arguments else None
        if uki is not None:
            # Its arguments are sealed in it; GRUB adds none.
            entry = self._uki(uki, title)
        elif linux is not None and linux.arguments:
            path, *words = linux.arguments
            initrd = next((c for name in ("initrd", "initrdefi") for c in find_commands(command.body, name)), None)
            paths = [_on_root(p) for p in (path, *(initrd.arguments if initrd else ()))]
            entry = self._linux(tuple(map(self.place.entries.locate, paths)), tuple(words), identity, title)
        elif chain is not None and chain.arguments and chain.arguments[0].endswith("/vmlinuz"):
            path, *words = chain.arguments
            initrds = [word.removeprefix("initrd=") for word in words if word.startswith("initrd=\\")]
            files = tuple(Place(directory=ESP_UKIS).locate(path) for path in (path, *initrds))
            rest = " ".join(word for word in words if not word.startswith("initrd=\\"))
            entry = self._linux(files, split_arguments(rest), identity, title)
        else:
            entry = BootEntry(
                deployment_id=identity,
                kind=EntryKind.UKI,
                title=title,
                version="",
                os_id="",
                foreign=True,
                name=identity,
            )
        return Choice(id=identity, title=title, entry=entry)

    def _uki(self, deployment_id: str, title: str) -> BootEntry:
        label = title.removesuffix(f": ({deployment_id})")
        return BootEntry(
            deployment_id=deployment_id,
            kind=EntryKind.UKI,
            title=label,
            version="",
            os_id="bootc",
            tries_left=self.tries(deployment_id),
            files=(Location(Volume.ESP, f"/EFI/Linux/bootc/{FILES_PREFIX}{deployment_id}.efi"),),
            name=title,
        )

    def _linux(self, files: tuple[Location, ...], arguments: tuple[str, ...], identity: str, title: str) -> BootEntry:
        deployment = argument_deployment(arguments)
        own = deployment if deployment is not None and identity.startswith("bootc_") else None
        entry = BootEntry(
            deployment_id=own or identity,
            kind=EntryKind.BLS,
            title=title,
            version="",
            os_id="",
            arguments=arguments,
            tries_left=self.tries(own) if own else None,
            foreign=own is None,
            files=files,
            name=identity,
        )
        for file in self.files:
            known = file.entry()
            same = _stem(file) == identity if own is None else file.ours and file.deployment_id == own
            if same and kernel_view(known.arguments) == kernel_view(arguments):
                return replace(known, name=identity, files=files, tries_left=entry.tries_left)
        return entry

    def menu(self) -> BootMenu:
        """Return the menu, and what GRUB will start of it."""
        choices = self.choices()
        default = self._named(choices, self.environment.get("saved_entry"))
        if default is None:
            counted = any(choice.entry.tries_left is not None for choice in choices)
            left = (choice for choice in choices if not choice.entry.foreign and choice.entry.tries_left != 0)
            default = next(left, None) if counted else None
        once = self._named(choices, self.environment.get("next_entry"))
        unique: dict[tuple[bool, str], BootEntry] = {}
        for choice in choices:
            unique.setdefault((choice.entry.foreign, choice.entry.deployment_id), choice.entry)
        timeout = re.search(r"^\s*set timeout=([0-9]+)", self.texts.get("grub.cfg", ""), re.MULTILINE)
        return BootMenu(
            entries=tuple(unique.values()),
            default=default.entry.deployment_id if default is not None and default is not choices[0] else None,
            once=once.entry.deployment_id if once else None,
            timeout_seconds=int(timeout[1]) if timeout else None,
        )

    @staticmethod
    def _named(choices: list[Choice], name: str | None) -> Choice | None:
        """Return what ``default=NAME`` means: an id, a title, a number."""
        if not name:
            return None
        for choice in choices:
            if name in {choice.id, choice.title}:
                return choice
        return choices[int(name)] if name.isdecimal() and int(name) < len(choices) else None

    def other_texts(self) -> list[bytes]:
        """Return everything on the target that may name boot files and is not a part of our menu."""
        folders = [self.place.directory / "loader" / "entries.staged"]
        folders += [Location(Volume.ESP, f"/loader/{name}") for name in ("entries", "entries.staged")]
        found = [
            read_file(self.target, folder / name) for folder in folders for name in list_names(self.target, folder)
        ]
        found += [read_file(self.target, self.place.grub / name) for name in ("user.cfg.staged", "custom.cfg")]
        found += [file.data for file in self.files if not file.ours]
        if self.foreign:
            found.append(self.texts["grub.cfg"].encode("utf-8", "surrogateescape"))
        return [data for data in found if data is not None]


def tries_variable(deployment_id: str) -> str:
    """Return the variable of the environment block that counts a deployment's tries."""
    return f"cfs_tries_{re.sub(r'[^A-Za-z0-9]', '_', deployment_id)[:16]}"


def _stem(file: EntryFile) -> str:
    return str(file.name).removesuffix(".conf")


def _has_kernel(file: EntryFile) -> bool:
    return any(key == "linux" for key, _ in file.fields)


def _on_root(path: str) -> str:
    """Return *path* without the device GRUB may have before it: ``($root)/vmlinuz``."""
    return re.sub(r"^\([^)]*\)", "", path)
