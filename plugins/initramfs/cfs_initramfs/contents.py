"""What matters of an initramfs: its programs, modules, early-boot code, and the lists of its hooks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from cfs_initramfs.cpio import read_initramfs
from cfs_initramfs.handlers import CFS, HANDLERS
from cfs_initramfs.programs import Programs

if TYPE_CHECKING:
    from typing import BinaryIO

    from cfs_initramfs.cpio import CpioFile

CONFIG = "usr/lib/composefs/setup-root-conf.toml"
MODULE_PATH = re.compile(r"(?:usr/)?lib/modules/([^/]+)/(.*\.ko)(?:\.(?:xz|zst|gz))?")
ADDED_MODULE = re.compile(r"usr/lib/cfs/modules/([^/]+)\.ko")
ORDERS = ("scripts/init-top/ORDER", "scripts/local-bottom/ORDER")
MKINITCPIO_CONFIG = "config"
KEPT = frozenset({*ORDERS, MKINITCPIO_CONFIG})
"""Files whose content must be known, because they are written again with one more line."""


@dataclass(slots=True)
class Contents:
    """What matters of an initramfs. ``modules`` are (kernel version, path below it), without compression suffixes.

    ``added`` are the names of modules that our early boot loads by itself, ``kept`` files that it writes again.
    """

    handlers: dict[str, bytes] = field(default_factory=dict)
    hooks: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    modules: set[tuple[str, str]] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    kept: dict[str, bytes] = field(default_factory=dict)
    config: bytes | None = None
    programs: Programs = field(default_factory=Programs)
    compressions: set[str] = field(default_factory=set)


def read_contents(*files: BinaryIO) -> Contents:
    """Read the initramfs that is unpacked from *files*, one over the other.

    Raises:
        ImageError: it is damaged, beyond a limit, or cannot be read here.
    """
    contents = Contents()
    for entry in chain.from_iterable(read_initramfs(file, _is_kept) for file in files):
        contents.programs.add(entry)
        if entry.compression is not None:
            contents.compressions.add(entry.compression)
        module, added = MODULE_PATH.fullmatch(entry.name), ADDED_MODULE.fullmatch(entry.name)
        if module:
            contents.modules.add((module.group(1), module.group(2)))
            contents.versions.add(module.group(1))
        elif added:
            contents.added.add(added.group(1))
        elif entry.name == CONFIG:
            contents.config = entry.data
        elif entry.name in KEPT:
            contents.kept[entry.name] = entry.data or b""
        else:
            _note_handlers(entry, contents)
    return contents


def _note_handlers(entry: CpioFile, contents: Contents) -> None:
    for handler in HANDLERS:
        if handler.program.fullmatch(entry.name):
            contents.handlers[handler.name] = entry.data or b""
        elif any(hook.fullmatch(entry.name) for hook in handler.hooks):
            contents.hooks.add(handler.name)


def _is_kept(name: str) -> bool:
    return name == CONFIG or name in KEPT or CFS.program.fullmatch(name) is not None
