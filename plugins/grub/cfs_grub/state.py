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
from cfs_grub.script import Command, assigned, executed, find_commands, menu_entries, parse_script
from cfs_grub.words import kernel_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_SOURCES = ("user.cfg", "custom.cfg")


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuItem:
    """An entry GRUB shows: what ``default`` may call it, and what it is. Submenus have items instead of an entry."""

    id: str
    title: str
    entry: BootEntry | None = None
    path: str = ""
    """How ``default`` names it: its id, after those of the submenus it is in (``advanced>old``)."""

    inner: tuple[MenuItem, ...] = ()


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

    def commands(self, name: str = "grub.cfg") -> tuple[Command, ...]:
        """Return what a script does, in order."""
        return tuple(executed(parse_script(self.texts.get(name, ""))))

    @property
    def reads_entries(self) -> bool:
        """Whether grub.cfg has GRUB read entry files."""
        return any(command.name == "blscfg" for command in self.commands())

    def obeys(self, variable: str) -> bool:
        """Return whether grub.cfg takes the default from *variable* of the environment block."""
        return bool({f"${variable}", f"${{{variable}}}"} & set(assigned(self.commands(), "default")))

    @property
    def fixed_default(self) -> str | None:
        """What somebody else's grub.cfg starts where no variable says otherwise."""
        return [value for value in (None, *assigned(self.commands(), "default")) if value is None or "$" not in value][
            -1
        ]

    @property
    def sorting(self) -> Sorting | None:
        """How the GRUB that is installed sorts entry files, None where it cannot read them."""
        text = marked(self.texts.get("grub.cfg", ""), BLS_MARK)
        if text in list(Sorting):
            return Sorting(text)
        return Sorting.RPM if self.reads_entries else None

    def sorted_files(self, sorting: Sorting) -> list[EntryFile]:
        """Return entry files as GRUB shows them: those with a kernel."""
        by_stem = {entry_stem_of(file): file for file in self.files if file.fields and _has_kernel(file)}
        return [by_stem[stem] for stem in best_first(by_stem, sorting)]

    def top(self) -> list[MenuItem]:
        """Return what GRUB shows first, in its order."""
        return list(self._of(self.commands(), depth=0, path=""))

    def choices(self) -> list[MenuItem]:
        """Return what GRUB shows, in its order, with what is in submenus."""
        return list(_leaves(self.top()))

    def _of(self, commands: Iterable[Command], depth: int, path: str) -> Iterator[MenuItem]:
        for command in commands:
            if command.name == "menuentry":
                found = self.choice(command)
                yield replace(found, path=path + found.id)
            elif command.name == "submenu":
                title, identity = _names(command)
                name = path + identity
                inner = tuple(self._of(executed(command.body), depth, f"{name}>"))
                yield MenuItem(id=identity, title=title, path=name, inner=inner)
            elif command.name == "blscfg" and self.sorting:
                for file in self.sorted_files(self.sorting):
                    stem = entry_stem_of(file)
                    options = split_arguments(file.fields.first("options") or "")  # GRUB takes the first line only
                    tries = self.tries(file.identity)
                    entry = replace(file.entry(), name=stem, arguments=options, tries_left=tries)
                    yield MenuItem(id=stem, title=entry.title, entry=entry, path=path + stem)
            elif command.name in {"source", ".", "configfile"} and not depth:
                name = command.arguments[0].rpartition("/")[2] if command.arguments else ""
                if name in _SOURCES:
                    yield from self._of(self.commands(name), depth + 1, path)

    def tries(self, deployment_id: str) -> int | None:
        """Return how many tries a deployment has left."""
        variable = tries_variable(deployment_id)
        counted = variable in self.texts.get("grub.cfg", "")
        return _number(self.environment.get(variable, "")) if counted else None

    def choice(self, command: Command) -> MenuItem:
        """Return a menu entry of a script."""
        title, identity = _names(command)
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
        return MenuItem(id=identity, title=title, entry=entry)

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
            same = entry_stem_of(file) == identity if own is None else file.ours and file.deployment_id == own
            if same and kernel_view(known.arguments) == kernel_view(arguments):
                return replace(known, name=identity, files=files, tries_left=entry.tries_left)
        return entry

    def menu(self) -> BootMenu:
        """Return the menu, and what GRUB will start of it."""
        top = self.top()
        choices = list(_leaves(top))
        entries = [choice.entry for choice in choices if choice.entry is not None]
        saved, once = (self.environment.get(f"{name}_entry") for name in ("saved", "next"))
        if self.foreign:
            saved = (saved if self.obeys("saved_entry") else None) or self.fixed_default
            once = once if self.obeys("next_entry") else None
        default = named(top, saved)
        if not self.foreign and (default is None or default.tries_left == 0):
            counted = any(entry.tries_left is not None for entry in entries)
            left = (entry for entry in entries if not entry.foreign and entry.tries_left != 0)
            default = next(left, None) if counted else None
        chosen = named(top, once)
        unique: dict[tuple[bool, str], BootEntry] = {}
        for entry in entries:
            unique.setdefault((entry.foreign, entry.deployment_id), entry)
        timeout = re.search(r"^\s*set timeout=([0-9]+)", self.texts.get("grub.cfg", ""), re.MULTILINE)
        return BootMenu(
            entries=tuple(unique.values()),
            default=default.deployment_id if default is not None and default is not entries[0] else None,
            once=chosen.deployment_id if chosen else None,
            timeout_seconds=int(timeout[1]) if timeout else None,
        )

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


