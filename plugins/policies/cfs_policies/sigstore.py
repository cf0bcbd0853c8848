"""Signatures that cosign attaches to an image: a tag beside it, public keys (cosign's SIGNATURE_SPEC)."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from cfs_core.plugin import ConfigError, Descriptor, Digest, NotFoundError
from cfs_policies.documents import DocumentError, as_object, parse_object
from cfs_policies.simple_signing import SignatureInvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfs_core.plugin import Fetcher, ResolvedImage

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
_ANNOTATION = "dev.cosignproject.cosign/signature"
_PAYLOAD_LIMIT = 1024 * 1024
_SIGNATURES = 128


def load_keys(keys: Sequence[bytes]) -> list[PublicKey]:
    """Read public keys in PEM format.

    Raises:
        ConfigError: not a key, or of a kind that cosign does not use.
    """
    found: list[PublicKey] = []
    for key in keys:
        try:
            loaded = serialization.load_pem_public_key(key)
        except (ValueError, UnsupportedAlgorithm) as error:
            msg = f"a trusted key of the policy is not a public key in PEM format: {error}"
            raise ConfigError(msg, hint="it looks like -----BEGIN PUBLIC KEY-----") from error
        if not isinstance(loaded, PublicKey):
            msg = f"a trusted key of the policy is of the unknown kind {type(loaded).__name__}"
            raise ConfigError(msg, hint="ECDSA, Ed25519 and RSA keys are known")
        found.append(loaded)
    return found


def attached(image: ResolvedImage, transport: Fetcher) -> Iterator[tuple[bytes, str]]:
    """Yield the signatures attached to an image: payload, and signature in base64.

    Raises:
        TransportError: the source failed; that there are none is not a failure.
        DocumentError: what is attached is not a manifest.
    """
    digest = image.manifest.digest
    tag = f"{digest.algorithm.value}-{digest.hex}.sig"
    reference = dataclasses.replace(image.reference, tag=tag, digest=None)
    try:
        _, raw = transport.fetch_manifest(reference)
    except NotFoundError:
        return
    where = f"the signatures attached to {digest}"
    layers = parse_object(raw, where).get("layers")
    if not isinstance(layers, list):
        msg = f"{where} have no layers"
        raise DocumentError(msg)
    for layer in layers[:_SIGNATURES]:
        entry = as_object(layer, where)
        annotations = as_object(entry.get("annotations") or {}, where)
        size, signature = entry.get("size"), annotations.get(_ANNOTATION)
        if entry.get("mediaType") != _PAYLOAD_TYPE or not isinstance(signature, str) or not isinstance(size, int):
            continue
        blob = Descriptor(media_type=_PAYLOAD_TYPE, digest=Digest.parse(entry.get("digest")), size=size)
        yield transport.fetch_bytes(reference, blob, limit=_PAYLOAD_LIMIT), signature


def verify(payload: bytes, signature: str, keys: Sequence[PublicKey]) -> str:
    """Check a signature; return a name for the key that made it: SHA-256 of its DER form.

    Raises:
        SignatureInvalidError: none of the keys made it.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError as error:  # of the alphabet, or no ASCII at all
        msg = "the signature is not base64"
        raise SignatureInvalidError(msg) from error
    for key in keys:
        try:
            _check(key, raw, payload)
        except InvalidSignature:
            continue
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return f"sha256:{hashlib.sha256(der).hexdigest()}"
    msg = "it is not signed by a trusted key"
    raise SignatureInvalidError(msg)


def _check(key: PublicKey, signature: bytes, payload: bytes) -> None:
    """Verify with SHA-256 whatever the curve: cosign signs so, and containers/image accepts nothing else."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, payload)
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
    else:
        key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
