"""Making a GRUB program of an image's modules: they go to the target, and the host's ``grub-mkimage`` joins them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from cfs_core.plugin import Action, BytesContent, CopyObject, RunCommand, WriteFile, read_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfs_core.plugin import CommandRunner, Content, Location, TreeReader
    from cfs_grub.locate import Modules

TOOLS = ("grub-mkimage", "grub2-mkimage")
TOOL_HINT = "install grub-common (Debian), grub2-tools (Fedora) or grub (Arch) on this host"

RECORD = "made-of"
"""Name of the file beside modules that says of what their program was made: a SHA-256 in hex, and a newline."""

REQUIRED = frozenset((
    "part_gpt", "part_msdos", "fat", "ext2", "search", "search_fs_uuid", "normal", "configfile", "linux", "loadenv",
    "test", "echo",
))  # fmt: skip
"""Modules of a program we make that we cannot do without."""

# Taken where the image has them: other filesystems for /boot, consoles, and what people type at GRUB's prompt.
_WELCOME = (
    "btrfs", "xfs", "f2fs", "regexp", "minicmd", "ls", "cat", "sleep", "halt", "reboot", "true", "terminal", "serial",
    "gzio", "zstdio", "search_label", "search_fs_file", "blsuki", "blscfg", "chain", "efifwsetup", "efi_gop",
    "all_video", "biosdisk", "probe",
)  # fmt: skip
_SUPPORT = ("kernel.img", "lzma_decompress.img", "diskboot.img", "boot.img", "moddep.lst")
_PLAIN = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_+-]*:(?:[ \t]+[A-Za-z0-9_][A-Za-z0-9_+-]*)*[ \t]*")
_FILE_LIMIT = 16 * 1024 * 1024


def find_tool(commands: CommandRunner) -> str | None:
    """Return the name of the host's grub-mkimage."""
    return next((name for name in TOOLS if commands.find(name) is not None), None)


def plan_program(
    image: TreeReader,
    modules: Modules,
    directory: Location,
    early_config: str,
    output: Location,
    tool: str,
    offset: int = 0,
) -> list[Action]:
    """Return actions that put modules into *directory* and a program that first runs *early_config* at *output*.

    *offset*: where on it, if that is a raw volume (bytes).
    """
    chosen = _closure(image, modules, [name for name in (*REQUIRED, *_WELCOME) if name in modules.names])
    actions: list[Action] = []
    for name in [*(f"{module}.mod" for module in chosen), *_SUPPORT]:
        content = _support(image, modules, name)
        if content is not None:
            actions.append(CopyObject(location=directory / name, source=content, why="part of GRUB"))
    config = directory / "early.cfg"
    actions.append(WriteFile(location=config, data=early_config.encode(), why="tells GRUB where its files are"))
    prefix = "/EFI/BOOT" if modules.target.endswith("-efi") else "/grub2"  # until early.cfg sets another
    options = ("-d", "{reads[0]}", "-O", modules.target, "-p", prefix, "-c", "{reads[1]}", "-o", "{writes[0]}")
    argv = (tool, *options, *chosen)
    why = f"makes GRUB for {modules.target} of the image's modules"
    actions.append(RunCommand(argv=argv, reads=(directory, config), writes=(output,), offset=offset, why=why))
    return actions


def record(directory: Location, made: Iterable[Action]) -> WriteFile:
    """Return what is written when a program that *made* made is in its place: the digest of what it was made of.

    Whoever finds another one there, or none, knows that the program is an older one, or that nobody finished it.
    """
    digest = hashlib.sha256()
    for action in made:
        if isinstance(action, CopyObject | WriteFile):
            data = action.data if isinstance(action, WriteFile) else read_all(action.source)
            digest.update(b"%s\0%d\0%b" % (action.location.path.encode(), len(data), data))
        elif isinstance(action, RunCommand):
            digest.update("\0".join(action.argv[1:]).encode())
    text = f"{digest.hexdigest()}\n".encode()
    return WriteFile(location=directory / RECORD, data=text, why="says what GRUB was made of")


def _support(image: TreeReader, modules: Modules, name: str) -> Content | None:
    if name != "moddep.lst":
        return image.content(f"{modules.directory}/{name}")
    # grub-mkimage opens the files of the names that stand in it, wherever they lead: only real ones may
    lines = support_file(image, modules, name).splitlines(keepends=True)
    return BytesContent(b"".join(line for line in lines if _PLAIN.fullmatch(line.rstrip(b"\n"))))


def program_bytes(image: TreeReader, modules: Modules) -> int:
    """Return a bound of the size of a program: all its modules, uncompressed."""
    chosen = _closure(image, modules, [name for name in (*REQUIRED, *_WELCOME) if name in modules.names])
    names = [*(f"{module}.mod" for module in chosen), *_SUPPORT]
    contents = (image.content(f"{modules.directory}/{name}") for name in names)
    return sum(content.size for content in contents if content is not None)


def support_file(image: TreeReader, modules: Modules, name: str) -> bytes:
    """Return a file beside the modules, empty if there is none."""
    content = image.content(f"{modules.directory}/{name}")
    return b"" if content is None or content.size > _FILE_LIMIT else read_all(content)


def _closure(image: TreeReader, modules: Modules, names: Iterable[str]) -> list[str]:
    """Return *names* with everything they need (moddep.lst), in a fixed order."""
    text = support_file(image, modules, "moddep.lst").decode("ascii", "replace")
    needs = {name: rest.split() for name, _, rest in (line.partition(":") for line in text.splitlines())}
    pending, done = list(names), set[str]()
    while pending:
        name = pending.pop()
        if name not in done and name in modules.names:
            done.add(name)
            pending += needs.get(name, [])
    return sorted(done)
