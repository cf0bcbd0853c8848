"""Sections of PE files, which UKIs and EFI stub kernels are (Microsoft PE/COFF; UAPI.5 Unified Kernel Image).

Own code and not the pefile package: of the format only the section table is needed. pefile parses all of a file that
may have hundreds of megabytes and repairs what it finds broken, where a UKI from outside should be refused.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

from cfs_core.errors import ImageError, LimitError
from cfs_core.model.boot import Architecture
from cfs_core.model.content import BytesContent, read_all

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from cfs_core.model.content import Content

MACHINES = {
    0x8664: Architecture.AMD64,
    0xAA64: Architecture.ARM64,
    0x5064: Architecture.RISCV64,
    0x014C: Architecture.I386,
}
EFI_SUBSYSTEMS = frozenset({10, 11, 12})
"""Applications, boot service drivers and runtime drivers (PE/COFF, Windows Subsystem); firmware starts no others."""

SECTIONS_LIMIT = 512
"""More than any UKI with many profiles has; the table must be read whole."""

_DOS_HEADER = 64
_SUBSYSTEM = 68
_CERTIFICATES = 4
"""Number of the data directory that holds signatures."""

_DIRECTORIES = {0x10B: 96, 0x20B: 112}
"""Where data directories start in the optional header of PE32 and PE32+."""

_COFF = struct.Struct("<4sHHIIIHH")
_SECTION = struct.Struct("<8sIIIIIIHHI")
_CERTIFICATE = struct.Struct("<IHH")
"""WIN_CERTIFICATE: length of it all, revision, kind (UEFI 2.10, 32.2.4)."""

_PKCS_SIGNED_DATA = 2
_CERTIFICATES_LIMIT = 1 << 20
"""Bytes; a signature has some thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A stretch of the file: *offset* and *size* in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class PeFile:
    """A PE file's machine type and sections, all of them inside the file."""

    content: Content = field(repr=False)
    """The file."""

    machine: int
    """The machine's number in the COFF header (PE format, Machine Types)."""

    sections: tuple[Section, ...]
    """Name, offset and size in the file, in the table's order."""

    subsystem: int | None = None
    """What it was made for, by its optional header; None if it has none."""

    @property
    def is_efi(self) -> bool:
        """Whether firmware starts it."""
        return self.subsystem in EFI_SUBSYSTEMS

    certificates: tuple[int, int] = (0, 0)
    """Offset and size of its table of signatures (Authenticode), in bytes; 0 and 0 where it has none."""

    @property
    def signed(self) -> bool:
        """Whether it has signatures. Whose they are is not looked at."""
        return all(self.certificates)

    def signatures(self) -> tuple[bytes, ...]:
        """Return its PKCS #7 signatures as DER, as they are in the file: nothing is verified.

        Raises:
            ImageError: the table of signatures is malformed.
        """
        if self.certificates[1] > _CERTIFICATES_LIMIT or sum(self.certificates) > self.content.size:
            msg = "the signatures of a PE file are not where it says"
            raise ImageError(msg)
        return pkcs_signatures(read_all(SectionContent(self.content, *self.certificates)) if self.signed else b"")

    @property
    def architecture(self) -> Architecture | None:
        """The CPU it runs on, None for those cfs does not know."""
        return MACHINES.get(self.machine)

    @property
    def base(self) -> tuple[Section, ...]:
        """The sections before the first profile (UAPI.5, multi-profile UKIs)."""
        names = [section.name for section in self.sections]
        return self.sections[: names.index(".profile")] if ".profile" in names else self.sections

    def section(self, name: str) -> Content | None:
        """Return a section of the base profile, None if there is none.

        Raises:
            ImageError: two of that name, of which firmware and stub may take different ones.
        """
        return self._only(name, self.base)

    @property
    def first_profile(self) -> tuple[Section, ...]:
        """The sections of profile 0, which starts where a boot menu names none; they override the base's."""
        starts = [number for number, section in enumerate(self.sections) if section.name == ".profile"]
        return self.sections[starts[0] : starts[1] if len(starts) > 1 else None] if starts else ()

    def effective(self, name: str) -> Content | None:
        """Return a section as systemd-stub takes it by default: profile 0's, else the base's; None if there is none.

        Raises:
            ImageError: two of that name.
        """
        return self._only(name, self.first_profile) or self._only(name, self.base)

    def every(self, name: str) -> tuple[Content, ...]:
        """Return all sections of that name, in their order: those of every profile."""
        return tuple(
            SectionContent(self.content, section.offset, section.size)
            for section in self.sections
            if section.name == name
        )

    def text(self, name: str, *, limit: int = 1 << 20) -> str:
        """Return the text of a section as systemd-stub takes it by default: profile 0's, else the base's, else "".

        It ends at its first NUL.

        Raises:
            LimitError: longer than *limit* bytes.
            ImageError: two of that name.
        """
        content = self.effective(name)
        if content is None:
            return ""
        if content.size > limit:
            msg = f"the section {name} of a UKI has {content.size} bytes, more than {limit}"
            raise LimitError(msg, facts={"limit_bytes": limit})
        return read_all(content).partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def _only(self, name: str, sections: tuple[Section, ...]) -> Content | None:
        found = [section for section in sections if section.name == name]
        if len(found) > 1:
            msg = f"a UKI has {len(found)} sections named {name}"
            raise ImageError(msg)
        return SectionContent(self.content, found[0].offset, found[0].size) if found else None


