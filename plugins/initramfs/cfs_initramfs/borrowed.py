"""Programs of the image for its initramfs, each with all it is linked with, apart from what the initramfs has."""

from __future__ import annotations

import io
import posixpath
from typing import TYPE_CHECKING

from cfs_core.plugin import ImageError, elf_architecture, elf_interpreter
from cfs_initramfs.elf import needed_libraries
from cfs_initramfs.pack import Packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.plugin import Architecture, TreeReader

FOLDER = "usr/lib/cfs"
FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
_LIBRARIES = ("/usr/lib64", "/lib64", "/usr/lib", "/lib")
_CPU = {"amd64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64", "386": "i386"}
_LIMIT = 64 * 1024 * 1024
_COUNT = 64


def borrow(names: Iterable[str], image: TreeReader) -> dict[str, Packed]:
    """Return files that give an initramfs the programs *names* in ``/usr/lib/cfs/bin``.

    Each runs with the loader and the libraries of the image, from a directory of their own: those of the initramfs may
    be others.

    Raises:
        ImageError: the image lacks a program, or a library of one; or one is damaged.
    """
    files: dict[str, Packed] = {}
    for name in names:
        path = next((f"{folder}/{name}" for folder in FOLDERS if image.exists(f"{folder}/{name}")), None)
        data = image.read(path, limit=_LIMIT) if path is not None else None
        if data is None:
            message = f"neither the initramfs nor the image has the program {name}"
            raise ImageError(message, hint="install util-linux and coreutils in the image")
        machine = elf_architecture(data)
        loader = elf_interpreter(io.BytesIO(data)) if machine is not None else None
        if loader is None:
            # a script, or linked with nothing
            files[f"{FOLDER}/bin/{name}"] = Packed(data, 0o755)
            continue
        files |= _libraries(name, data, machine, image)
        inner = f"/{FOLDER}/lib/{posixpath.basename(loader)}"
        files[inner[1:]] = Packed(_read(loader, image, name), 0o755)
        files[f"{FOLDER}/libexec/{name}"] = Packed(data, 0o755)
        start = f'#!/bin/sh\nexec {inner} --library-path /{FOLDER}/lib /{FOLDER}/libexec/{name} "$@"\n'
        files[f"{FOLDER}/bin/{name}"] = Packed(start.encode(), 0o755)
    return files


def _libraries(name: str, data: bytes, machine: Architecture | None, image: TreeReader) -> dict[str, Packed]:
    """Return the shared libraries of a program, and theirs."""
    found: dict[str, Packed] = {}
    pending = list(needed_libraries(data))
    while pending:
        library = pending.pop()
        path = f"{FOLDER}/lib/{library}"
        if path in found:
            continue
        place = next(_places(library, machine, image), None)
        if place is None or len(found) == _COUNT:
            message = f"the library {library} of {name} is not in the image"
            raise ImageError(message, hint=f"install the package of {name} in the image again")
        content = _read(place, image, name)
        found[path] = Packed(content, 0o755)
        pending += needed_libraries(content)
    return found


def _places(library: str, machine: Architecture | None, image: TreeReader) -> Iterator[str]:
    cpu = _CPU.get(machine.value, "") if machine is not None else ""
    own = [f"/usr/lib/{each}" for each in image.names("/usr/lib") if cpu and each.startswith(f"{cpu}-linux-")]
    own += [f"/lib/{each}" for each in image.names("/lib") if cpu and each.startswith(f"{cpu}-linux-")]
    for folder in (*own, *_LIBRARIES):
        content = image.content(f"{folder}/{library}")
        if content is not None:
            with content.open() as file:
                if elf_architecture(file.read(20)) is machine:
                    yield f"{folder}/{library}"


def _read(path: str, image: TreeReader, name: str) -> bytes:
    data = image.read(path, limit=_LIMIT)
    if data is None:
        message = f"{path}, which {name} needs, is not in the image"
        raise ImageError(message, hint=f"install the package of {name} in the image again")
    return data
