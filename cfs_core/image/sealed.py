"""Is an image sealed? The identities its UKI and addons were built for (formats E.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfs_core.bls import split_arguments
from cfs_core.errors import ImageError
from cfs_core.image.pe import read_pe
from cfs_core.model.boot import KernelArgument
from cfs_core.model.digest import HashAlgorithm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfs_core.model.boot import BootArtifacts
    from cfs_core.model.content import Content

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


def sealed_arguments(artifacts: BootArtifacts) -> tuple[KernelArgument, ...]:
    """Return the words a UKI starts with: its own, then those of its addons by file name, as systemd-stub joins them.

    Raises:
        ImageError: an addon is no PE file.
    """
    words = [KernelArgument(text=text, origin=artifacts.uki_name or "the UKI") for text in artifacts.sealed_arguments]
    for addon in sorted(artifacts.addons, key=lambda addon: addon.name):
        words += [KernelArgument(text=word, origin=addon.name) for word in command_line(addon.content)]
    return tuple(words)


def command_line(uki: Content) -> tuple[str, ...]:
    """Return the words of a UKI's or an addon's command line.

    Raises:
        ImageError: not a PE file, or malformed.
    """
    return split_arguments(read_pe(uki).text(".cmdline"))


def sealed_words(artifacts: BootArtifacts) -> tuple[SealedDigest, ...]:
    """Return the identities that the command line of a UKI and its addons names, in its order; empty: not sealed.

    Raises:
        ImageError: a malformed ``composefs=`` argument, which the initramfs would stumble over.
    """
    return tuple(parse_words(argument.text for argument in sealed_arguments(artifacts)))


def effective(found: Iterable[SealedDigest], algorithm: HashAlgorithm | None) -> SealedDigest | None:
    """Return the identity that the initramfs mounts from a repository of *algorithm*, None where it finds none.

    The first ``composefs.digest=`` of that algorithm counts, else the first ``composefs=``, whatever its length
    (formats E.6).
    """
    plain: SealedDigest | None = None
    for word in found:
        if word.version is None:
            plain = plain or word
        elif word.algorithm is algorithm:
            return word
    return plain


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
