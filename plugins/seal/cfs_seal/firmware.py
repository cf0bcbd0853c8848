"""What a machine's firmware trusts, and whether it would start a unified kernel image and its addons.

Source: UEFI 2.10, 32.4.1 (signature lists), 32.5.3.3 (which of db and dbx counts). Read with own code: a machine that
is upgraded need not have what enrols keys.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from cfs_core.plugin import EntryKind, Finding, ImageError, read_all
from cfs_seal.authenticode import judge
from cfs_seal.pe_signatures import digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfs_core.plugin import BootArtifacts, Content

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
IMAGE_SECURITY = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
_X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328")
_LIST = struct.Struct("<16sIII")
_OWNER_BYTES = 16
_ATTRIBUTE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures:
    """What a db or dbx holds: certificates, and SHA-256 digests of files as Authenticode takes them."""

    certificates: tuple[x509.Certificate, ...] = ()
    hashes: frozenset[bytes] = frozenset()


def variable(efivars: Path, name: str, vendor: str) -> bytes | None:
    """Return the value of a firmware variable; None where it is not there or cannot be read."""
    try:
        return (efivars / f"{name}-{vendor}").read_bytes()[_ATTRIBUTE_BYTES:]
    except OSError:
        return None


def signatures_in(data: bytes) -> Signatures:
    """Read signature lists; what follows a malformed one is left out, and certificates that are none.

    A key that is overlooked refuses what it would vouch for: nothing is trusted by mistake.
    """
    certificates: list[x509.Certificate] = []
    hashes: set[bytes] = set()
    position = 0
    while position + _LIST.size <= len(data):
        kind, size, header, entry = _LIST.unpack_from(data, position)
        first, end = position + _LIST.size + header, position + size
        if size < _LIST.size + header or end > len(data) or entry <= _OWNER_BYTES:
            break
        for start in range(first, end - entry + 1, entry):
            value = data[start + _OWNER_BYTES : start + entry]
            if kind == _SHA256.bytes_le:
                hashes.add(value)
            elif kind == _X509.bytes_le:
                try:
                    certificates.append(x509.load_der_x509_certificate(value))
                except ValueError:
                    continue
        position = end
    return Signatures(certificates=tuple(certificates), hashes=frozenset(hashes))


def judge_boot(artifacts: BootArtifacts, efivars: Path) -> list[Finding]:
    """Judge what is started by the keys of a machine whose firmware enforces Secure Boot; others take anything."""
    if artifacts.kind is not EntryKind.UKI or artifacts.uki is None:
        return []
    if variable(efivars, "SecureBoot", GLOBAL) != b"\1":
        return []
    db, dbx = (signatures_in(variable(efivars, name, IMAGE_SECURITY) or b"") for name in ("db", "dbx"))
    shim = variable(efivars, "MokListRT", SHIM) is not None
    files = [
        (artifacts.uki_name or "the UKI", artifacts.uki),
        *((each.name, each.content) for each in artifacts.addons),
    ]
    return [found for name, content in files for found in _judge(name, content, db, dbx, shim=shim)]


def _judge(name: str, content: Content, db: Signatures, dbx: Signatures, *, shim: bool) -> Iterator[Finding]:
    data = read_all(content)
    try:
        own, verdicts = digest(data), judge(data, db.certificates)
    except ImageError as cause:
        yield Finding.error("boot.untrusted", f"{name} cannot be judged: {cause.message}", "seal the image again")
        return
    revoked = any(verdict.trusted_by for verdict in judge(data, dbx.certificates)) if dbx.certificates else False
    if revoked or own in dbx.hashes:
        message = f"{name} is revoked by dbx of this machine, so that its firmware does not start it"
        yield Finding.error(
            "boot.revoked", message, "sign the image with a key that is not revoked: `cfs seal --replace`"
        )
        return
    if own in db.hashes or any(verdict.trusted_by for verdict in verdicts):
        return
    signers = " and ".join(verdict.signer for verdict in verdicts if verdict.intact)
    by = f"signed by {signers}" if signers else "not signed" if not verdicts else "changed after it was signed"
    message = f"{name} is {by}, and this machine's firmware starts only what a key of its db vouches for"
    hint = "seal the image with a key of db (`cfs seal --replace`), or enrol its certificate in the firmware first"
    if shim and signers:
        message = (
            f"{name} is signed by {signers}: no key of db vouches for it, and whether one of shim's does is unknown"
        )
        yield Finding.warning("boot.untrusted", message, hint)
        return
    yield Finding.error("boot.untrusted", message, hint)
