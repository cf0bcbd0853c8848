"""The first program of an initramfs, and what it needs to be started (kernel: init/main.c, fs/binfmt_elf.c)."""

from __future__ import annotations

import io
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageError, elf_architecture, elf_interpreter

if TYPE_CHECKING:
    from cfs_core.plugin import Architecture
    from cfs_initramfs.cpio import CpioFile

INIT = "/init"
NAMES_LIMIT = 200_000
LINKS = 40  # path_resolution(7)
SCRIPTS = 4  # interpreters of interpreters, fs/exec.c
LINE = 256


@dataclass(frozen=True, slots=True)
class Program:
    """A file. ``sure`` is False where what it is was not read: content of hard links, headers far behind."""

    mode: int
    architecture: Architecture | None = None
    interpreter: str | None = None
    known: bool = False
    sure: bool = True


@dataclass(slots=True)
class Programs:
    """Programs and links of an initramfs by path; what comes later overrides what was there."""

    files: dict[str, Program | str] = field(default_factory=dict)
    full: bool = False

    def add(self, entry: CpioFile) -> None:
        """Take a file into account."""
        if len(self.files) >= NAMES_LIMIT:
            self.full = True
            return
        folder, _, name = entry.name.rpartition("/")
        parent = self.resolve(folder)
        if parent is None or stat.S_ISDIR(entry.mode):
            return
        path = f"{parent}/{name}".lstrip("/")
        if entry.is_link:
            self.files[path] = (entry.data or b"").decode("utf-8", "surrogateescape")
        elif stat.S_ISREG(entry.mode):
            self.files[path] = _program(entry)

    def problem(self, path: str, architecture: Architecture | None, depth: int = 0) -> str | None:
        """Return why the kernel, of *architecture*, would not start *path*; None if it would, or nobody can tell."""
        if self.full:
            return None
        place = self.resolve(path)
        found = self.files.get(place) if place is not None else None
        if not isinstance(found, Program):
            link = self.files.get(path.strip("/"))
            return f"it is a link to {link}, which is not there" if isinstance(link, str) else "it is not there"
        if not found.mode & 0o111:
            return f"it is not executable (mode {stat.S_IMODE(found.mode):04o})"
        if not found.sure:
            return None
        if not found.known:
            return "it is neither an ELF file nor a script"
        if architecture is not None and found.architecture not in {None, architecture}:
            return f"it is a program for {found.architecture}, and the kernel is for {architecture}"
        if found.interpreter is None or depth == SCRIPTS:
            return None
        inner = self.problem(found.interpreter, architecture, depth + 1)
        return f"its interpreter {found.interpreter}: {inner}" if inner else None

    def program(self, path: str) -> Program | None:
        """Return the program at *path*, which has no links in it."""
        found = self.files.get(path)
        return found if isinstance(found, Program) else None

    def resolve(self, path: str) -> str | None:
        """Follow links; return the path without any, None where they go round in circles."""
        pending = [part for part in reversed(path.split("/")) if part not in {"", "."}]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                done = done[:-1]
                continue
            target = self.files.get("/".join([*done, part]))
            if not isinstance(target, str):
                done.append(part)
                continue
            links += 1
            if links > LINKS:
                return None
            if target.startswith("/"):
                done = []
            pending += [part for part in reversed(target.split("/")) if part not in {"", "."}]
        return "/".join(done)


def _program(entry: CpioFile) -> Program:
    head = entry.data if entry.data is not None else entry.head
    if not head:
        return Program(entry.mode, sure=entry.size == 0 and entry.links < 2)  # noqa: PLR2004 - content is with another name
    if head.startswith(b"#!"):
        words = head[2:LINE].partition(b"\n")[0].split()
        return Program(
            entry.mode, interpreter=words[0].decode("utf-8", "surrogateescape") if words else None, known=bool(words)
        )
    if not head.startswith(b"\x7fELF"):
        return Program(entry.mode)
    architecture = elf_architecture(head)
    try:
        return Program(entry.mode, architecture, elf_interpreter(io.BytesIO(head)), known=True)
    except ImageError:
        return Program(entry.mode, architecture, known=True, sure=len(head) == entry.size)
