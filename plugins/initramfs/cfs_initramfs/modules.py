"""Kernel modules of an image by name, with all that they depend on (modules.dep(5), modules.softdep)."""

from __future__ import annotations

import gzip
import io
import lzma
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfs_core.plugin import ImageError, LimitError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from cfs_core.plugin import TreeReader

MODULE_LIMIT = 32 * 1024 * 1024
_SUFFIX = re.compile(r"\.ko(?:\.(?:xz|zst|gz))?$")


def module_name(path: str) -> str:
    """Return what the kernel calls the module in file *path*: ``virtio_blk``."""
    return _SUFFIX.sub("", path.rpartition("/")[2]).replace("-", "_")


def plain_path(path: str) -> str:
    """Return *path* without the suffix of a compression."""
    return _SUFFIX.sub(".ko", path)


@dataclass(frozen=True, slots=True)
class Modules:
    """Modules of one kernel: ``paths`` and ``needs`` by name; paths are below ``/usr/lib/modules/VERSION``."""

    version: str
    paths: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]
    built_in: frozenset[str]

    def order(self, name: str) -> tuple[str, ...]:
        """Return the names of *name* and of all that it needs, in the order in which they can be loaded.

        Raises:
            ImageError: the image lacks one.
        """
        done: list[str] = []
        pending = [(name, False)]
        seen: set[str] = set()
        while pending:
            each, ready = pending.pop()
            if ready:
                done.append(each)
            elif each not in seen and each not in self.built_in:
                seen.add(each)
                if each not in self.paths:
                    message = f"the image has no module {each} of kernel {self.version}"
                    raise ImageError(message, hint=f"install the package with the kernel's module {each}")
                pending.append((each, True))
                pending += [(need, False) for need in self.needs.get(each, ())]
        return tuple(done)

    def read(self, name: str, image: TreeReader) -> bytes:
        """Return a module, decompressed.

        Raises:
            ImageError: it is listed and not there, or damaged.
            LimitError: larger than 32 MiB.
        """
        path = f"/usr/lib/modules/{self.version}/{self.paths[name]}"
        data = image.read(path, limit=MODULE_LIMIT)
        if data is None:
            message = f"{path} is not in the image, though modules.dep lists it"
            raise ImageError(message, hint="install the kernel's package in the image again")
        return _decompressed(path, data)


def read_modules(image: TreeReader, version: str) -> Modules:
    """Read what the image says of the modules of kernel *version*.

    Raises:
        ImageError: there is no modules.dep, nor a list of what is built in.
    """
    folder = f"/usr/lib/modules/{version}"
    listed = image.read(f"{folder}/modules.dep")
    built_in = image.read(f"{folder}/modules.builtin") or b""
    if listed is None and not built_in:
        message = f"the image has no {folder}/modules.dep"
        raise ImageError(message, hint=f"run `depmod {version}` in the image")
    paths, needs = {}, {}
    for line in (listed or b"").decode("utf-8", "surrogateescape").splitlines():
        path, _, rest = line.partition(":")
        if _SUFFIX.search(path):
            paths[module_name(path)] = path
            needs[module_name(path)] = tuple(module_name(each) for each in rest.split())
    known = frozenset(module_name(line) for line in built_in.decode("utf-8", "surrogateescape").split())
    for name, wanted in _soft(image.read(f"{folder}/modules.softdep") or b""):
        needs[name] = (*needs.get(name, ()), *(each for each in wanted if each in paths))
    return Modules(version, paths, needs, known)


def _soft(data: bytes) -> list[tuple[str, list[str]]]:
    """Return what is to be loaded before modules: ``softdep NAME pre: A B post: C``."""
    found = []
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        match = re.fullmatch(r"softdep\s+(\S+)\s+(.*)", line.strip())
        before = re.search(r"(?:^|\s)pre:\s*(.*?)(?:\s*post:.*)?$", match[2]) if match else None
        if match and before:
            found.append((match[1].replace("-", "_"), [word.replace("-", "_") for word in before[1].split()]))
    return found


def _opened(path: str, file: BinaryIO) -> AbstractContextManager[Any]:
    if path.endswith(".xz"):
        return lzma.LZMAFile(file)
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if path.endswith(".zst"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(file)
    return file


def _decompressed(path: str, data: bytes) -> bytes:
    try:
        with _opened(path, io.BytesIO(data)) as file:
            plain: bytes = file.read(MODULE_LIMIT + 1)
    except (lzma.LZMAError, OSError, EOFError, RuntimeError) as error:
        message = f"{path} of the image is damaged: {error}"
        raise ImageError(message, hint="install the kernel's package in the image again") from error
    if len(plain) > MODULE_LIMIT:
        message = f"{path} of the image has more than {MODULE_LIMIT >> 20} MiB"
        raise LimitError(message, hint="install the kernel's package in the image again")
    return plain
