"""Who signs: a key in a file, by our own code; a key in a token, by sbsign or systemd-sbsign."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from cfs_core.plugin import CommandError, ConfigError, UsageError, VerificationError
from cfs_seal.authenticode import judge, sign
from cfs_seal.pe_signatures import attach, digest, mapped, signatures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.plugin import CommandRunner

PKCS11 = "pkcs11:"
KEY_BITS = 2048
"""The RSA keys that firmware is known to take; many take no others (UEFI 2.10, 32.5)."""

SBSIGN, SYSTEMD_SBSIGN = "sbsign", "/usr/lib/systemd/systemd-sbsign"
_PEM = b"-----BEGIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A certificate, and its key: loaded from a file, or the PKCS #11 URI of one that stays in its token."""

    certificate: x509.Certificate
    certificate_file: Path
    key: rsa.RSAPrivateKey | str

    @property
    def name(self) -> str:
        """The subject of the certificate."""
        return self.certificate.subject.rfc4514_string()


def load_signers(keys: Sequence[str], certificates: Sequence[Path]) -> tuple[Signer, ...]:
    """Put ``--key`` and ``--certificate`` together, in their order.

    Raises:
        UsageError: not one certificate for each key, or a certificate of another key.
        ConfigError: a file that is no key or certificate.
    """
    if len(keys) != len(certificates):
        msg = f"{len(keys)} keys and {len(certificates)} certificates were given"
        raise UsageError(msg, hint="give each --key its --certificate, in the same order")
    return tuple(_signer(key, certificate) for key, certificate in zip(keys, certificates, strict=True))


def _signer(key: str, path: Path) -> Signer:
    certificate = load_certificate(path)
    if key.startswith(PKCS11):
        return Signer(certificate=certificate, certificate_file=path, key=key)
    loaded = load_key(Path(key))
    if loaded.public_key() != certificate.public_key():
        msg = f"the certificate {path} is not that of the key {key}"
        raise UsageError(msg, hint="give each --key its --certificate, in the same order")
    return Signer(certificate=certificate, certificate_file=path, key=loaded)


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate, PEM or DER.

    Raises:
        ConfigError: it is none.
    """
    try:
        data = path.read_bytes()
        return x509.load_pem_x509_certificate(data) if _PEM in data else x509.load_der_x509_certificate(data)
    except (OSError, ValueError) as cause:
        msg = f"{path} cannot be read as a certificate: {_why(cause)}"
        raise ConfigError(msg, hint="`cfs secureboot keys DIR` makes keys and certificates") from cause


def load_key(path: Path) -> rsa.RSAPrivateKey:
    """Read an RSA key, PEM or DER.

    Raises:
        ConfigError: it is none, is encrypted, or of a kind that firmware does not take.
    """
    try:
        data = path.read_bytes()
        key = load_pem_private_key(data, None) if _PEM in data else load_der_private_key(data, None)
    except TypeError as cause:
        msg = f"the key {path} is encrypted"
        raise ConfigError(
            msg, hint="keep it in a token (--key pkcs11:…), or sign on another host: --unsigned-to"
        ) from cause
    except (OSError, ValueError) as cause:
        msg = f"{path} cannot be read as a key: {_why(cause)}"
        raise ConfigError(msg, hint="`cfs secureboot keys DIR` makes keys and certificates") from cause
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < KEY_BITS:
        msg = f"{path} is not an RSA key of at least {KEY_BITS} bits, which is what firmware takes"
        raise ConfigError(msg, hint="`cfs secureboot keys DIR` makes such keys")
    return key


def _why(cause: Exception) -> str:
    return (cause.strerror if isinstance(cause, OSError) else None) or "not PEM or DER"


def sign_file(path: Path, signers: Sequence[Signer], commands: CommandRunner, out: Path) -> None:
    """Write *path* with a signature of every signer to *out*; signatures that it has stay.

    Raises:
        CommandError: no program can use the token, or it refused.
        VerificationError: what a program signed is another file.
    """
    with mapped(path) as data:
        found = [*signatures(data)]
        for signer in signers:
            if isinstance(signer.key, rsa.RSAPrivateKey):
                found.append(sign(data, signer.key, signer.certificate))
            else:
                found.append(_by_token(path, signer, signer.key, commands))
        with out.open("wb") as file:
            attach(data, found, file)


def taken_over(unsigned: Path, signed: Sequence[Path], out: Path) -> tuple[str, ...]:
    """Write *unsigned* with the signatures that the files *signed* have, and return who signed.

    Raises:
        VerificationError: one of them is another file, or has no signature.
    """
    with mapped(unsigned) as data:
        expected = digest(data)
        found: list[bytes] = []
        for path in signed:
            with mapped(path) as other:
                if digest(other) != expected:
                    msg = f"{path} is not the file that was to be signed"
                    raise VerificationError(
                        msg, hint="sign the file as --unsigned-to wrote it", facts={"expected": expected.hex()}
                    )
                own = signatures(other)
                names = [verdict.signer for verdict in judge(other, ()) if not verdict.intact]
                if not own or names:
                    msg = f"{path} has no signature that fits it"
                    raise VerificationError(msg, hint="sign it, for example with sbsign, and try again")
                found += [each for each in own if each not in found]
        with out.open("wb") as file:
            attach(data, found, file)
    with mapped(out) as data:
        return tuple(verdict.signer for verdict in judge(data, ()))


def _by_token(path: Path, signer: Signer, uri: str, commands: CommandRunner) -> bytes:
    """Return the signature that a program made with a key in a token."""
    with tempfile.TemporaryDirectory(prefix="cfs-sign-") as folder:
        out = Path(folder) / "signed.efi"
        certificate = str(signer.certificate_file)
        if commands.find(SBSIGN):
            argv = [SBSIGN, "--engine", "pkcs11", "--key", uri, "--cert", certificate, "--output", str(out), str(path)]
        elif commands.find(SYSTEMD_SBSIGN):
            argv = [SYSTEMD_SBSIGN, "sign", "--private-key-source=provider:pkcs11", f"--private-key={uri}",
                    f"--certificate={certificate}", f"--output={out}", str(path)]  # fmt: skip
        else:
            msg = "neither sbsign nor systemd-sbsign is installed, one of which uses keys in tokens"
            raise CommandError(msg, hint="install sbsigntool, or sign on another host: --unsigned-to")
        commands.run(argv)
        with mapped(out) as data, mapped(path) as before:
            made = [each for each in signatures(data) if each not in signatures(before)]
            if digest(data) != digest(before) or len(made) != 1:
                msg = f"{argv[0]} signed another file than {path.name}"
                raise VerificationError(msg, hint="report it to the authors of that program")
            return made[0]
