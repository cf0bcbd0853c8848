"""Signatures of EFI programs (Authenticode: PKCS #7, RFC 2315, over the digest of a PE file): made and judged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cfs_core.plugin import ImageError
from cfs_seal import der
from cfs_seal.pe_signatures import digest, signatures

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGNED_DATA = "1.2.840.113549.1.7.2"
DATA = "1.2.840.113549.1.7.1"
_INDIRECT_DATA = "1.3.6.1.4.1.311.2.1.4"
_PE_IMAGE = "1.3.6.1.4.1.311.2.1.15"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
_RSA = "1.2.840.113549.1.1.1"
_HASHES = {
    der.oid("2.16.840.1.101.3.4.2.1"): ("sha256", hashes.SHA256()),
    der.oid("2.16.840.1.101.3.4.2.2"): ("sha384", hashes.SHA384()),
    der.oid("2.16.840.1.101.3.4.2.3"): ("sha512", hashes.SHA512()),
}
_SHA256 = der.element(der.SEQUENCE, der.oid("2.16.840.1.101.3.4.2.1"), der.element(der.NULL))
# SpcPeImageData: no flags, and the file name "<<<Obsolete>>>", as every signer writes.
_PE_DATA = der.element(
    der.SEQUENCE,
    der.element(0x03, b"\0"),
    der.element(
        der.EXPLICIT_0,
        der.element(der.EXPLICIT_2, der.element(der.IMPLICIT_0, "<<<Obsolete>>>".encode("utf-16-be"))),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One signature. ``trusted_by`` is the given certificate that vouches for it, None where none does."""

    signer: str
    fingerprint: str
    """SHA-256 of the signer's certificate, in hex."""

    intact: bool
    """Whether the signature fits the file."""

    trusted_by: str | None
    problem: str | None = None


