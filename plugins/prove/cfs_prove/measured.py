"""Who signed a unified kernel image, and the value that PCR 11 of a TPM has once systemd-stub has measured it.

systemd-stub extends PCR 11 with the name and the contents of each section (systemd-stub(7)), systemd with a word for
each phase of the boot (systemd-pcrphase.service(8)). The order of sections is that of systemd's src/fundamental/uki.c.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.plugin import BytesContent, EntryKind, read_pe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfs_core.plugin import BootEntry, Content, PeFile, TargetView

SECTIONS = {
    ".linux": 252,
    ".osrel": 252,
    ".cmdline": 252,
    ".initrd": 252,
    ".ucode": 256,
    ".splash": 252,
    ".dtb": 252,
    ".uname": 253,
    ".sbat": 254,
    ".pcrpkey": 252,
    ".profile": 257,
}
"""What is measured, in the stub's order, and the first systemd whose stub does so."""

CHOSEN_BY_MACHINE = frozenset({".dtbauto", ".hwids", ".efifw"})
"""The stub takes what fits the machine; which that is nobody knows here."""

PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final")
_CHUNK = 1 << 20
UNKNOWN_SIGNER = "somebody whose certificate cannot be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootProgram:
    """The unified kernel image that a disk starts by itself.

    ``signers`` are subjects of the certificates it is signed with (RFC 4514), ``sections`` SHA-256 digests of what is
    measured. Signatures are not verified here: that is what firmware does.
    """

    signers: tuple[str, ...]
    sections: Mapping[str, bytes]
    predictable: bool = True
    """Whether the machine has no part in what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pcr:
    """PCR 11 (SHA-256) of a machine's TPM: ``value`` in hex, None where the machine has no TPM.

    ``as_predicted`` is None where nothing can be predicted; ``detail`` then says why, and else which phases of the boot
    were measured.
    """

    value: str | None
    as_predicted: bool | None
    detail: str


def program_of(entry: BootEntry | None, disk: TargetView) -> BootProgram | None:
    """Read the unified kernel image that *entry* starts; None where it starts none, or one that is not there.

    Raises:
        CfsError: it cannot be read.
    """
    if entry is None or entry.kind is not EntryKind.UKI or not entry.files:
        return None
    try:
        data = disk.read(entry.files[0])
    except FileNotFoundError:
        return None
    return read_program(BytesContent(data))


def read_program(uki: Content) -> BootProgram:
    """Read signers and sections of a unified kernel image, of profile 0 where it has several.

    Raises:
        ImageError: it is none, or damaged.
    """
    pe = read_pe(uki)
    names = {section.name for section in pe.sections}
    sections = {name: found for name in SECTIONS if (found := _measured(pe, name)) is not None}
    return BootProgram(
        signers=tuple(map(signer_of, pe.signatures())),
        sections=sections,
        predictable=not names & CHOSEN_BY_MACHINE,
    )


def _measured(pe: PeFile, name: str) -> bytes | None:
    content = pe.effective(name)
    if content is None:
        return None
    hasher = hashlib.sha256()
    with content.open() as file:
        while data := file.read(_CHUNK):
            hasher.update(data)
    return hasher.digest()


def signer_of(signature: bytes) -> str:
    """Return the subject of the certificate of a PKCS #7 signature: that which vouches for no other one in it."""
    from cryptography.hazmat.primitives.serialization import pkcs7

    try:
        certificates = pkcs7.load_der_pkcs7_certificates(signature)
        issuers = {each.issuer for each in certificates if each.issuer != each.subject}
        leaf = next((each for each in certificates if each.subject not in issuers), None)
    except Exception:  # noqa: BLE001 - cryptography names no class for what is malformed
        leaf = None
    return leaf.subject.rfc4514_string() if leaf is not None else UNKNOWN_SIGNER


def extended(value: bytes, digest: bytes) -> bytes:
    """Return a PCR of *value* after it was extended (TPM 2.0 Library, part 1, 17.2)."""
    return hashlib.sha256(value + digest).digest()


def predicted(program: BootProgram, version: int) -> bytes:
    """Return PCR 11 (SHA-256) when the stub of systemd *version* starts the kernel."""
    value = bytes(hashlib.sha256().digest_size)
    for name, since in SECTIONS.items():
        digest = program.sections.get(name)
        if digest is not None and since <= version:
            value = extended(value, hashlib.sha256(name.encode() + b"\0").digest())
            value = extended(value, digest)
    return value


def phase_paths(start: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the ways that a boot may have gone, and PCR 11 after it. An initramfs may measure its phases or not."""
    for first in range(len(PHASES)):
        value = start
        for last in range(first, len(PHASES)):
            value = extended(value, hashlib.sha256(PHASES[last].encode()).digest())
            yield ":".join(PHASES[first : last + 1]), value


def judge_pcr(program: BootProgram, stub: str | None, value: str | None) -> Pcr:
    """Compare PCR 11, *value* in hex or None, with what *program* leads to when it is started by *stub* (StubInfo)."""
    if value is None:
        return Pcr(value=None, as_predicted=None, detail="no TPM in this machine")
    version = re.search(r"\b(\d{3})\b", stub or "")
    if version is None:
        return Pcr(value=value, as_predicted=None, detail="the stub does not say its version")
    if not program.predictable:
        return Pcr(value=value, as_predicted=None, detail="the stub chooses parts of the image by the machine")
    start = predicted(program, int(version[1]))
    if start.hex() == value:
        return Pcr(value=value, as_predicted=True, detail="")
    phases = next((phases for phases, found in phase_paths(start) if found.hex() == value), None)
    return Pcr(value=value, as_predicted=phases is not None, detail=phases or "")
