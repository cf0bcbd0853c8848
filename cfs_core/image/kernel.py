"""What a kernel's file is: how it can be started, for which CPU, and which version; and what is no kernel.

Sources: Linux, Documentation/arch/x86/boot.rst, arch/arm64/booting.rst, arch/riscv/boot-image-header.rst,
drivers/firmware/efi/libstub/zboot-header.S; Microsoft PE/COFF; the ELF specification.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError, LimitError
from cfs_core.image.pe import read_pe
from cfs_core.model.boot import Architecture, KernelForm
from cfs_core.model.elf import ELF_MAGIC, elf_architecture

if TYPE_CHECKING:
    from cfs_core.image.pe import PeFile
    from cfs_core.model.content import Content

HEAD = 64 * 1024
"""Bytes in which every header of a kernel lies, of what is unpacked as well."""

UNPACKED_LIMIT = 1 << 30
"""Bytes of a kernel that was compressed with gzip."""

_GZIP = b"\x1f\x8b"
_IMAGE_MAGIC = {b"ARM\x64": Architecture.ARM64, b"RSC\x05": Architecture.RISCV64}
_SECTOR = 512
_SETUP_END = 0x268
_PARAGRAPH = 16
_LFS = b"version https://"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFile:
    """A kernel. *architecture* and *version* are None where its headers do not tell."""

    forms: frozenset[KernelForm]
    architecture: Architecture | None
    version: str | None = None


def read_kernel(content: Content) -> KernelFile:
    """Read a kernel's headers and compare the sizes they state with the file's.

    Raises:
        ImageError: it is none, or is damaged; the message says what it is instead.
    """
    with content.open() as file:
        head = file.read(HEAD)
    if head[:2] == b"MZ":
        return _of_pe(read_pe(content), head, content.size)
    if _is_setup(head):
        return _x86(frozenset(), head, content.size)
    if head[:2] == _GZIP:
        inner = _unpacked_head(content)
        return KernelFile(forms=frozenset({KernelForm.GZIP}), architecture=_inside(inner))
    if architecture := _image_architecture(head):
        return KernelFile(forms=frozenset({KernelForm.IMAGE}), architecture=architecture)
    if head.startswith(ELF_MAGIC):
        return KernelFile(forms=frozenset({KernelForm.ELF}), architecture=elf_architecture(head))
    msg = f"it is no kernel: {described(head)}"
    raise ImageError(msg)


def read_program(content: Content) -> PeFile:
    """Read the headers of a program for UEFI: a loader, a UKI, an addon.

    Raises:
        ImageError: it is none, or its headers contradict its size.
    """
    with content.open() as file:
        head = file.read(HEAD)
    if head[:2] != b"MZ":
        msg = f"it is no program for UEFI: {described(head)}"
        raise ImageError(msg)
    program = read_pe(content)
    if not program.is_efi:
        msg = f"it is no program for UEFI: its subsystem is {program.subsystem}"
        raise ImageError(msg)
    return program


def described(head: bytes) -> str:
    """Return what a file seems to be, by its first bytes."""
    if not head:
        return "it is empty"
    if head.startswith(_LFS):
        return "it is the pointer file of a large-file store (git lfs), without the file it stands for"
    if not head.strip(b"\0"):
        return "it is all zeros"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head[:_SECTOR]):  # noqa: PLR2004 - printable ASCII
        return f"it is a text file that begins with {head.splitlines()[0][:40].decode()!r}"
    return f"it begins with the bytes {head[:8].hex(' ')}"


def _of_pe(program: PeFile, head: bytes, size: int) -> KernelFile:
    forms = {KernelForm.EFI} if program.is_efi else set()
    if _is_setup(head):
        return _x86(frozenset(forms), head, size)
    if _image_architecture(head):
        forms.add(KernelForm.IMAGE)
    if not forms:
        msg = f"it is no kernel: it is a PE file of subsystem {program.subsystem}"
        raise ImageError(msg)
    return KernelFile(forms=frozenset(forms), architecture=program.architecture)


def _is_setup(head: bytes) -> bool:
    return head[0x202:0x206] == b"HdrS" and head[0x1FE:0x200] == b"\x55\xaa" and len(head) >= _SETUP_END


def _x86(forms: frozenset[KernelForm], head: bytes, size: int) -> KernelFile:
    """Read the setup header of a bzImage; the code behind it must be there whole."""
    sectors = head[0x1F1] or 4  # boot.rst: 0 means 4
    (paragraphs,) = struct.unpack_from("<I", head, 0x1F4)
    # The size of the code is rounded up in some versions, and nothing is there in its last paragraph.
    stated = (sectors + 1) * _SECTOR + max(0, paragraphs - 1) * _PARAGRAPH
    if size < stated:
        msg = f"it is damaged: a kernel of about {stated} bytes, of which {size} are there"
        raise ImageError(msg)
    (where,) = struct.unpack_from("<H", head, 0x20E)
    text = head[where + 0x200 :].partition(b"\0")[0][:256] if where else b""
    words = text.decode("ascii", "replace").split()
    wide = head[0x236] & 1 and int.from_bytes(head[0x206:0x208], "little") >= 0x20C  # noqa: PLR2004 - xloadflags
    return KernelFile(
        forms=forms | {KernelForm.BZIMAGE},
        architecture=Architecture.AMD64 if wide else Architecture.I386,
        version=words[0] if words else None,
    )


def _image_architecture(head: bytes) -> Architecture | None:
    return _IMAGE_MAGIC.get(head[0x38:0x3C])


def _unpacked_head(content: Content) -> bytes:
    """Unpack a kernel to its end, which checks every byte; return its first ones."""
    stream = zlib.decompressobj(wbits=31)
    head, total = b"", 0
    try:
        with content.open() as file:
            while not stream.eof and (data := stream.unconsumed_tail or file.read(_CHUNK)):
                plain = stream.decompress(data, _CHUNK)
                head += plain[: HEAD - len(head)]
                total += len(plain)
                if total > UNPACKED_LIMIT:
                    msg = f"it is compressed, and stands for more than {UNPACKED_LIMIT >> 30} GiB"
                    raise LimitError(msg, facts={"limit_bytes": UNPACKED_LIMIT})
    except zlib.error as cause:
        msg = f"it is damaged: its gzip stream cannot be read ({cause})"
        raise ImageError(msg) from cause
    if not stream.eof:
        msg = "it is damaged: its gzip stream has no end"
        raise ImageError(msg)
    return head


def _inside(head: bytes) -> Architecture | None:
    """Return the CPU of a kernel that was unpacked, by its first bytes.

    Raises:
        ImageError: it is none.
    """
    if found := _image_architecture(head):
        return found
    if head.startswith(ELF_MAGIC):
        return elf_architecture(head)
    if _is_setup(head):
        return Architecture.AMD64
    msg = f"it is no kernel: unpacked, {described(head)}"
    raise ImageError(msg)
