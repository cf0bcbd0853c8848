"""The first program of the system: is it there, can this CPU start it, and is the interpreter that it asks for?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.image.kernel import described
from cfs_core.model.elf import ELF_MAGIC, elf_architecture, elf_interpreter
from cfs_core.model.plan import Finding
from cfs_core.model.tree import Directory, RegularFile, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from cfs_core.image.reader import ImageReader
    from cfs_core.model.boot import Architecture, KernelArgument
    from cfs_core.model.tree import Node

CANDIDATES = ("/usr/lib/systemd/systemd", "/sbin/init", "/etc/init", "/bin/init")
"""What is started where no ``init=`` names a program: systemd's first, then the kernel's (init/main.c).

The kernel's last resort, /bin/sh, is no system.
"""

_EXECUTABLE = 0o111
_SCRIPTS = 4
"""Scripts whose interpreter is a script; the kernel follows as many (BINPRM_BUF, exec.c)."""

_HEAD = 4096
_LINE = 256


def examine_init(
    image: ImageReader, arguments: Sequence[KernelArgument], architecture: Architecture
) -> Iterator[Finding]:
    """Look at the program that ``init=`` names, or at those that are started where it names none."""
    hint = "install an init in the image (the package systemd, or systemd-sysv), for its CPU"
    named = [argument for argument in arguments if argument.key == "init"]
    if named:
        path = named[-1].text.partition("=")[2].strip('"')
        problem = _problem(image, path, architecture)
        if problem:
            message = f"{named[-1].text!r} of {named[-1].origin} names a program that cannot be started: {problem}"
            yield Finding.error("boot.init", message, "leave the argument out, or put the program into the image")
        return
    found = [(path, _problem(image, path, architecture)) for path in CANDIDATES if _named(image, path) is not None]
    if not found:
        yield Finding.error("boot.init", f"the image has no init: none of {', '.join(CANDIDATES)} is there", hint)
    make = Finding.warning if any(problem is None for _, problem in found) else Finding.error
    for path, problem in found:
        if problem:
            yield make("boot.init", f"{path} of the image cannot be started: {problem}", hint)


def _named(image: ImageReader, path: str) -> Node | None:
    """Return what *path* itself names, a link that leads nowhere included."""
    folder, _, name = path.rpartition("/")
    node = image.find(folder or "/")
    return node.entries.get(os.fsencode(name)) if isinstance(node, Directory) else None


def _problem(image: ImageReader, path: str, architecture: Architecture, depth: int = 0) -> str | None:
    """Return why the kernel would not start *path*; None if it would."""
    node = image.find(path)
    if node is None:
        link = _named(image, path)
        if isinstance(link, Symlink):
            return f"it is a link to {os.fsdecode(link.target)}, which is not there"
        return "it is not there"
    if not isinstance(node, RegularFile):
        return "it is no regular file"
    if not node.mode & _EXECUTABLE:
        return f"it is not executable (mode {node.mode:04o})"
    content = image.content(path)
    if content is None:
        return "it cannot be read"
    try:
        with content.open() as file:
            interpreter = _interpreter(file, architecture)
    except ImageError as cause:
        return cause.message
    if interpreter is None:
        return None
    if depth == _SCRIPTS:
        return "its interpreters are scripts without end"
    problem = _problem(image, interpreter, architecture, depth + 1)
    return f"its interpreter {interpreter}: {problem}" if problem else None


def _interpreter(file: BinaryIO, architecture: Architecture) -> str | None:
    """Return the program that a script or an ELF file asks for.

    Raises:
        ImageError: it is neither, or for another CPU than *architecture*.
    """
    head = file.read(_HEAD)
    if head.startswith(b"#!"):
        words = head[2:_LINE].partition(b"\n")[0].split()
        if words:
            return os.fsdecode(words[0])
        msg = "it is a script that names no interpreter"
        raise ImageError(msg)
    if not head.startswith(ELF_MAGIC):
        msg = f"it is no program: {described(head)}"
        raise ImageError(msg)
    found = elf_architecture(head)
    if found is not architecture:
        name = found.value if found is not None else "a CPU that cfs does not know"
        msg = f"it is a program for {name}, and the image is for {architecture.value}"
        raise ImageError(msg)
    return elf_interpreter(file)
