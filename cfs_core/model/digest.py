"""Hash algorithms and OCI digests."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self

from cfs_core.errors import ImageError

if TYPE_CHECKING:
    from hashlib import _Hash


class HashAlgorithm(enum.StrEnum):
    """Hashes that OCI digests and fs-verity share, by their common name."""

    SHA256 = "sha256"
    """SHA-256, 32 bytes."""

    SHA512 = "sha512"
    """SHA-512, 64 bytes."""

    @property
    def size(self) -> int:
        """Digest length in bytes."""
        return 32 if self is HashAlgorithm.SHA256 else 64

    def new(self) -> _Hash:
        """Return a fresh hashlib object."""
        import hashlib  # loads OpenSSL, which a command that hashes nothing need not wait for

        return hashlib.new(self.value)


_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """Hash of bytes as OCI names them: ``sha256:<hex>`` (image-spec, descriptor.md)."""

    algorithm: HashAlgorithm
    """The hash."""

    hex: str
    """Lower-case hexadecimal."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read ``algorithm:hex``.

        Raises:
            ImageError: anything else, upper-case hex and unknown algorithms included.
        """
        if not isinstance(text, str) or not _DIGEST.match(text):
            msg = f"not an OCI digest: {text!r:.100}"
            raise ImageError(msg, hint="a digest is sha256:<64 hex digits> or sha512:<128 hex digits>")
        name, _, value = text.partition(":")
        return cls(HashAlgorithm(name), value)

    @classmethod
    def of(cls, data: bytes, algorithm: HashAlgorithm = HashAlgorithm.SHA256) -> Self:
        """Hash *data*."""
        hasher = algorithm.new()
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())

    @classmethod
    def of_stream(cls, file: BinaryIO, algorithm: HashAlgorithm = HashAlgorithm.SHA256) -> Self:
        """Hash what is left of *file*, in flat memory."""
        hasher = algorithm.new()
        while block := file.read(1 << 20):
            hasher.update(block)
        return cls(algorithm, hasher.hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm.value}:{self.hex}"
