"""Layers that no honest tool writes: paths that lead outside, archives that lie, streams without an end."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BOMB_BYTES = 256 << 20


def hostile_layers() -> Mapping[str, bytes]:
    """Return uncompressed layers by what is wrong with them. Every one must be refused, or do no harm."""
    return {
        "path above the root": _tar(_file("../../evil")),
        "absolute path above the root": _tar(_file("/../evil")),
        "file through a link outside": _tar(_link("usr", "/tmp"), _file("usr/evil")),  # noqa: S108 - what an attack names
        "hard link to outside": _tar(_hard_link("passwd", "../../../../etc/passwd")),
        "hard link to nothing": _tar(_hard_link("a", "b")),
        "hard link to itself": _tar(_hard_link("a", "a")),
        "directory in the place of a file": _tar(_file("a"), _file("a/b")),
        "empty name": _tar(_file("")),
        "name with a line end": _tar(_file("a\nb")),
        "very long name": _tar(_file("n" * 5000)),
        "very deep path": _tar(_file("/".join("d" * 4000))),
        "negative size": _patched(_tar(_file("a")), 124, b"-0000000001\0"),
        "huge size": _patched(_tar(_file("a")), 124, b"\x80" + b"\xff" * 11),
        "size beyond the end": _patched(_tar(_file("a")), 124, b"77777777777\0"),
        "no checksum": _tar(_file("a"))[:148] + b"\0" * 8 + _tar(_file("a"))[156:],
        "cut in the middle": _tar(_file("a", b"x" * 4000))[:2000],
        "garbage": b"\xff" * 4096,
        "whiteout of everything": _tar(_file(".wh.")),
        "whiteout of the parent": _tar(_file(".wh...")),
        "opaque root": _tar(_file(".wh..wh..opq")),
        "device node of the host's disk": _tar(_device("dev/sda", 8, 0)),
    }


def bomb(size: int = BOMB_BYTES) -> bytes:
    """Return a gzip stream of an archive with one file of *size* zero bytes."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as stream:
        info = _file("bomb")[0]
        info.size = size
        stream.write(info.tobuf())
        for _ in range(size >> 20):
            stream.write(bytes(1 << 20))
        stream.write(bytes(1024))
    return out.getvalue()


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = bytearray()
    for info, data in members:
        info.size = len(data)
        out += info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)
    return bytes(out + bytes(1024))


def _file(name: str, data: bytes = b"evil") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode = 0o4777
    return info, data


def _link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info, b""


def _hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info, b""


def _device(name: str, major: int, minor: int) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor = tarfile.BLKTYPE, major, minor
    return info, b""


def _patched(tar: bytes, at: int, data: bytes) -> bytes:
    """Replace bytes of the first header, and make its checksum right again."""
    header = bytearray(tar[:512])
    header[at : at + len(data)] = data
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + tar[512:]
