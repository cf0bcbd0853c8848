"""Simple signing: a JSON claim about a manifest in an OpenPGP message (containers-signature(5)), checked by GnuPG."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cfs_core.plugin import CommandError, ConfigError
from cfs_policies.documents import DocumentError, as_object, check_keys, parse_object, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfs_core.plugin import CommandRunner

ATOMIC = "atomic container signature"
COSIGN = "cosign container image signature"
_BAD = frozenset({"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA", "UNEXPECTED", "FAILURE", "ERROR"})

CLAIM_LIMIT = 1 << 20
"""Bytes of what a signature may unpack to: a claim has a few hundred, and OpenPGP messages may be compressed."""

GPG_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signature says: this manifest is that image."""

    digest: str
    reference: str


class SignatureInvalidError(ConfigError):
    """A signature that proves nothing; another one may."""


def parse_claim(payload: bytes, kind: str) -> Claim:
    """Read the signed JSON, strictly; call it only on bytes whose signature is good.

    Raises:
        SignatureInvalidError: not such a claim.
    """
    where = "the signed claim"
    try:
        top = parse_object(payload, where)
        check_keys(top, where, needed=["critical", "optional"])
        critical = as_object(top["critical"], "'critical'")
        check_keys(critical, "'critical'", needed=["type", "image", "identity"])
        if critical["type"] != kind:
            msg = f"the claim is of type {critical['type']!r:.60}"
            raise SignatureInvalidError(msg)
        image, identity = as_object(critical["image"], "'image'"), as_object(critical["identity"], "'identity'")
        check_keys(image, "'image'", needed=["docker-manifest-digest"])
        check_keys(identity, "'identity'", needed=["docker-reference"])
        digest = text_of(image, "docker-manifest-digest", "'image'")
        return Claim(digest, text_of(identity, "docker-reference", "'identity'"))
    except DocumentError as error:
        raise SignatureInvalidError(str(error)) from error


class Keyring:
    """A throw-away GnuPG home with the trusted keys and nothing else. A context manager."""

    def __init__(self, keys: Sequence[bytes], commands: CommandRunner, scratch: Path) -> None:
        self._commands = commands
        self._folder = tempfile.TemporaryDirectory(prefix="gpg-", dir=scratch)
        self._home = Path(self._folder.name)
        self._home.chmod(0o700)
        try:
            for key in keys:
                self._gpg("--import", data=key)
        except CommandError as error:
            self._folder.cleanup()
            msg = f"a trusted key of the policy cannot be read by gpg: {error}"
            raise ConfigError(msg, hint=error.hint or "export it again: gpg --export KEY > FILE") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def verify(self, signature: bytes) -> tuple[bytes, str]:
        """Return what was signed, and the fingerprint of the primary key that signed it.

        Raises:
            SignatureInvalidError: not exactly one good signature by one of the keys.
        """
        status = self._home / "status"
        status.unlink(missing_ok=True)
        try:
            payload = self._gpg("--status-file", str(status), "--output", "-", "--decrypt", data=signature)
        except CommandError as error:
            msg = "it is not signed by a trusted key"
            raise SignatureInvalidError(msg) from error
        lines = [line.split() for line in status.read_text(errors="replace").splitlines()]
        words = [line[1:] for line in lines if len(line) > 1 and line[0] == "[GNUPG:]"]
        kinds = [each[0] for each in words]
        valid = [each for each in words if each[0] == "VALIDSIG"]
        counted = all(kinds.count(kind) == 1 for kind in ("GOODSIG", "VALIDSIG", "NEWSIG", "PLAINTEXT"))
        if not counted or _BAD.intersection(kinds) or len(valid[0]) < 2:  # noqa: PLR2004 - keyword and fingerprint
            msg = "it is not exactly one good signature by a trusted key"
            raise SignatureInvalidError(msg)
        return payload, valid[0][-1]

    def _gpg(self, *arguments: str, data: bytes) -> bytes:
        argv = ["gpg", "--homedir", str(self._home), "--batch", "--no-tty", "--no-options", "--disable-dirmngr"]
        argv += ["--no-auto-key-retrieve", "--no-autostart", "--trust-model", "always", *arguments]
        return self._commands.run(argv, stdin=data, output_limit=CLAIM_LIMIT, seconds=GPG_SECONDS).stdout
