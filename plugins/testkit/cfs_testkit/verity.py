"""fs-verity digests, computed the plain way: to compare with what a filesystem or a repository says."""

from __future__ import annotations

import hashlib
import struct
from importlib import resources
from typing import TYPE_CHECKING

from cfs_core.plugin import HashAlgorithm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BLOCK = 4096


def known_digests(*, up_to: int = 1 << 40) -> Iterator[tuple[bytes, Mapping[HashAlgorithm, str]]]:
    """Yield contents of at most *up_to* bytes, with the digests in hex that fsverity-utils printed for them.

    The sizes lie on both sides of every border between levels of the Merkle tree.
    """
    for line in resources.files("cfs_testkit").joinpath("fsverity_digests.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        size, content, sha256, sha512 = line.split()
        if int(size) <= up_to:
            data = bytes(int(size)) if content == "zero" else (bytes(range(251)) * (int(size) // 251 + 1))[: int(size)]
            yield data, {HashAlgorithm.SHA256: sha256, HashAlgorithm.SHA512: sha512}


def verity_digest(data: bytes, algorithm: HashAlgorithm) -> str:
    """Return ``algorithm:hex`` as ``fsverity digest`` prints it: 4096-byte blocks, no salt (linux/fsverity.h)."""

    def level(content: bytes) -> bytes:
        blocks = (content[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(content), BLOCK))
        return b"".join(hashlib.new(algorithm.value, block).digest() for block in blocks)

    root = level(data)
    while len(root) > algorithm.size:
        root = level(root)
    number = 1 if algorithm.size == 32 else 2  # noqa: PLR2004 - FS_VERITY_HASH_ALG_SHA256, _SHA512
    descriptor = struct.pack("<BBBBIQ", 1, number, 12, 0, 0, len(data)) + root.ljust(64, b"\0")
    whole = descriptor.ljust(256, b"\0")
    return f"{algorithm.value}:{hashlib.new(algorithm.value, whole).hexdigest()}"
