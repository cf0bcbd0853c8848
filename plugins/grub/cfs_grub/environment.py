"""GRUB's environment block (grubenv): variables that GRUB reads, and writes in place, at boot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfs_core.plugin import BootError

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNATURE = b"# GRUB Environment Block\n"
SIZE = 1024
"""Bytes of a new block. GRUB rewrites it without changing its size (include/grub/lib/envblk.h)."""


def parse(data: bytes) -> dict[str, str]:
    """Return the variables of a block; what is malformed is passed over."""
    found = {}
    for line in _lines(data):
        name, equals, value = line.partition(b"=")
        if equals and not line.startswith(b"#"):
            found[name.decode("utf-8", "surrogateescape")] = _unescape(value).decode("utf-8", "surrogateescape")
    return found


def edit(data: bytes | None, changes: Mapping[str, str | None]) -> bytes:
    """Return *data* (None: a new block) with variables set, or removed where None. Other lines stay as they are.

    Raises:
        BootError: does not fit.
    """
    size = len(data) if data is not None and len(data) >= SIZE and len(data) % 512 == 0 else SIZE
    left = dict(changes)
    lines = []
    for line in _lines(data or b""):
        name = line.partition(b"=")[0].decode("utf-8", "surrogateescape")
        if line.startswith(b"#") or name not in changes:
            lines.append(line)
        elif name in left:
            value = left.pop(name)
            if value is not None:
                lines.append(_line(name, value))
    lines += [_line(name, value) for name, value in left.items() if value is not None]
    text = SIGNATURE + b"".join(line + b"\n" for line in lines)
    if len(text) > size:
        message = f"GRUB's environment block has {size} bytes, and {len(text)} are needed"
        raise BootError(message, hint="remove variables with grub-editenv")
    return text + b"#" * (size - len(text))


def _lines(data: bytes) -> list[bytes]:
    """Return logical lines (a backslash hides a newline) without the signature and the padding."""
    lines = re.findall(rb"((?:[^\\\n]|\\.)*)(\n|$)", data.removeprefix(SIGNATURE), re.DOTALL)
    return [line for line, end in lines if end or line.strip(b"#")]


def _line(name: str, value: str) -> bytes:
    escaped = value.replace("\\", "\\\\").replace("\n", "\\\n")
    return f"{name}={escaped}".encode("utf-8", "surrogateescape")


def _unescape(value: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", value, flags=re.DOTALL)
