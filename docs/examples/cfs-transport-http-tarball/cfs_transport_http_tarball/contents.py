"""What is in a tar file: its compression, the digest of what it unpacks to, the architecture of its programs."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cfs_core.plugin import DecompressionLimits, Digest, HashAlgorithm, ImageError, decompress

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

LAYER = "application/vnd.oci.image.layer.v1.tar"
_CHUNK = 1 << 18
_BLOCK = 512
_MAGICS = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
_FOREIGN = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
_MACHINES = {62: "amd64", 183: "arm64", 243: "riscv64", 3: "386"}
"""e_machine of ELF (elf.h) in Go's names."""


@dataclass(frozen=True, slots=True)
class Contents:
    """``architecture`` is None where no program says it."""

    media_type: str
    diff_id: Digest
    architecture: str | None


def examine(path: Path, limit: int) -> Contents:
    """Read a tar file through, in flat memory.

    Raises:
        ImageError: damaged, no tar, or in a compression that image layers cannot have.
        LimitError: more than *limit* bytes uncompressed, or a bomb.
    """
    hasher = hashlib.sha256()
    search = _architecture()
    next(search)
    finder: Generator[None, bytes, str | None] | None = search
    architecture: str | None = None
    with path.open("rb") as file:
        media_type = _media_type(file)
        chunks = iter(lambda: file.read(_CHUNK), b"")
        for data in decompress(chunks, media_type, DecompressionLimits(total_bytes=limit)):
            hasher.update(data)
            if finder is not None:
                try:
                    finder.send(data)
                except StopIteration as end:
                    finder, architecture = None, end.value
    return Contents(media_type, Digest(HashAlgorithm.SHA256, hasher.hexdigest()), architecture)


def _media_type(file: BinaryIO) -> str:
    head = file.read(_BLOCK)
    file.seek(0)
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            msg = f"the tar file is compressed with {name}, which layers of images cannot be"
            raise ImageError(msg, hint="compress it with zstd or gzip")
    suffix = next((suffix for magic, suffix in _MAGICS.items() if head.startswith(magic)), "")
    if not suffix and (len(head) < _BLOCK or _size(head) is None):
        msg = "the file is no tar, and neither gzip nor zstd"
        raise ImageError(msg, hint="is the URL that of a web page, perhaps?")
    return LAYER + suffix


def _architecture() -> Generator[None, bytes, str | None]:
    """Take a tar in pieces; return the architecture of its first ELF program, None at its end or where it is odd."""
    buffer = b""
    skip = 0
    while True:
        data = yield
        if skip >= len(data):
            skip -= len(data)
            continue
        buffer += data[skip:]
        skip = 0
        while len(buffer) >= 2 * _BLOCK:
            size = _size(buffer)
            if size is None:
                return None
            content = buffer[_BLOCK : 2 * _BLOCK]
            if buffer[156:157] in {b"0", b"\0"} and size > _BLOCK and content.startswith(b"\x7fELF"):
                (machine,) = struct.unpack_from("<H", content, 18)
                if machine in _MACHINES:
                    return _MACHINES[machine]
            whole = _BLOCK + -(-size // _BLOCK) * _BLOCK
            skip = max(0, whole - len(buffer))
            buffer = buffer[whole:]


def _size(header: bytes) -> int | None:
    """Return the size in a tar header; None if it is none (POSIX ustar; GNU base-256)."""
    field = header[124:136]
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None