@dataclass(frozen=True, slots=True)
class SectionContent:
    """Part of another content, as content."""

    whole: Content = field(repr=False)
    offset: int
    size: int

    def open(self) -> BinaryIO:
        """Open for reading from the start of the section."""
        return cast("BinaryIO", io.BufferedReader(_Slice(self.whole.open(), self.offset, self.size)))


def read_pe(content: Content) -> PeFile:
    """Read the headers of a PE file.

    Raises:
        ImageError: not one, or with sections outside of the file.
    """
    with content.open() as file:
        dos = file.read(_DOS_HEADER)
        if len(dos) < _DOS_HEADER or dos[:2] != b"MZ":
            msg = "this is not a PE file (no MZ header)"
            raise ImageError(msg)
        (start,) = struct.unpack_from("<I", dos, 0x3C)
        file.seek(start)
        raw = file.read(_COFF.size)
        if len(raw) < _COFF.size or raw[:4] != b"PE\0\0":
            msg = "this is not a PE file (no PE header)"
            raise ImageError(msg)
        _, machine, count, _, _, _, optional_size, _ = _COFF.unpack(raw)
        if count > SECTIONS_LIMIT:
            msg = f"a PE file has {count} sections, more than {SECTIONS_LIMIT}"
            raise LimitError(msg, facts={"limit": SECTIONS_LIMIT})
        optional = file.read(optional_size)
        table = file.read(count * _SECTION.size)
    if len(table) < count * _SECTION.size:
        msg = "a PE file ends in its section table"
        raise ImageError(msg)
    sections = tuple(_section(each, content.size) for each in _SECTION.iter_unpack(table))
    return PeFile(content, machine, sections, subsystem=_subsystem(optional), certificates=_certificate_table(optional))


def find_pe(data: bytes | None) -> PeFile | None:
    """Return the PE file in *data*; None where it is none, or a damaged one."""
    try:
        return None if data is None else read_pe(BytesContent(data))
    except (ImageError, LimitError):
        return None


def pkcs_signatures(table: bytes | memoryview) -> tuple[bytes, ...]:
    """Return the PKCS #7 signatures in the certificate table of a PE file, as DER.

    Raises:
        ImageError: the table is malformed.
    """
    found = []
    position = 0
    while position + _CERTIFICATE.size <= len(table):
        size, _, kind = _CERTIFICATE.unpack_from(table, position)
        if not _CERTIFICATE.size <= size <= len(table) - position:
            msg = "the table of signatures of a PE file is malformed"
            raise ImageError(msg, hint="sign it again")
        if kind == _PKCS_SIGNED_DATA:
            found.append(bytes(table[position + _CERTIFICATE.size : position + size]))
        position += size + -size % 8
    return tuple(found)


def _subsystem(optional: bytes) -> int | None:
    """Return the subsystem that the optional header of PE32 or PE32+ states (both have it at byte 68)."""
    if optional[:2] not in {b"\x0b\x01", b"\x0b\x02"} or len(optional) < _SUBSYSTEM + 2:
        return None
    return int.from_bytes(optional[_SUBSYSTEM : _SUBSYSTEM + 2], "little")


def _certificate_table(optional: bytes) -> tuple[int, int]:
    """Return offset and size of the certificate table that the data directories of an optional header name."""
    try:
        (magic,) = struct.unpack_from("<H", optional)
        offset, size = struct.unpack_from("<II", optional, _DIRECTORIES.get(magic, len(optional)) + 8 * _CERTIFICATES)
    except struct.error:
        return 0, 0
    return (offset, size) if offset and size else (0, 0)


def _section(fields: tuple[bytes, int, int, int, int, int, int, int, int, int], end: int) -> Section:
    name = fields[0].rstrip(b"\0").decode("ascii", "backslashreplace")
    virtual_size, raw_size, offset = fields[1], fields[3], fields[4]
    # raw data is padded to the file's alignment; the virtual size is what the stub reads
    size = min(virtual_size, raw_size) if virtual_size else raw_size
    if raw_size and offset + size > end:
        msg = f"the section {name} of a PE file ends outside of the file"
        raise ImageError(msg)
    return Section(name=name, offset=offset, size=size)


class _Slice(io.RawIOBase):
    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = min(max(base + offset, 0), self._size)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._position)
        data = self._file.read(min(len(view), self._size - self._position))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
