"""From the labels there are to those that are wanted: boot files, one extlinux.conf, removals."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from cfs_core.bls import BootFiles, argument_deployment, join_arguments, read_file, split_arguments, unknown_entry
from cfs_core.plugin import (
    BootEntry,
    BootError,
    BootMenu,
    CopyObject,
    Digest,
    EntryKind,
    Location,
    Volume,
    WriteFile,
    read_all,
)
from cfs_extlinux.config import Config, Label, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.plugin import Action, Content, TargetView

CONFIG = Location(Volume.BOOT, "/extlinux/extlinux.conf")
LINUX = Location(Volume.BOOT, "/linux")
CONFIG_LIMIT = 1 << 20
"""Bytes; a longer file is no menu."""

HEADER = b"# menu of U-Boot, written by cfs-extlinux\nmenu title Boot menu\ntimeout 50\n"
_TENTHS = 10
_PREFIX = "cfs-"
"""Starts the names of our labels."""


def read_text(target: TargetView) -> bytes:
    """Return extlinux.conf; nothing where there is none."""
    data = read_file(target, CONFIG) or b""
    return data if len(data) <= CONFIG_LIMIT else b""


def read_menu(target: TargetView) -> BootMenu:
    """Read what extlinux.conf offers; of two labels with one name, the first counts."""
    config = Config.parse(read_text(target))
    entries = {label.name: _entry(label) for label in reversed(config.labels)}
    names = list(dict.fromkeys(label.name for label in config.labels))
    default = config.default()
    timeout = config.setting("timeout")
    return BootMenu(
        entries=tuple(entries[name] for name in names),
        default=entries[default.name].deployment_id if default is not None and default.name != names[0] else None,
        timeout_seconds=int(timeout) // _TENTHS if timeout is not None and timeout.isdecimal() else None,
    )


def _entry(label: Label) -> BootEntry:
    paths = [label.get("kernel", "linux"), label.get("initrd"), label.get("fdt", "devicetree")]
    files = tuple(Location(Volume.BOOT, _path(path)) for path in paths if path)
    arguments = split_arguments(label.get("append") or "")
    deployment = argument_deployment(arguments)
    ours = deployment is not None and bool(files) and files[0].path.lower().startswith(LINUX.path + "/")
    return BootEntry(
        deployment_id=deployment if ours and deployment else label.name,
        kind=EntryKind.BLS,
        title=(label.get("menu") or "").removeprefix("label ").strip() or label.name,
        version=label.note("version") or "",
        os_id=label.note("os-id") or "",
        machine_id=label.note("machine-id"),
        arguments=arguments,
        foreign=not ours,
        files=files,
        name=label.name,
    )


def _path(path: str) -> str:
    """Return an absolute path; relative ones start at the directory of extlinux.conf."""
    return posixpath.normpath(posixpath.join("/extlinux", path))


class MenuPlan:
    """One change of the menu. ``actions`` is the result."""

    def __init__(self, target: TargetView, wanted: BootMenu, tree: Content | None) -> None:
        self._target = target
        self._wanted = wanted
        self._tree = tree
        self._text = read_text(target)
        self._old = Config.parse(self._text or HEADER)

    def actions(self) -> Sequence[Action]:
        """Return boot files first, then extlinux.conf in one step, then removals.

        Raises:
            BootError: the menu cannot be expressed.
        """
        if self._wanted.once is not None:
            message = "U-Boot's menu has no choice for the next boot only"
            raise BootError(message, hint="choose the default instead")
        files = BootFiles(self._target, LINUX, LINUX)
        actions: list[Action] = []
        ours = [self._label(entry, files, actions) for entry in self._wanted.entries if not entry.foreign]
        foreign = [label for label in self._old.labels if _entry(label).foreign]
        config = Config(self._old.head, (*ours, *foreign))
        config = self._with_timeout(self._with_default(config))
        actions = [*files.actions, *actions]
        if config.data() != self._text:
            actions.append(WriteFile(location=CONFIG, data=config.data(), why="menu of U-Boot"))
        return [*actions, *files.removals([config.data()])]

    def _label(self, entry: BootEntry, files: BootFiles, actions: list[Action]) -> Label:
        if entry.tries_left is not None or entry.kind is not EntryKind.BLS:
            what = "count attempts to boot" if entry.tries_left is not None else "start a unified kernel image"
            raise BootError(f"U-Boot's menu cannot {what}", hint="use a board with EFI, and a bootloader for it")  # noqa: EM102
        words = join_arguments(entry.arguments)
        if "${" in words or "$(" in words or not words.isascii():
            message = "U-Boot replaces ${NAME} and $(NAME) in kernel arguments, and its menu is ASCII"
            raise BootError(message, hint="write the arguments without", facts={"arguments": words})
        if entry.artifacts is None:
            return self._kept(entry, words)
        if len(entry.artifacts.initrds) > 1:
            message = f"U-Boot's menu starts a kernel with one initrd, not with {len(entry.artifacts.initrds)}"
            raise BootError(message, hint="this is a fault of the program: the plugin declares that it takes one")
        paths = [location.path for location in files.place(entry)]
        lines = [f"label {_name(entry.deployment_id)}\n", f"  menu label {plain(entry.title)}\n"]
        notes = {"version": entry.version, "os-id": entry.os_id, "machine-id": entry.machine_id or ""}
        lines += [f"  # {key}: {plain(value)}\n" for key, value in notes.items() if value]
        lines.append(f"  kernel {paths[0]}\n")
        lines += [f"  initrd {path}\n" for path in paths[1:]]
        if self._tree is not None:
            data = read_all(self._tree)
            # Beside the kernel, by content: deployments that share the kernel may want another tree.
            directory = Location(LINUX.volume, posixpath.dirname(paths[0]))
            location = directory / f"{Digest.of(data).hex[:16]}.dtb"
            if read_file(self._target, location) != data:
                actions.append(CopyObject(location=location, source=self._tree, why="device tree of the board"))
            lines.append(f"  fdt {location.path}\n")
        return Label((*lines, f"  append {words}\n"))

    def _kept(self, entry: BootEntry, words: str) -> Label:
        for label in self._old.labels:
            known = _entry(label)
            if not known.foreign and known.deployment_id == entry.deployment_id:
                return label if known.arguments == entry.arguments else label.with_append(words)
        raise unknown_entry(entry.deployment_id)

    def _with_default(self, config: Config) -> Config:
        if not self._wanted.entries:
            named = config.setting("default") or ""
            ours = named.startswith(_PREFIX) and named not in {label.name for label in config.labels}
            return config.with_setting("default", None) if ours else config
        goal = self._wanted.default or self._wanted.entries[0].deployment_id
        label = next((label for label in config.labels if _entry(label).deployment_id == goal), None)
        if label is None:
            raise unknown_entry(goal)
        if config.default() is label:
            return config
        changed = config.with_setting("default", None if label is config.labels[0] else label.name)
        if changed.default() is not label:
            message = f"two labels are called {label.name!r}"
            raise BootError(message, hint="rename one in extlinux.conf")
        return changed

    def _with_timeout(self, config: Config) -> Config:
        wanted = self._wanted.timeout_seconds
        there = config.setting("timeout")
        if wanted is None or there == str(wanted * _TENTHS):
            return config
        return config.with_setting("timeout", str(wanted * _TENTHS))


def _name(deployment_id: str) -> str:
    return f"{_PREFIX}{deployment_id[:16]}"