def named(choices: Sequence[MenuItem], name: str | None) -> BootEntry | None:
    """Return what ``default=NAME`` means: a number, an id, a title; ``A>B`` is B in submenu A."""
    if not name:
        return None
    found, rest = _find(choices, name), "0"
    if found is None:
        outer, _, rest = name.partition(">")
        found = _find(choices, outer)
    if found is None or not found.inner:
        return found.entry if found else None
    return named(found.inner, rest)


def _find(choices: Sequence[MenuItem], name: str) -> MenuItem | None:
    number = _number(name)
    if number is not None and number < len(choices):
        return choices[number]
    return next((choice for choice in choices if name in {choice.id, choice.title}), None)


def tries_variable(deployment_id: str) -> str:
    """Return the variable of the environment block that counts a deployment's tries."""
    # All variables share one small block (`environment.SIZE`), and 64 bits tell the deployments of one machine apart.
    return f"cfs_tries_{re.sub(r'[^A-Za-z0-9]', '_', deployment_id)[:16]}"


def uki_entries(script: str) -> Iterator[tuple[Command, str]]:
    """Yield the menu entries of UKIs of ours, and whose they are."""
    for command in menu_entries(parse_script(script)):
        chain = next(find_commands(command.body, "chainloader"), None)
        deployment = uki_deployment(chain.arguments[0]) if chain and chain.arguments else None
        if deployment is not None:
            yield command, deployment


def _leaves(choices: Iterable[MenuItem]) -> Iterator[MenuItem]:
    for choice in choices:
        if choice.entry is not None:
            yield choice
        yield from _leaves(choice.inner)


def _names(command: Command) -> tuple[str, str]:
    """Return title and id of a menu entry."""
    title = command.arguments[0] if command.arguments else ""
    return title, command.option("--id") or command.option("$menuentry_id_option") or title


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def entry_stem_of(file: EntryFile) -> str:
    """Return what GRUBs that read entry files call an entry."""
    return str(file.name).removesuffix(".conf")


def _has_kernel(file: EntryFile) -> bool:
    return any(key == "linux" for key, _ in file.fields)


def _on_root(path: str) -> str:
    """Return *path* without the device GRUB may have before it: ``($root)/vmlinuz``."""
    return re.sub(r"^\([^)]*\)", "", path)