def sign(data: memoryview | bytes, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> bytes:
    """Return a signature of a PE file; no time is in it, so the same file and key give the same bytes.

    Raises:
        ImageError: no PE file.
    """
    indirect = der.element(
        der.SEQUENCE,
        der.element(der.SEQUENCE, der.oid(_PE_IMAGE), _PE_DATA),
        der.element(der.SEQUENCE, _SHA256, der.element(der.OCTETS, digest(data))),
    )
    # What is hashed is the content of the outer sequence, without its tag and length.
    inner = der.read(indirect).body
    attributes = (
        _attribute(_CONTENT_TYPE, der.oid(_INDIRECT_DATA)),
        _attribute(_MESSAGE_DIGEST, der.element(der.OCTETS, hashlib.sha256(inner).digest())),
    )
    content = der.element(der.SEQUENCE, der.oid(_INDIRECT_DATA), der.element(der.EXPLICIT_0, indirect))
    return signed_data(content, key, certificate, der.set_of(*attributes))


def signed_data(
    content: bytes, key: rsa.RSAPrivateKey, certificate: x509.Certificate, attributes: bytes | None, data: bytes = b""
) -> bytes:
    """Return a ContentInfo with SignedData over *attributes* (a SET), or over *data* where there are none."""
    signature = key.sign(attributes or data, padding.PKCS1v15(), hashes.SHA256())
    signer = der.element(
        der.SEQUENCE,
        der.integer(1),
        der.element(der.SEQUENCE, certificate.issuer.public_bytes(), der.integer(certificate.serial_number)),
        _SHA256,
        der.element(der.EXPLICIT_0, der.read(attributes).body) if attributes else b"",
        der.element(der.SEQUENCE, der.oid(_RSA), der.element(der.NULL)),
        der.element(der.OCTETS, signature),
    )
    return der.element(
        der.SEQUENCE,
        der.oid(SIGNED_DATA),
        der.element(
            der.EXPLICIT_0,
            der.element(
                der.SEQUENCE,
                der.integer(1),
                der.set_of(_SHA256),
                content,
                der.element(der.EXPLICIT_0, certificate.public_bytes(serialization.Encoding.DER)),
                der.set_of(signer),
            ),
        ),
    )


def _attribute(name: str, value: bytes) -> bytes:
    return der.element(der.SEQUENCE, der.oid(name), der.set_of(value))


def judge(data: memoryview | bytes, trusted: Sequence[x509.Certificate]) -> tuple[Verdict, ...]:
    """Judge every signature of a PE file by the certificates of a ``db``; times of validity do not count in firmware.

    Raises:
        ImageError: no PE file, or malformed signatures.
    """
    return tuple(_judge_one(data, signature, trusted) for signature in signatures(data))


def _judge_one(data: memoryview | bytes, signature: bytes, trusted: Sequence[x509.Certificate]) -> Verdict:
    try:
        parts = _Parts.of(signature)
    except (IndexError, ValueError) as cause:
        msg = "a signature of a PE file is malformed"
        raise ImageError(msg, hint="sign the file again") from cause
    signer = parts.signer_among(trusted)
    if signer is None:
        unknown = "the signer's certificate is neither in the signature nor among those given"
        return Verdict(signer="unknown", fingerprint="", intact=False, trusted_by=None, problem=unknown)
    problem = parts.problem(data, signer)
    vouching = parts.trust(signer, trusted)
    return Verdict(
        signer=signer.subject.rfc4514_string(),
        fingerprint=signer.fingerprint(hashes.SHA256()).hex(),
        intact=problem is None,
        trusted_by=vouching.subject.rfc4514_string() if vouching is not None and problem is None else None,
        problem=problem,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a signature says."""

    content: der.Element
    certificates: tuple[x509.Certificate, ...]
    issuer_and_serial: bytes
    hash_name: bytes
    attributes: bytes
    signature: bytes

    @classmethod
    def of(cls, raw: bytes) -> _Parts:
        outer = der.read(raw).children()
        signed = outer[1].children()[0] if outer[0].raw == der.oid(SIGNED_DATA) else der.read(raw)
        _, _, content, *rest = signed.children()
        certificates = [item for item in rest if item.tag == der.EXPLICIT_0]
        signers = rest[-1].children()
        info = signers[0].children()
        attributes = info[3] if info[3].tag == der.EXPLICIT_0 else None
        return cls(
            content=content.children()[1].children()[0],
            certificates=tuple(
                x509.load_der_x509_certificate(each.raw)
                for each in (certificates[0].children() if certificates else ())
            ),
            issuer_and_serial=info[1].body,
            hash_name=info[2].children()[0].raw,
            attributes=attributes.body if attributes is not None else b"",
            signature=info[5 if attributes is not None else 4].body,
        )

    def signer_among(self, more: Sequence[x509.Certificate]) -> x509.Certificate | None:
        for each in (*self.certificates, *more):
            if each.issuer.public_bytes() + der.integer(each.serial_number) == self.issuer_and_serial:
                return each
        return None

    def problem(self, data: memoryview | bytes, signer: x509.Certificate) -> str | None:
        """Return why the signature is not one of this file, None if it is."""
        known = _HASHES.get(self.hash_name)
        key = signer.public_key()
        if known is None or not isinstance(key, rsa.RSAPublicKey):
            return "it is not made with RSA and SHA-256, SHA-384 or SHA-512"
        name, algorithm = known
        stated = self.content.children()[1].children()
        signed_hash = _HASHES.get(stated[0].children()[0].raw)
        if signed_hash is None or digest(data, signed_hash[0]) != stated[1].body:
            return "the file was changed after it was signed"
        wanted = _attribute(_MESSAGE_DIGEST, der.element(der.OCTETS, hashlib.new(name, self.content.body).digest()))
        if self.attributes and wanted not in [item.raw for item in der.read_all(self.attributes)]:
            return "its attributes are of another file"
        signed = der.element(der.SET, self.attributes) if self.attributes else self.content.body
        try:
            key.verify(self.signature, signed, padding.PKCS1v15(), algorithm)
        except InvalidSignature:
            return "it was not made with the key of its certificate"
        return None

    def trust(self, signer: x509.Certificate, trusted: Sequence[x509.Certificate]) -> x509.Certificate | None:
        """Return the given certificate at which the chain from *signer* arrives."""
        current, left = signer, list(self.certificates)
        while True:
            for anchor in trusted:
                if anchor == current or _issued(current, anchor):
                    return anchor
            above = next((each for each in left if each != current and _issued(current, each)), None)
            if above is None:
                return None
            left.remove(above)
            current = above


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
