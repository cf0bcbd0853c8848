"""Is an image sealed? The identities its UKI and addons were built for (formats E.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.errors import ImageError
from cfs_core.image.kernel_arguments import split_words
from cfs_core.image.pe import read_pe
from cfs_core.model.digest import HashAlgorithm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.model.boot import BootArtifacts

_PLAIN = re.compile(r"composefs=(\??)([0-9a-f]{64}|[0-9a-f]{128})\Z")
_QUALIFIED = re.compile(
    r"composefs\.digest=(\??)(v\d+)-(sha256|sha512)-12:([0-9a-f]{64}|[0-9a-f]{128})\Z",
)
_KEYS = ("composefs=", "composefs.digest=")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedDigest:
    """One identity a kernel command line demands. ``version`` is informational, and stated only by the newer form."""

    hex: str
    algorithm: HashAlgorithm
    verity_optional: bool
    version: str | None = None


def sealed_digests(artifacts: BootArtifacts) -> tuple[str, ...]:
    """Return the hex identities that a UKI and its addons demand; empty: not sealed.

    Raises:
        ImageError: a malformed ``composefs=`` argument, which the initramfs would stumble over.
    """
    return tuple(dict.fromkeys(found.hex for found in sealed_words(artifacts)))


def sealed_words(artifacts: BootArtifacts) -> tuple[SealedDigest, ...]:
    """As `sealed_digests`, with all that is said; ``composefs.digest=`` first, as the initramfs looks for it first."""
    if artifacts.uki is None:
        return ()
    words = list(artifacts.sealed_arguments)
    for addon in artifacts.addons:
        for text in read_pe(addon.content).texts(".cmdline"):
            words += split_words(text)
    return tuple(sorted(parse_words(words), key=lambda found: found.version is None))


def parse_words(words: Iterable[str]) -> Iterator[SealedDigest]:
    """Yield the identities that words of a command line name.

    Raises:
        ImageError: malformed.
    """
    for word in words:
        bare = word.replace('"', "")
        if not bare.startswith(_KEYS):
            continue
        if found := _PLAIN.match(bare):
            optional, value = found.groups()
            algorithm = HashAlgorithm.SHA256 if len(value) == 2 * HashAlgorithm.SHA256.size else HashAlgorithm.SHA512
            yield SealedDigest(hex=value, algorithm=algorithm, verity_optional=bool(optional))
        elif found := _QUALIFIED.match(bare):
            optional, version, name, value = found.groups()
            algorithm = HashAlgorithm(name)
            if len(value) != 2 * algorithm.size:
                _refuse(word)
            yield SealedDigest(hex=value, algorithm=algorithm, verity_optional=bool(optional), version=version)
        else:
            _refuse(word)


def _refuse(word: str) -> None:
    msg = f"the kernel argument {word!r:.200} names no composefs image"
    raise ImageError(msg, hint="it must be composefs=[?]HEX or composefs.digest=[?]v1-sha512-12:HEX")
